"""What the tracer cannot see, why, and what would help: for people, in /status."""

from __future__ import annotations

import socket
from pathlib import Path

from cluster.tracer.discovery import Namespaces
from cluster.tracer.rows import TCP

CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 12, 19, 21
ROOT = "run the tracer as root"


def capabilities() -> int:
    """The bits of our effective capabilities."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def lacks(namespaces: Namespaces) -> list[dict[str, str]]:
    """Each lack as {what, why, remedy}."""
    found = [*rights(namespaces), *kernel(namespaces), *tracking(namespaces)]
    return [{"what": what, "why": why, "remedy": remedy} for what, why, remedy in found]


def rights(namespaces: Namespaces) -> list[tuple[str, str, str]]:
    """What more rights would show."""
    held, found = capabilities(), []
    if not held >> CAP_SYS_ADMIN & 1:
        found.append(("other network namespaces", "entering one needs CAP_SYS_ADMIN", ROOT))
    if not held >> CAP_SYS_PTRACE & 1:
        found.append(("the owners of other users' sockets", "reading /proc/PID/fd of others needs CAP_SYS_PTRACE", ROOT))
    for inode, (reason, _) in list(namespaces.refused.items())[:10]:
        found.append((f"network namespace {inode}", f"it could not be entered: {reason}", "see the reason"))
    size = min(one.events.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for one in namespaces.all.values())
    if size < namespaces.event_buffer:
        why = f"the queue of closes holds {size} bytes of {namespaces.event_buffer}: more needs CAP_NET_ADMIN"
        found.append(("every close in a burst", why, f"{ROOT}, or raise net.core.rmem_max"))
    return found


def kernel(namespaces: Namespaces) -> list[tuple[str, str, str]]:
    """What this kernel does not offer."""
    found = {}
    for namespace in namespaces.all.values():
        for (family, protocol), reason in namespace.lacks.items():
            name = f"{'TCP' if protocol == TCP else 'UDP'} over {'IPv4' if family == socket.AF_INET else 'IPv6'}"
            found[name] = (name, f"the kernel cannot list such sockets: {reason}", "load tcp_diag and udp_diag, if they are modules")
    return list(found.values())


def tracking(namespaces: Namespaces) -> list[tuple[str, str, str]]:
    """Why UDP bytes and translations are not known everywhere."""
    what = "bytes of UDP, and translated addresses"
    if not namespaces.tracking:
        return [(what, "connection tracking is not loaded", "load nf_conntrack and nf_conntrack_netlink, and let a firewall rule use it")]
    spaces = namespaces.all.values()
    reasons = {one.untracked for one in spaces if one.untracked}
    if reasons:
        return [(what, f"connection tracking could not be read: {', '.join(sorted(reasons))}", ROOT)]
    idle = sum(1 for one in spaces if one.conntrack and not one.conntrack.entries)
    uncounted = sum(1 for one in spaces if one.conntrack and one.conntrack.entries and not one.conntrack.counts)
    found = []
    if idle:
        found.append((what, f"{idle} of {len(spaces)} network namespaces track no connection", "a firewall rule there must use ct state"))
    if uncounted:
        found.append(
            ("bytes of UDP", f"{uncounted} network namespaces do not count them", "sysctl net.netfilter.nf_conntrack_acct=1 there")
        )
    return found
