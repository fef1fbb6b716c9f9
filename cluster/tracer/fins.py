"""Whether a FIN is in a socket's received count: the kernel counts one as a byte, and no counter says whether one came.

* A connection in CLOSE_WAIT, LAST_ACK or CLOSING has had the peer's FIN, any other open one has not: dumps are exact.
* A destroyed socket says only CLOSE. Its FIN is certain where the last dump saw such a state; that there was none is certain where
  the count is that of the last dump in another state, or zero.
* Where both ends are of one namespace and both have died, what one sent tells what the other can have received: a FIN comes after it all.
* A socket whose close left a TIME_WAIT one behind had read everything before its own FIN went out, so what it had not read at the end
  (rqueue) was the peer's FIN; and while what is left is in FIN_WAIT2, no FIN came.
* Everything else stays as the kernel counts, and is marked as possibly one byte high.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.rows import TCP, Rows, find, match_ends, mixed, new_rows
from cluster.tracer.sockdiag import AFTER_FIN, FIN_WAIT2

Mask = NDArray[np.bool_]


def after_fin(rows: Rows) -> Mask:
    """Rows in a state that the peer's FIN led to."""
    mask: Mask = np.isin(rows["tcp_state"], AFTER_FIN) & (rows["protocol"] == TCP)
    return mask


def fins(rows: Rows, before: Rows, left: Rows) -> tuple[Mask, Mask]:
    """Of destroyed sockets, where a FIN is certainly in `raw_received`, and where certainly none is.

    `before`: the last dump's rows, sorted by key. `left`: what is in TIME_WAIT or FIN_WAIT2 without a socket.
    """
    fin, no_fin = by_dump(rows, before)
    for more_fin, more_no_fin in (by_peer(rows, before), by_what_is_left(rows, left)):
        open_question = ~(fin | no_fin)
        fin |= more_fin & open_question
        no_fin |= more_no_fin & open_question
    return fin, no_fin


def unproven(rows: Rows, before: Rows) -> Mask:
    """Destroyed TCP sockets of which only what they left behind could tell."""
    fin, no_fin = fins(rows, before, new_rows(0))
    doubt: Mask = (rows["protocol"] == TCP) & ~(fin | no_fin)
    return doubt


def by_dump(rows: Rows, before: Rows) -> tuple[Mask, Mask]:
    """What the last dump proves."""
    places, known = find(before["key"], rows["key"])
    old = before[places[known]]
    fin, no_fin = np.zeros(len(rows), np.bool_), rows["raw_received"] == 0
    fin[known] = after_fin(old)
    no_fin[known] |= ~after_fin(old) & (rows["raw_received"][known] == old["raw_received"])
    return fin, no_fin


def by_peer(rows: Rows, before: Rows) -> tuple[Mask, Mask]:
    """What the other end's sent bytes prove, where there can be no doubt which one the other end was."""
    turned = rows.copy()
    for one, other in (("source", "dest"), ("sport", "dport")):
        turned[one], turned[other] = rows[other], rows[one]
    places, paired = match_ends(rows, turned)
    if not paired.any():
        return paired, paired
    still_open = before[~np.isin(before["key"], rows["key"])]
    only = alone(rows) & ~np.isin(mixed(rows), mixed(still_open))
    paired &= only & only[places] & rows["bytes_known"] & rows["bytes_known"][places] & (rows["protocol"] == TCP)
    total = rows["sent"][places]
    return paired & (rows["raw_received"] == total + np.uint64(1)), paired & (rows["raw_received"] <= total)


def by_what_is_left(rows: Rows, left: Rows) -> tuple[Mask, Mask]:
    """What TIME_WAIT proves."""
    places, stays = match_ends(rows, left)
    stays &= alone(rows)
    unread = stays & (rows["rqueue"] > 0)
    waits = np.zeros(len(rows), np.bool_)
    waits[stays] = left["tcp_state"][places[stays]] == FIN_WAIT2
    return unread, waits & ~unread


def alone(rows: Rows) -> Mask:
    """Rows whose two ends no other has. (The kernel may tell of two deaths in another order than they came, so order says nothing.)"""
    values, places, times = np.unique(mixed(rows), return_inverse=True, return_counts=True)
    lonely: Mask = (times == 1)[places] if len(values) else np.zeros(0, np.bool_)
    return lonely
