"""Connections that are in no dump any more though nothing told of their end.

Most of them are alive: a process still holds the socket after both ends have closed, and the destroy event will come. But where destroy
events were lost, or the namespace was let go of, nothing will come: such a connection is reported as closed, with the last dump's values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.namespaces import Namespace
from cluster.tracer.owners import Owners
from cluster.tracer.rows import Keys, Rows, find

SETTLE_NS = 500_000_000  # an event may come so much later than its socket leaves the dumps
PATIENCE_NS = 30_000_000_000  # a connection that is missing for so long, with no process that holds it, has ended
BETWEEN_NS = 5_000_000_000  # between two looks for holders, where no event was lost
REMEMBERED = 100_000


class Vanished:
    """Decides which missing connections have ended."""

    def __init__(self) -> None:
        self._told: dict[int, None] = {}  # keys reported as closed without an event
        self._gone: set[int] = set()  # namespaces that were let go of
        self._suspect: dict[int, int] = {}  # namespace that lost events -> ns since boot of the first dump after that
        self._looked = 0

    def kept(self) -> Keys:
        """The connections of whose end nothing told, for the journal."""
        return np.array(list(self._told), np.uint64)

    def go_on(self, keys: Keys) -> None:
        """Take over what another tracer knew of them."""
        self._told = dict.fromkeys(keys.tolist())

    def namespace(self, inode: int) -> None:
        """This namespace was let go of: nothing more comes from it."""
        self._gone.add(inode)

    def not_late(self, destroyed: Rows, counters: Counter[str]) -> Rows:
        """Without those that were reported as closed already."""
        if not self._told or not len(destroyed):
            return destroyed
        late = np.array([key in self._told for key in destroyed["key"].tolist()])
        counters["late_closes"] += int(np.count_nonzero(late))
        fresh: Rows = destroyed[~late]
        return fresh

    def pick(
        self, rows: Rows, dumped: Keys, spaces: Mapping[int, Namespace], owners: Owners, now: int, counters: Counter[str]
    ) -> NDArray[np.bool_]:
        """Which of the open rows have ended; marks since when rows are missing, in place. `dumped`: sorted keys of the last dump."""
        missing = ~find(dumped, rows["key"])[1]
        rows["missing"][~missing] = 0
        rows["missing"][missing & (rows["missing"] == 0)] = now
        gone = missing & np.isin(rows["net_ns"], list(self._gone))
        self._gone.clear()
        lost = self._lost(rows, missing, spaces, now)
        waited = missing & (now - rows["missing"].astype(np.int64) > PATIENCE_NS)
        doubtful = (lost | waited) & ~gone
        if doubtful.any() and (lost.any() or now - self._looked > BETWEEN_NS):
            gone |= self._unheld(rows, doubtful, owners, now)
        for key in rows["key"][gone].tolist():
            self._told[key] = None
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        counters["vanished"] += int(np.count_nonzero(gone))
        return gone

    def _lost(self, rows: Rows, missing: NDArray[np.bool_], spaces: Mapping[int, Namespace], now: int) -> NDArray[np.bool_]:
        """Rows that went missing when their namespace lost events, once what was not lost has had time to come."""
        lost = np.zeros(len(rows), np.bool_)
        for inode, since in list(self._suspect.items()):
            if now - since > SETTLE_NS:
                lost |= missing & (rows["net_ns"] == inode) & (rows["missing"] <= since)
                del self._suspect[inode]
        for inode, space in spaces.items():
            if space.lost_at and inode not in self._suspect:
                self._suspect[inode], space.lost_at = now, 0
        return lost

    def _unheld(self, rows: Rows, doubtful: NDArray[np.bool_], owners: Owners, now: int) -> NDArray[np.bool_]:
        """Of the doubtful rows, those whose socket no process has open."""
        self._looked = now
        places = np.flatnonzero(doubtful)
        inodes = rows["inode"][places].tolist()
        likely = np.unique(rows["pid"][places]).tolist()
        held, whole = owners.scan({inode for inode in inodes if inode}, likely)
        unheld = np.zeros(len(rows), np.bool_)
        if whole:
            unheld[places] = [inode not in held for inode in inodes]
        return unheld
