"""One reply against the rows that are held: what is new, what moved, what ended. Vectorised; the only writer of counters in the slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.index import hashed, identity
from cluster.core.records import Flag
from cluster.core.slots import ENDED, OPEN, Indices, Slots

Columns = dict[str, NDArray[Any]]
COUNTERS = ("sent", "recv", "retransmits")
NONE: Indices = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Matched:
    """The rows of a reply, one per identity, and the slot of each (-1: new)."""

    rows: Columns
    identities: NDArray[np.uint64]  # shape (4, n)
    slots: Indices
    duplicates: int
    late: int  # sightings of a socket that had been closed already: ignored


def select(rows: Columns, which: NDArray[Any]) -> Columns:
    """These rows of every column; `which` is a mask or indices."""
    if which.dtype == np.bool_ and which.all():
        return dict(rows)
    return {name: column[which] for name, column in rows.items()}


def match(rows: Columns, slots: Slots) -> Matched:
    """Find each row's slot. Of two rows with one identity the one with more bytes counts (for a reuse within one poll the next
    poll then shows a decrease, so nothing is lost); a close of either counts for a row with a cookie."""
    words = identity(rows)
    count = words.shape[1]
    if repeated(words):
        rows = select(rows, _best(rows, words))
        words = identity(rows)
    duplicates = count - words.shape[1]
    found = slots.find(words)
    ended = np.flatnonzero((found >= 0) & (slots.columns["state"][found] == ENDED))
    found[ended] = -1  # without a cookie, a closed connection's tuple may live again, as a new row
    late = ended[rows["cookie"][ended] != 0]
    if len(late):
        keep = np.ones(len(found), np.bool_)
        keep[late] = False
        rows, words, found = select(rows, keep), words[:, keep], found[keep]
    return Matched(rows, words, found, duplicates, len(late))


def repeated(words: NDArray[np.uint64]) -> bool:
    """Whether two rows may have one identity: whether two hashes are equal."""
    hashes = np.sort(hashed(words))
    return bool((hashes[1:] == hashes[:-1]).any())


def _best(rows: Columns, words: NDArray[np.uint64]) -> Indices:
    closed = rows["flags"] & np.uint8(Flag.CLOSED)
    best: dict[tuple[int, ...], int] = {}
    for index, (key, weight, end) in enumerate(zip(map(tuple, words.T.tolist()), _weights(rows), closed.tolist(), strict=True)):
        kept = best.setdefault(key, index)
        if (end, weight) > (int(closed[kept]), _weights_at(rows, kept)):
            best[key] = index
    return np.array(sorted(best.values()), np.int64)


def _weights(rows: Columns) -> list[int]:
    return [sent + recv for sent, recv in zip(rows["sent"].tolist(), rows["recv"].tolist(), strict=True)]


def _weights_at(rows: Columns, index: int) -> int:
    return int(rows["sent"][index]) + int(rows["recv"][index])


def update(slots: Slots, rows: Columns, at: Indices, instance: int) -> tuple[Indices, Indices, Indices, Columns]:
    """Write the rows into the slots that hold them already; returns the slots whose counters or generation moved, those of open rows
    whose flags did, and those whose generation ended with the last counters of it.

    A decrease of any counter, or for a row without a cookie another tracer instance, begins a new generation.
    """
    columns = slots.columns
    old = {name: columns[name][at] for name in COUNTERS}
    rows = rows | {"recv": held_back(rows, old["recv"])}
    fell = np.zeros(len(at), np.bool_)
    moved = np.zeros(len(at), np.bool_)
    for name in COUNTERS:
        fell |= rows[name] < old[name]
        moved |= rows[name] != old[name]
    if len(at):
        fell |= (rows["cookie"] == 0) & (columns["instance"][at] != instance)
    columns["generation"][at] += fell
    columns["instance"][at] = instance
    columns["absent_since"][at] = np.nan
    for name in (*COUNTERS, "last_update", "direction", "close_id"):
        columns[name][at] = rows[name]
    reflagged = (rows["flags"] != columns["flags"][at]) & ((rows["flags"] & np.uint8(Flag.CLOSED)) == 0)
    columns["flags"][at] = rows["flags"] & ~np.uint8(Flag.CLOSED)
    return at[moved | fell], at[reflagged], at[fell], select(old, fell)


def held_back(rows: Columns, before: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`recv` without the byte that may be a FIN, while a socket is open: if it was one, the count would have to fall later, which
    means a new generation. Where the tracer settles it, at the latest with the close, the byte comes or does not."""
    recv: NDArray[np.uint64] = rows["recv"]
    doubted = ((rows["flags"] & np.uint8(Flag.RECV_INEXACT)) != 0) & (rows["cookie"] != 0) & ((rows["flags"] & np.uint8(Flag.CLOSED)) == 0)
    doubted &= recv > before
    return recv - doubted if doubted.any() else recv


def absent(slots: Slots, touched: Indices, at: float, limit: float) -> Indices:
    """Open rows that this reply lacks, and that have been lacking for `limit` s of replies; notes since when. `limit` 0: all at once."""
    missing = slots["state"] == OPEN
    missing &= (slots["flags"] & Flag.FOLDED) == 0
    missing[touched] = False
    gone: Indices = np.flatnonzero(missing)
    since = slots.columns["absent_since"]
    since[gone] = np.where(np.isnan(since[gone]), at, since[gone])
    result: Indices = gone[at - since[gone] >= limit]
    return result


def end(slots: Slots, which: Indices, number: int) -> None:
    """Mark rows as closed by the sequence of that number; they keep their slots until the store has the close."""
    slots.columns["state"][which] = ENDED
    slots.columns["closed_at"][which] = number


def union(slots: Indices, but: Indices, top: int) -> Indices:
    """These slots once each, but not those; all are below `top`."""
    chosen = np.zeros(top, np.bool_)
    chosen[slots] = True
    chosen[but] = False
    return np.flatnonzero(chosen)
