"""What the kernel offers to our own tracer: socket diagnostics, their destroy events, privileges, namespaces, conntrack, cgroups."""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path

from cluster.cli.checks.finding import Finding, Machine, lack, ok, unknown

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
NETLINK_ADD_MEMBERSHIP = 1
SOL_NETLINK = 270
SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY = 1, 3  # linux/sock_diag.h
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR = 2
HOST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, linux/proc_ns.h
CAPABILITIES = {  # bit: name and what the tracer does with it; linux/capability.h
    12: ("CAP_NET_ADMIN", "a large buffer for bursts of closing connections, and conntrack"),
    19: ("CAP_SYS_PTRACE", "owners of other users' sockets"),
    21: ("CAP_SYS_ADMIN", "other network namespaces, such as containers"),
}
TRACER_AS_ROOT = "run the tracer as root (sudo rayscope tracer); without it only this user's processes in this namespace have owners"


def release(_: Machine) -> Finding:
    """The kernel's version; cgroup ids of sockets came with 5.9."""
    name = os.uname()
    if name.sysname != "Linux":
        return lack(name.sysname, "rayscope reads Linux's sockets: run it on Linux")
    major, minor = map(int, re.findall(r"\d+", name.release)[:2])
    if (major, minor) < (4, 19):
        return lack(name.release, "use a kernel of 4.19 or newer for our tracer: older ones do not count a socket's sent bytes")
    return ok(name.release + ("" if (major, minor) >= (5, 9) else ", without cgroup ids of sockets (5.9): owners are found by PID only"))


def socket_dumps(_: Machine) -> Finding:
    """Asks for a dump of no sockets at all."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(2)
            body = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 0)
            netlink.sendto(struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + body, (0, 0))
            _, kind, _, _, _, code = struct.unpack("=IHHIIi", netlink.recv(65_536)[:20])
            if kind == NLMSG_ERROR and code:
                raise OSError(-code, os.strerror(-code))
    except OSError as error:
        return lack(f"the kernel dumps no TCP sockets: {error}", "load the modules: sudo modprobe -a inet_diag tcp_diag")
    return ok("the kernel dumps TCP sockets")


def destroy_events(_: Machine) -> Finding:
    """Joins the multicast groups that tell each socket's last counters."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            for group in (SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY):
                netlink.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    except OSError as error:
        return lack(f"no destroy events: {error}", "use a kernel of 4.19 or newer; without them short connections are missed")
    return ok("the kernel tells each socket's last counters")


def capabilities(machine: Machine) -> Finding:
    """Which of the tracer's privileges this process has."""
    held = int(field(machine.proc / "self/status", "CapEff"), 16)
    missing = [f"{name} ({purpose})" for bit, (name, purpose) in CAPABILITIES.items() if not held >> bit & 1]
    return lack("without " + ", ".join(missing), TRACER_AS_ROOT) if missing else ok("the tracer's privileges are held")


def namespaces(machine: Machine) -> Finding:
    """Whether the network namespaces of all processes can be told apart."""
    seen: set[str] = set()
    hidden = 0
    for process in processes(machine.proc):
        try:
            seen.add(str((process / "ns/net").readlink()))
        except PermissionError:
            hidden += 1
        except OSError:
            continue  # it ended
    found = f"{len(seen)} readable"
    if not hidden:
        return ok(found)
    remedy = TRACER_AS_ROOT if os.geteuid() else "these processes hold capabilities that this one has not: run the tracer with all of them"
    return lack(f"{found}, those of {hidden} processes are not", remedy)


def visible_processes(machine: Machine) -> Finding:
    """Whether /proc shows the host's processes to this user."""
    try:
        (machine.proc / "1/status").read_text()
    except OSError:
        option = _hidepid(machine)
        return lack(f"/proc hides other users' processes ({option})", "run the tracer as root, or in the group of /proc's gid= option")
    if (machine.proc / "self/ns/pid").stat().st_ino != HOST_PID_NAMESPACE:
        return lack("only the processes of this container are visible", "run it in the host's PID namespace (hostPID: true, --pid=host)")
    return ok(f"{len(processes(machine.proc))} of this machine are visible")


def _hidepid(machine: Machine) -> str:
    mounts = (mount.split() for mount in (machine.proc / "self/mounts").read_text().splitlines())
    options = [option for mount in mounts if mount[2] == "proc" for option in mount[3].split(",")]
    return next((option for option in options if option.startswith("hidepid=")), "no process 1 can be read")


def conntrack(machine: Machine) -> Finding:
    """Whether UDP bytes can be known: conntrack tracks only where a rule uses it, and counts bytes only when told to."""
    directory = machine.proc / "sys/net/netfilter"
    if not (directory / "nf_conntrack_count").exists():
        return lack("not loaded: bytes of UDP are unknown", "any nftables rule with `ct state` loads and activates it")
    if (directory / "nf_conntrack_acct").read_text().strip() != "1":
        return lack("counts no bytes: bytes of UDP are unknown", "sudo sysctl net.netfilter.nf_conntrack_acct=1")
    count = int((directory / "nf_conntrack_count").read_text())
    if not count:
        return lack("tracks nothing: bytes of UDP are unknown", "any nftables rule with `ct state` in this namespace activates it")
    return ok(f"tracks {count:,} connections and counts their bytes")


def cgroups(machine: Machine) -> Finding:
    """Which version; the kernel's cgroup ids of sockets are those of version 2."""
    if (machine.sys / "fs/cgroup/cgroup.controllers").exists():
        return ok("version 2")
    if (machine.sys / "fs/cgroup/unified").exists():
        return lack("version 1 with 2 beside it", _SECOND_VERSION)
    if (machine.sys / "fs/cgroup").exists():
        return lack("version 1", _SECOND_VERSION)
    return unknown("no /sys/fs/cgroup")


_SECOND_VERSION = "boot with systemd.unified_cgroup_hierarchy=1; without it a socket's container is found by its process only"


def processes(proc: Path) -> list[Path]:
    """The directories of all processes."""
    return [entry for entry in proc.iterdir() if entry.name.isdigit()]


def field(path: Path, name: str) -> str:
    """The value of `name:` in a file of such lines; raises KeyError."""
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise KeyError(f"{path} has no {name}")
