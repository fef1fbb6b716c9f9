"""Our own tracer: the kernel's sockets over netlink, served on a unix socket as tracers of this family do. It is a process, never an actor."""
