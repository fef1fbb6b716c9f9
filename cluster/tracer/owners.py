"""Which process has a socket open: the links in /proc/PID/fd, read only when a socket turns up whose owner is not known."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from cluster.tracer.discovery import processes

SCAN_SECONDS = 0.5  # a scan ends after this time; what it has not found, a later one may
PATIENCE = (1.0, 10.0, 60.0)  # s after which a socket whose owner was not found is looked for again; the last one goes on


class Owners:
    """Looks for owners, and not again and again for those that cannot be found."""

    def __init__(self, proc: str) -> None:
        self.proc = proc
        self.scans = 0
        self.cut = 0  # scans that ran out of time
        self._missed: dict[int, tuple[int, float]] = {}  # inode -> (scans that did not find it, monotonic s when the next one may)

    def look_for(self, inodes: set[int], likely: Iterable[int], now: float) -> dict[int, int]:
        """The owners that can be found of sockets that have no known one; `likely` processes are looked at first. `now`: monotonic s."""
        self._missed = {inode: missed for inode, missed in self._missed.items() if inode in inodes}
        wanted = {inode for inode in inodes if inode not in self._missed or now >= self._missed[inode][1]}
        if not wanted:
            return {}
        found, whole = self.scan(wanted, likely)
        for inode in wanted - found.keys() if whole else ():
            times = self._missed.get(inode, (0, 0.0))[0]
            self._missed[inode] = (times + 1, now + PATIENCE[min(times, len(PATIENCE) - 1)])
        return found

    def scan(self, wanted: set[int], likely: Iterable[int]) -> tuple[dict[int, int], bool]:
        """The first owner of each wanted socket, and whether there was time to look at all processes for those that have none."""
        self.scans += 1
        left, found = set(wanted), dict[int, int]()
        deadline = time.monotonic() + SCAN_SECONDS
        for pid in dict.fromkeys([*likely, *processes(self.proc)]):
            for inode in left.intersection(held(self.proc, pid)):
                found[inode] = pid
                left.discard(inode)
            if not left:
                break
            if time.monotonic() > deadline:
                self.cut += 1
                return found, False
        return found, True


def held(proc: str, pid: int) -> list[int]:
    """The sockets that a process has open; none where we may not look. Written for tens of thousands of them: no objects, no contexts."""
    base, found = f"{proc}/{pid}/fd/", list[int]()
    try:
        names = os.listdir(base)  # noqa: PTH208
    except OSError:
        return found
    for name in names:
        try:
            link = os.readlink(base + name)  # noqa: PTH115
        except OSError:  # closed a moment ago
            continue
        if link.startswith("socket:["):
            found.append(int(link[8:-1]))
    return found
