"""Our own tracer: the kernel's sockets over netlink, served on a unix socket as its kind does. It is a process, never an actor."""
