"""Which processes are in which container: all of /proc, looked through at each read of the metadata.

What costs is opening files: a process that is known by (pid, start, name) costs its `stat`, a new one also `cgroup`, and `status` where it
is in a container.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cluster.core.errors import SourceError
from cluster.sources.cgroup import Membership
from cluster.sources.proc import Stat, is_first, read_membership, read_stat

PROCESSES_LIMIT = 20_000  # looked at in one scan, those of the lowest numbers
Place = tuple[str, str]  # (pod UID or "", container id or "")


@dataclass(frozen=True, slots=True)
class Known:
    """A process that was looked at; `first`: number 1 of its PID namespace."""

    stat: Stat
    membership: Membership
    first: bool

    @property
    def place(self) -> Place:
        """Its pod and its innermost container."""
        return self.membership.pod, self.membership.containers[-1] if self.membership.containers else ""


class Containers:
    """The containers of one machine, as its processes show them. `inside` is as in `cgroup.parse`."""

    def __init__(self, proc: str = "/proc", inside: str = "", limit: int = PROCESSES_LIMIT) -> None:
        self._proc = proc
        self._inside = inside
        self._limit = limit
        self._known: dict[int, Known] = {}
        self.left_out = 0  # processes that the last scan did not look at

    def first_processes(self) -> dict[Place, int]:
        """The first process of each container: number 1 of its PID namespace, else the oldest. Raises SourceError."""
        self._scan()
        order = sorted((not known.first, known.stat.start, pid) for pid, known in self._known.items())
        firsts: dict[Place, int] = {}
        for _, _, pid in order:
            place = self._known[pid].place
            if any(place):
                firsts.setdefault(place, pid)
        return firsts

    def _scan(self) -> None:
        try:
            pids = sorted(int(name) for name in os.listdir(self._proc) if name.isdecimal())  # noqa: PTH208 (thousands of names, no paths)
        except OSError as error:
            raise SourceError(f"{self._proc}: cannot be listed: {error.strerror}; set collector.proc to the machine's /proc") from error
        looked_at = pids[: self._limit]
        self.left_out = len(pids) - len(looked_at)
        self._known = {pid: known for pid in looked_at if (known := self._look_at(pid))}

    def _look_at(self, pid: int) -> Known | None:
        stat = read_stat(self._proc, pid)
        if stat is None:
            return None
        known = self._known.get(pid)
        if known and known.stat == stat:
            return known
        membership = read_membership(self._proc, pid, self._inside)
        found = Known(stat, membership, bool(membership.containers or membership.pod) and is_first(self._proc, pid))
        again = read_stat(self._proc, pid)
        return found if again and again.start == stat.start else None  # else it ended between the reads, which may be a successor's
