"""What a dump and the destroy events mean: totals that never fall, payload without FINs, and who owned a socket that died."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.fins import after_fin, fins
from cluster.tracer.listeners import Listeners, directions
from cluster.tracer.rows import COUNTERS, TCP, UDP, Rows, find
from cluster.tracer.sockdiag import CLOSE, LISTEN

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
    closed: Rows = rows[find(before["key"], rows["key"])[1] | is_connection(rows)]
    closed["raw_received"] = closed["received"]
    return closed


def settle_closed(rows: Rows, before: Rows, listeners: Listeners, left: Rows, counters: Counter[str]) -> None:
    """Finish the rows of closed connections in place: payload, owner and direction.

    `before`: the last dump's rows, sorted by key. `left`: what is in TIME_WAIT or FIN_WAIT2 without a socket.
    """
    places, known = find(before["key"], rows["key"])
    old = before[places[known]]
    gone = known & (rows["dport"] == 0)
    fin, no_fin = fins(rows, before, left)
    rows["received"] -= fin & (rows["received"] > 0)
    rows["recv_exact"] = rows["bytes_known"] & (fin | no_fin)
    for name in FROM_DUMP:
        rows[name][known] = old[name]
    never_fall(rows, known, old)
    disconnected(rows, gone, before[places[gone]])
    counters["aborted"] += int(np.count_nonzero(gone & (rows["protocol"] == TCP)))
    attribute(rows, listeners, counters)


def disconnected(rows: Rows, gone: NDArray[np.bool_], old: Rows) -> None:
    """A socket that was disconnected before it died (SO_LINGER 0) tells nothing: all is as in the last dump."""
    old["updated"] = rows["updated"][gone]
    rows[gone] = old


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
