"""What UDP sockets sent and received, from connection tracking; and the translation of any tracked connection.

A conntrack entry lives shorter than its socket: it expires when nothing moves for a while, and the next packet begins another one, from 0.
It also lives longer: a socket that is opened soon on the ends of a closed one goes on with its entry. So a row adds up what its entries
gained in its time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.conntrack import Flows
from cluster.tracer.rows import UDP, Rows, find, match_ends
from cluster.tracer.state import COUNTS, Counts

COUNTED_LIMIT = 100_000


class Tracked:
    """Puts conntrack's counters and translations into rows."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[int, int]] = {}  # entry -> (sent, received) that belong to sockets that have closed

    def apply(self, rows: Rows, before: Rows, flows: Flows) -> None:
        """Set nat_* and, for UDP, the bytes, in place; `before` is what was reported last, sorted by key."""
        keep_known(rows, before)
        if not len(flows):
            return
        places, tracked = match_ends(rows, flows)
        translated = np.flatnonzero(tracked)
        translated = translated[flows["nat"][places[translated]]]
        for name in ("nat", "nat_source", "nat_dest", "nat_sport", "nat_dport"):
            rows[name][translated] = flows[name][places[translated]]
        counted = np.flatnonzero(tracked & (rows["protocol"] == UDP))
        counted = counted[flows["counted"][places[counted]]]
        self._count(rows, counted, flows[places[counted]])

    def counted(self) -> Counts:
        """What entries had counted for sockets that have closed, for the journal."""
        return np.array([(entry, *counts) for entry, counts in self._counted.items()], COUNTS)

    def go_on(self, counted: Counts) -> None:
        """Take over what another tracer knew of them."""
        self._counted = {entry: (sent, received) for entry, sent, received in counted.tolist()}

    def closed(self, rows: Rows) -> None:
        """These rows have closed: what their entries gained so far is theirs."""
        for row in rows[(rows["protocol"] == UDP) & (rows["ct_id"] != 0)]:
            self._counted[int(row["ct_id"])] = int(row["ct_sent"]), int(row["ct_received"])
        while len(self._counted) > COUNTED_LIMIT:
            del self._counted[next(iter(self._counted))]

    def _count(self, rows: Rows, which: NDArray[np.int64], flows: Flows) -> None:
        """Add what the entries gained since they were read last; `flows`: the entry of each row in `which`."""
        same = rows["ct_id"][which] == flows["id"]
        others = [self._counted.get(entry, (0, 0)) for entry in flows["id"][~same].tolist()]
        for place, (total, seen) in enumerate((("sent", "ct_sent"), ("received", "ct_received"))):
            start = rows[seen][which]
            start[~same] = [other[place] for other in others]
            rows[total][which] += flows[total] - np.minimum(start, flows[total])
            rows[seen][which] = flows[total]
        rows["ct_id"][which] = flows["id"]
        rows["bytes_known"][which] = True
        rows["recv_exact"][which] = True


def keep_known(rows: Rows, before: Rows) -> None:
    """Begin from what was known of UDP sockets."""
    places, known = find(before["key"], rows["key"])
    known &= rows["protocol"] == UDP
    for name in ("sent", "received", "bytes_known", "recv_exact", "ct_id", "ct_sent", "ct_received"):
        rows[name][known] = before[name][places[known]]
