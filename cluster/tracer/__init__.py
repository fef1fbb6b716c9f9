"""Our own tracer: the kernel's sockets over netlink, served on a unix socket as its kind does. It is a process, never an actor.

    messages, netlink   messages of the kernel, a whole dump at a time
    sockdiag, conntrack what they say of sockets and of tracked connections, as columns
    rows                the one row that everything else passes on
    namespaces, discovery, owners   where sockets are, and whose
    listeners, fins, settle, udp, vanished   what dumps and destroy events mean: ends, totals, closes
    closes              what each client has been told
    reply, http, server, unix_socket   how it is told
    tracer              all of it together; lacks says what cannot be seen

It loads little and never changes anything: no setting, no rule, no module.
"""
