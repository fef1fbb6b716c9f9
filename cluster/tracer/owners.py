"""Which process has a socket open: the links in /proc/PID/fd, read only when a socket turns up that is not known."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from cluster.tracer.namespaces import processes

SCAN_SECONDS = 0.5  # a scan ends after this time; what it has not found, a later one may
PATIENCE = (0.0, 1.0, 10.0)  # s after which a socket whose owner was not found is looked for again; then never
KNOWN_LIMIT = 1_000_000


class Owners:
    """Remembers which process holds which socket."""

    def __init__(self) -> None:
        self.scans = 0
        self.cut = 0  # scans that ran out of time
        self._pids: dict[int, int] = {}  # inode -> pid
        self._missed: dict[int, tuple[int, float]] = {}  # inode -> (scans that did not find it, when the next one may)

    def of(self, inodes: Iterable[int], now: float) -> dict[int, int]:
        """The owner of each socket that has a known one; looks for those that are new. `now`: monotonic s."""
        inodes = set(inodes)
        self._forget(inodes)
        wanted = {inode for inode in inodes if inode not in self._pids and self._may_look(inode, now)}
        if wanted:
            self._look(wanted, now)
        return {inode: self._pids[inode] for inode in inodes if inode in self._pids}

    def _forget(self, inodes: set[int]) -> None:
        for known in (self._pids, self._missed):
            for inode in known.keys() - inodes:
                del known[inode]

    def _may_look(self, inode: int, now: float) -> bool:
        missed = self._missed.get(inode)
        return missed is None or now >= missed[1]

    def _look(self, wanted: set[int], now: float) -> None:
        self.scans += 1
        found, whole = scan(wanted, list(dict.fromkeys(self._pids.values())))
        self.cut += not whole
        self._pids.update(found)
        for inode in wanted:
            if inode in found:
                self._missed.pop(inode, None)
            elif whole:
                times = self._missed.get(inode, (0, 0.0))[0] + 1
                self._missed[inode] = (times, now + PATIENCE[times] if times < len(PATIENCE) else float("inf"))


def scan(wanted: set[int], likely: list[int]) -> tuple[dict[int, int], bool]:
    """Find the first owner of each wanted socket, the likely processes first; and whether all of /proc was seen or all was found."""
    left, found = set(wanted), dict[int, int]()
    deadline = time.monotonic() + SCAN_SECONDS
    for pid in dict.fromkeys(likely + processes()):
        for inode in held(pid):
            if inode in left:
                found[inode] = pid
                left.discard(inode)
        if not left:
            return found, True
        if time.monotonic() > deadline:
            return found, False
    return found, True


def held(pid: int) -> Iterator[int]:
    """The sockets that a process has open; none where we may not look."""
    base = f"/proc/{pid}/fd/"
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            with contextlib.suppress(OSError, ValueError):
                link = os.readlink(base + entry.name)  # noqa: PTH115 - many thousands of them: no objects
                if link.startswith("socket:["):
                    yield int(link[8:-1])
