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

from cluster.tracer.listeners import Listeners, directions
from cluster.tracer.rows import COUNTERS, TCP, UDP, Rows, find, match_ends, mixed
from cluster.tracer.sockdiag import AFTER_FIN, CLOSE, FIN_WAIT2, LISTEN

FROM_DUMP = (
    "pid",
    "cgroup_id",
    "inode",
    "direction",
    "nat",
    "nat_source",
    "nat_dest",
    "nat_sport",
    "nat_dport",
    "ct_id",
    "ct_sent",
    "ct_received",
)


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


def carry_over(rows: Rows, before: Rows) -> None:
    """Take owner and direction of sockets that were known before: the first owner stays. `before` is sorted by key."""
    places, known = find(before["key"], rows["key"])
    for name in ("pid", "direction"):
        rows[name][known] = before[name][places[known]]


def settle_open(rows: Rows, before: Rows, listeners: Listeners) -> None:
    """Finish the rows of a dump in place: payload and direction; `before` is what was reported last, sorted by key."""
    rows["raw_received"] = rows["received"]
    rows["received"] -= after_fin(rows) & (rows["received"] > 0)
    rows["recv_exact"] = rows["bytes_known"]
    places, known = find(before["key"], rows["key"])
    never_fall(rows, known, before[places[known]])
    fresh = np.flatnonzero(rows["direction"] == 0)
    rows["direction"][fresh] = directions(rows[fresh], listeners.matches(rows[fresh]))


def never_fall(rows: Rows, known: NDArray[np.bool_], old: Rows) -> None:
    """No total may be below what was reported for the same socket; `old` are the old rows of those that are known."""
    fell = rows["received"][known] < old["received"]
    for name in COUNTERS:
        rows[name][known] = np.maximum(rows[name][known], old[name])
    rows["recv_exact"][known] &= ~fell


def closed_among(rows: Rows, before: Rows) -> Rows:
    """The destroyed sockets that were connections: they say so, or were so in the last dump."""
    return rows[find(before["key"], rows["key"])[1] | is_connection(rows)]


def settle_closed(rows: Rows, before: Rows, listeners: Listeners, left: Rows, counters: Counter[str]) -> None:
    """Finish the rows of closed connections in place: payload, owner and direction.

    `before`: the last dump's rows, sorted by key. `left`: what is in TIME_WAIT or FIN_WAIT2 without a socket.
    """
    places, known = find(before["key"], rows["key"])
    old = before[places[known]]
    gone = known & (rows["dport"] == 0)
    rows["raw_received"] = rows["received"]
    fin, no_fin = fins(rows, known, old, left)
    rows["received"] -= fin & (rows["received"] > 0)
    rows["recv_exact"] = rows["bytes_known"] & (fin | no_fin)
    for name in FROM_DUMP:
        rows[name][known] = old[name]
    never_fall(rows, known, old)
    disconnected(rows, gone, before[places[gone]])
    counters["aborted"] += int(np.count_nonzero(gone & (rows["protocol"] == TCP)))
    attribute(rows, listeners, counters)


def unproven(rows: Rows, before: Rows) -> NDArray[np.bool_]:
    """Destroyed TCP sockets of which a dump does not tell whether a FIN is in their received count."""
    places, known = find(before["key"], rows["key"])
    doubt: NDArray[np.bool_] = (rows["protocol"] == TCP) & (rows["received"] != 0)
    old = before[places[known]]
    doubt[known] &= ~after_fin(old) & (rows["received"][known] != old["raw_received"])
    return doubt


def disconnected(rows: Rows, gone: NDArray[np.bool_], old: Rows) -> None:
    """A socket that was disconnected before it died (SO_LINGER 0) tells nothing: all is as in the last dump."""
    old["updated"] = rows["updated"][gone]
    rows[gone] = old


def fins(rows: Rows, known: NDArray[np.bool_], old: Rows, left: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a FIN is certainly in the received count, and where certainly none is."""
    fin = np.zeros(len(rows), np.bool_)
    no_fin = rows["raw_received"] == 0
    fin[known] = after_fin(old)
    no_fin[known] |= ~after_fin(old) & (rows["raw_received"][known] == old["raw_received"])
    places, stays = match_ends(rows, left)
    stays &= last_of_its_ends(rows) & ~fin & ~no_fin
    state = left["tcp_state"][places[stays]]
    unread = rows["rqueue"][stays] > 0
    fin[stays] = unread
    no_fin[stays] = ~unread & (state == FIN_WAIT2)
    return fin, no_fin


def last_of_its_ends(rows: Rows) -> NDArray[np.bool_]:
    """Rows after which none has the same two ends: only that one can have left something behind."""
    last = np.zeros(len(rows), np.bool_)
    last[len(rows) - 1 - np.unique(mixed(rows)[::-1], return_index=True)[1]] = True
    return last


def attribute(rows: Rows, listeners: Listeners, counters: Counter[str]) -> None:
    """Owner and direction of closed rows: what the last dump said, else the listener on the local end, else nobody."""
    places = listeners.matches(rows)
    fresh = rows["direction"] == 0
    rows["direction"][fresh] = directions(rows[fresh], places[fresh])
    heard = (rows["pid"] == 0) & (places >= 0)
    rows["pid"][heard] = listeners.rows["pid"][places[heard]]
    heard = (rows["cgroup_id"] == 0) & (places >= 0)
    rows["cgroup_id"][heard] = listeners.rows["cgroup_id"][places[heard]]
    counters["unattributed"] += int(np.count_nonzero(rows["pid"] == 0))
