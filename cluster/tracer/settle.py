"""What a dump and the destroy events mean: totals that never fall, FINs that are not payload, and who owned a socket that died.

The kernel counts a FIN as one received byte and no counter says whether one came. What can be known:

* A connection in CLOSE_WAIT, LAST_ACK or CLOSING has had the peer's FIN, any other open one has not: dumps are exact.
* A destroyed socket says only CLOSE. Its FIN is certain where the last dump saw such a state; that there was none is certain where
  the count is that of the last dump in another state, or zero. A socket whose close left a TIME_WAIT one behind had read everything before
  its own FIN went out, so what it had not read at the end (rqueue) was the peer's FIN; and while what is left is in FIN_WAIT2, no FIN came.
* Everything else stays as the kernel counts, and is marked as possibly one byte high.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.listeners import Listeners, direct
from cluster.tracer.rows import TCP, UDP, Rows, find
from cluster.tracer.sockdiag import AFTER_FIN, CLOSE, FIN_WAIT2, LISTEN

COUNTERS = ("sent", "received", "retransmits")


def is_listener(rows: Rows) -> NDArray[np.bool_]:
    """Rows that are listening TCP sockets, or UDP sockets bound to a port and connected to nobody."""
    tcp = (rows["protocol"] == TCP) & (rows["tcp_state"] == LISTEN)
    udp = (rows["protocol"] == UDP) & (rows["dport"] == 0) & (rows["sport"] != 0)
    both: NDArray[np.bool_] = tcp | udp
    return both


def is_connection(rows: Rows) -> NDArray[np.bool_]:
    """Rows that have two ends."""
    both: NDArray[np.bool_] = (
        (rows["dport"] != 0) & (rows["tcp_state"] != LISTEN) & ~((rows["protocol"] == UDP) & (rows["tcp_state"] == CLOSE))
    )
    return both


def after_fin(rows: Rows) -> NDArray[np.bool_]:
    """Rows in a state that the peer's FIN led to."""
    mask: NDArray[np.bool_] = np.isin(rows["tcp_state"], AFTER_FIN) & (rows["protocol"] == TCP)
    return mask


def settle_open(rows: Rows, before: Rows, listeners: Listeners) -> None:
    """Finish the rows of a dump in place: payload, owner and direction; `before` is the last dump's rows, sorted by key."""
    rows["raw_received"] = rows["received"]
    rows["received"] -= after_fin(rows) & (rows["received"] > 0)
    rows["recv_exact"] = rows["bytes_known"]
    places, known = find(before["key"], rows["key"])
    old = before[places[known]] if known.any() else before[:0]
    for name in ("pid", "direction"):
        rows[name][known] = old[name]
    never_fall(rows, known, old)
    fresh = rows[~known]
    direct(fresh, listeners.matches(fresh))
    rows["direction"][~known] = fresh["direction"]


def never_fall(rows: Rows, known: NDArray[np.bool_], old: Rows) -> None:
    """No total may be below what was reported for the same socket; `old` are the old rows of those that are known."""
    fell = rows["received"][known] < old["received"]
    for name in COUNTERS:
        rows[name][known] = np.maximum(rows[name][known], old[name])
    rows["recv_exact"][known] &= ~fell


def settle_closed(rows: Rows, before: Rows, listeners: Listeners, left: dict[bytes, int], counters: Counter[str]) -> Rows:
    """The closed connections among destroyed sockets. `left`: what is in TIME_WAIT or FIN_WAIT2 without a socket, tuple to state."""
    places, known = find(before["key"], rows["key"])
    rows = rows[known | is_connection(rows)]
    places, known = find(before["key"], rows["key"])
    old = before[places[known]] if known.any() else before[:0]
    aborted = rows["dport"] == 0
    counters["aborted"] += int(np.count_nonzero(aborted))
    rows["raw_received"] = rows["received"]
    fin, no_fin = fins(rows, known, old, left)
    rows["received"] -= fin & (rows["received"] > 0)
    rows["recv_exact"] = rows["bytes_known"] & (fin | no_fin)
    keep_from(rows, known, old)
    never_fall(rows, known, old)
    rows["recv_exact"][known] |= (rows["received"][known] == old["received"]) & old["recv_exact"] & aborted[known]
    attribute(rows, known, listeners, counters)
    return rows


def keep_from(rows: Rows, known: NDArray[np.bool_], old: Rows) -> None:
    """Take from the last dump what a destroy event does not say; all of it where the socket was disconnected first (SO_LINGER 0)."""
    for name in ("pid", "cgroup_id", "inode", "direction"):
        rows[name][known] = old[name]
    gone = np.flatnonzero(known)[rows["dport"][known] == 0]
    whole = old[rows["dport"][known] == 0]
    whole["updated"] = rows["updated"][gone]
    rows[gone] = whole


def fins(rows: Rows, known: NDArray[np.bool_], old: Rows, left: dict[bytes, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a FIN is certainly in the received count, and where certainly none is."""
    fin = np.zeros(len(rows), np.bool_)
    no_fin = rows["raw_received"] == 0
    fin[known] = after_fin(old)
    no_fin[known] |= ~after_fin(old) & (rows["raw_received"][known] == old["raw_received"])
    if left:
        for place, end in enumerate(tuples(rows)):
            state = left.get(end)
            if state is not None and not (fin[place] or no_fin[place]):
                fin[place] = rows["rqueue"][place] > 0
                no_fin[place] = rows["rqueue"][place] == 0 and state == FIN_WAIT2
    return fin, no_fin


def tuples(rows: Rows) -> list[bytes]:
    """What tells the connections of a moment apart: namespace, addresses and ports."""
    raw = np.ascontiguousarray(rows[["net_ns", "source", "dest", "sport", "dport"]].astype(TUPLE)).tobytes()
    return [raw[at : at + TUPLE.itemsize] for at in range(0, len(raw), TUPLE.itemsize)]


TUPLE = np.dtype([("net_ns", "<u4"), ("source", "<u4", (4,)), ("dest", "<u4", (4,)), ("sport", "<u2"), ("dport", "<u2")])


def attribute(rows: Rows, known: NDArray[np.bool_], listeners: Listeners, counters: Counter[str]) -> None:
    """Owner and direction of closed rows: what the last dump said, else the listener on the local end, else nobody."""
    places = listeners.matches(rows)
    fresh = rows[~known]
    direct(fresh, places[~known])
    rows["direction"][~known] = fresh["direction"]
    heard = (rows["pid"] == 0) & (places >= 0)
    rows["pid"][heard] = listeners.rows["pid"][places[heard]]
    rows["cgroup_id"][heard] = listeners.rows["cgroup_id"][places[heard]]
    counters["unattributed"] += int(np.count_nonzero(rows["pid"] == 0))
