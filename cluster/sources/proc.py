"""Processes: whose traffic a pid's is, from /proc. Reads `stat` and `cgroup` only: never the environment, never the arguments."""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.core.kinds import Process, plain, record
from cluster.sources import cgroup

READ_LIMIT = 65_536  # bytes of one /proc file: above 13 hierarchies of the longest path
NSPID = re.compile(rb"^NSpid:([0-9 \t]+)$", re.MULTILINE)
KNOWN_LIMIT = 10_000  # processes remembered; beyond it the one not asked for the longest is forgotten


@dataclass(frozen=True, slots=True)
class Stat:
    """What identifies a process, and its command name (at most 15 bytes, the kernel's `comm`)."""

    name: str
    start: int  # ticks since boot


class Processes:
    """The processes of one machine.

    `proc` is the /proc to read: in a pod, the host's. `workloads` gives the workload of a container id as the sources of containers know it
    ("container/web", "pod/shop/cart-x2x"), and that of a pod's UID; it is read at every question, so that it may grow meanwhile. `inside`
    is as in `cgroup.parse`.
    """

    def __init__(
        self, proc: str | Path = "/proc", workloads: Mapping[str, str] | None = None, limit: int = KNOWN_LIMIT, inside: str = ""
    ) -> None:
        self._proc = os.fspath(proc)
        self._workloads = {} if workloads is None else workloads
        self._limit = limit
        self._inside = inside
        self._known: OrderedDict[int, tuple[Stat, cgroup.Membership]] = OrderedDict()
        self._boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)  # once: a step of the clock would move every start
        self.forgotten = 0

    def workload_of(self, pid: int) -> str:
        """The workload of a live process, "" for any other.

        "pod/NAMESPACE/NAME" or "container/NAME" ("container/<12 hex>" where no source knows the id), else "unit/ssh.service", else
        "process/curl".
        """
        known = self._look_up(pid)
        return self._workload(*known) if known else ""

    def alive(self) -> list[Process]:
        """The processes that were asked for and still run, the one not asked for the longest first."""
        found = [(pid, self._look_up(pid)) for pid in list(self._known)]
        return [self._describe(pid, *known) for pid, known in found if known]

    def _look_up(self, pid: int) -> tuple[Stat, cgroup.Membership] | None:
        # The name belongs to the key: between fork and exec a process may not be in its cgroup yet.
        stat = read_stat(self._proc, pid)
        known = self._known.pop(pid, None)
        if stat is None:
            return None
        if known is None or known[0] != stat:
            known = stat, read_membership(self._proc, pid, self._inside)
            again = read_stat(self._proc, pid)
            if again is None or again.start != stat.start:  # it ended between the two reads; the cgroup may be a successor's
                return None
        self._known[pid] = known
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
            self.forgotten += 1
        return known

    def _workload(self, stat: Stat, membership: cgroup.Membership) -> str:
        for owner in (*membership.containers[:-1], membership.pod, *membership.containers[-1:])[::-1]:  # the innermost first
            if workload := self._workloads.get(owner):
                return workload
        if membership.containers:
            return f"container/{membership.containers[-1][:12]}"
        return f"unit/{plain(membership.unit)}" if membership.unit else f"process/{stat.name}"

    def _describe(self, pid: int, stat: Stat, membership: cgroup.Membership) -> Process:
        return Process(
            uid=f"{pid}-{stat.start}",
            name=stat.name,
            workload=self._workload(stat, membership),
            pid=pid,
            unit=plain(membership.unit),
            container=membership.containers[-1] if membership.containers else "",
            started=int(self._boot + stat.start / os.sysconf("SC_CLK_TCK")),
        )


class ProcSource:
    """A MetadataSource: the processes that own sockets, under the node's address, by pid and start time."""

    name = "proc"

    def __init__(self, processes: Processes, address: Callable[[], str]) -> None:
        self._processes = processes
        self._address = address

    def read(self) -> dict[tuple[str, str], dict[str, Any]]:
        """A record for each process that was asked for and still runs."""
        address = self._address()
        return {(address, process.uid): record(process) for process in self._processes.alive()}


def read_bytes(proc: str, pid: int, name: str) -> bytes | None:
    """The first READ_LIMIT bytes of a process's file, or None where it cannot be read: gone, forbidden, not a process."""
    try:
        descriptor = os.open(f"{proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        return os.read(descriptor, READ_LIMIT)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_stat(proc: str, pid: int) -> Stat | None:
    """Name and start time of a process (proc_pid_stat(5), fields 2, 3, 20 and 22); None where there is none.

    A zombie is none: it owns nothing any more, unless only its first thread has ended.
    """
    raw = read_bytes(proc, pid, "stat") or b""
    opening, closing = raw.find(b"("), raw.rfind(b")")  # the name itself may hold any byte, brackets too
    rest = raw[closing + 1 :].split()
    if not 0 <= opening < closing or len(rest) < 20 or not rest[19].isdigit():
        return None
    if rest[0] in (b"Z", b"X") and rest[17] in (b"0", b"1"):
        return None
    return Stat(plain(raw[opening + 1 : closing].decode("utf-8", "replace")) or "_", int(rest[19]))


def read_membership(proc: str, pid: int, inside: str = "") -> cgroup.Membership:
    """Containers, unit and pod of a process; an empty one where they cannot be read."""
    return cgroup.parse((read_bytes(proc, pid, "cgroup") or b"").decode("utf-8", "replace"), inside)


def is_first(proc: str, pid: int) -> bool:
    """Whether it is number 1 of a PID namespace below that of `proc` (proc_pid_status(5), NSpid)."""
    found = NSPID.search(read_bytes(proc, pid, "status") or b"")
    numbers = found[1].split() if found else []
    return len(numbers) > 1 and numbers[-1] == b"1"
