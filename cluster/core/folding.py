"""Closed connections beyond the limit, summed: bytes stay exact, the ephemeral ports and the pids are lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.index import identity
from cluster.core.records import SUM_LIMITS, Flag, Role
from cluster.core.slots import Indices, Slots

Columns = dict[str, NDArray[Any]]
CROWDED = 2  # times the limit of rows: beyond, even fold rows are too many, and what is new goes to one per protocol


def fold(slots: Slots, rows: Columns, limit: int, nowhere: int, life: int) -> tuple[Indices, Indices, Indices]:
    """Add closed rows that hold no slot to their fold rows; returns the fold rows that are new, those that moved, and those whose
    owner, role or flags are others now.

    `nowhere` is the number of the address `::`, both ends of a last fold row. `life`, not 0, is the cookie of fold rows: sums of two
    collectors are two rows, and those of one go on whatever stream they are said in.
    """
    keyed = _keyed(rows, life)
    words = identity(keyed)
    if len(slots) > CROWDED * limit:
        lost = slots.find(words) < 0
        for name, nothing in (
            ("net_ns", 0),
            ("source", nowhere),
            ("dest", nowhere),
            ("sport", 0),
            ("dport", 0),
            ("local", 0),
            ("role", Role.UNKNOWN),
        ):
            keyed[name] = np.where(lost, keyed[name].dtype.type(nothing), keyed[name])
        words = identity(keyed)
    _, first = np.unique(words, axis=1, return_index=True)
    new = first[slots.find(words[:, first]) < 0]
    zero = {name: np.zeros(len(new), np.uint64) for name in ("sent", "recv", "retransmits", "last_update")}
    opened = slots.add({**{name: column[new] for name, column in keyed.items()}, **zero}, words[:, new])
    at = slots.find(words)
    disowned = _add(slots, keyed, at)
    return opened, np.setdiff1d(at, opened), disowned


def _keyed(rows: Columns, life: int) -> Columns:
    serves = rows["role"] == Role.SERVER
    zero = np.zeros_like(rows["pid"])
    return {
        **rows,
        "cookie": np.full(len(zero), life, np.uint64),
        "pid": zero,
        "sport": np.where(serves, rows["sport"], np.uint16(0)),
        "dport": np.where(serves, np.uint16(0), rows["dport"]),
        "flags": rows["flags"] & np.uint8(Flag.BYTES_UNKNOWN | Flag.RECV_INEXACT) | np.uint8(Flag.FOLDED),
    }


def _add(slots: Slots, rows: Columns, at: Indices) -> Indices:
    columns = slots.columns
    for name, limit in SUM_LIMITS.items():
        for slot, more in zip(at.tolist(), rows[name].tolist(), strict=True):  # a sum stops at its limit: a fall would be a new generation
            columns[name][slot] = min(int(columns[name][slot]) + more, limit)
    np.maximum.at(columns["last_update"], at, rows["last_update"])
    disowned = np.zeros(len(at), np.bool_)
    for name in ("local", "role"):  # a fold row says only what is true of all that it sums
        differs = (columns[name][at] != 0) & (columns[name][at] != rows[name])
        columns[name][at[differs]] = 0
        disowned |= differs
    before, unknown = columns["flags"][at], np.uint8(Flag.BYTES_UNKNOWN)
    np.bitwise_or.at(columns["flags"], at, rows["flags"] & np.uint8(Flag.RECV_INEXACT))
    np.bitwise_and.at(columns["flags"], at, rows["flags"] | ~unknown)  # unknown only where all are
    changed: Indices = at[disowned | (columns["flags"][at] != before)]
    return changed
