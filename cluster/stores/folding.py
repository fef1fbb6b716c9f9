"""Retention: old closed rows are summed into fold rows, so that the store stays bounded and no byte of the totals is lost.

A fold row has a negative uid, no slot, the flag FOLDED and the ephemeral port 0. Where the fold rows alone outgrow the limit, as after a
scan from many addresses, the oldest are summed again without addresses and ports.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cluster.core.checkpoint import NO_SLOT, ROW
from cluster.core.records import Flag, Role
from cluster.stores.schema import UPSERT_ROW, integer, select_rows

Record = dict[str, Any]
BATCH = 2_000  # rows folded at one commit, besides twice as many as it brings
VACUUM_PAGES = 2_000  # given back to the file system at one commit
FREE_PAGES = 1_000  # kept for what comes next, or a tenth of the file if that is more

KEY = ("node", "source", "dest", "sport", "dport", "net_ns", "protocol", "local", "remote", "role", "edge")
SUMS = {
    **dict.fromkeys(("sent", "recv", "base_sent", "base_recv"), 2**64 - 1),
    **dict.fromkeys(("retransmits", "base_retransmits"), 2**32 - 1),
}
"""The counters that are summed, with the largest value of each: a sum that would pass it goes to another fold row."""

ANYWHERE = {False: "0.0.0.0", True: "::"}  # noqa: S104 - the address of a row without addresses, by whether it was IPv6

DEPARTED = "slot IS NULL AND flags & 1 AND uid > 0"
OLD_FOLDS = "uid < 0 AND dest NOT IN ('0.0.0.0', '::')"
OLDEST = "ORDER BY last_seen LIMIT ?"
SAME_FOLD = " AND ".join(["uid < 0", *(f"{name} = ?" for name in KEY if name != "edge"), "coalesce(edge, -1) = ?", "flags & 2 = ?"])


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much is kept."""

    retention: float  # s after a closed row was last seen
    size: int  # bytes of the file


def retain(database: sqlite3.Connection, limits: Limits, at: float, batch: int, next_fold: int) -> tuple[int, int]:
    """Fold at most `batch` rows that are too old at time `at`, and as many if the file is too large.

    Returns the number of connections folded, and the number of the next fold row.
    """
    folds = Folds(database, next_fold)
    folded = folds.take(_select(database, f"{DEPARTED} AND last_seen < ? {OLDEST}", at - limits.retention, batch), without_ephemeral_port)
    if _size(database, used=True) > limits.size:
        crowded = folds.take(_select(database, f"{DEPARTED} {OLDEST}", batch), without_ephemeral_port)
        if not crowded:
            folds.take(_select(database, f"{OLD_FOLDS} {OLDEST}", batch), without_addresses)
        folded += crowded
    _shrink(database, limits.size)
    return folded, folds.next_number


def without_ephemeral_port(row: Record) -> Record:
    """The row with 0 for the port that tells its connection from others to the same service."""
    if row["flags"] & Flag.FOLDED:
        return row
    serves = row["role"] == Role.SERVER or (row["role"] != Role.CLIENT and row["sport"] < row["dport"])
    return row | {"dport" if serves else "sport": 0}


def without_addresses(row: Record) -> Record:
    """The row with nothing left that an outsider can choose."""
    anywhere = ANYWHERE[":" in row["dest"]]
    return row | {"source": anywhere, "dest": anywhere, "sport": 0, "dport": 0, "net_ns": 0}


class Folds:
    """Fold rows being added to, in an open transaction."""

    def __init__(self, database: sqlite3.Connection, next_number: int) -> None:
        self.next_number = next_number
        self._database = database

    def take(self, victims: list[Record], coarser: Callable[[Record], Record]) -> int:
        """Move the victims' totals into fold rows. Returns how many they were."""
        newest: dict[tuple[Any, ...], Record] = {}
        full: list[Record] = []
        for row in map(coarser, victims):
            key = (*(row[name] for name in KEY), row["flags"] & Flag.BYTES_UNKNOWN)
            fold = newest.get(key) or self._stored(key)
            if fold is not None and not _fits(fold, row):
                full.append(fold)
                fold = None
            newest[key] = self._begin(row) if fold is None else _add(fold, row)
        self._database.executemany("DELETE FROM transaction_rows WHERE uid = ?", ((row["uid"],) for row in victims))
        self._database.executemany(UPSERT_ROW, map(_values, [*full, *newest.values()]))
        return len(victims)

    def _stored(self, key: tuple[Any, ...]) -> Record | None:
        rows = _records(self._database.execute(select_rows(f"{SAME_FOLD} ORDER BY uid LIMIT 1"), key))
        return rows[0] if rows else None

    def _begin(self, row: Record) -> Record:
        uid = -self.next_number
        self.next_number += 1
        flags = row["flags"] | Flag.FOLDED | Flag.CLOSED
        return row | {"uid": uid, "slot": NO_SLOT, "flags": int(flags), "pid": 0, "cookie": 0, "direction": 0, "generation": 0}


def _fits(fold: Record, row: Record) -> bool:
    return all(fold[name] + row[name] <= limit for name, limit in SUMS.items())


def _add(fold: Record, row: Record) -> Record:
    return fold | {
        **{name: fold[name] + row[name] for name in SUMS},
        "flags": fold["flags"] | row["flags"],
        "last_update": max(fold["last_update"], row["last_update"]),
        "first_seen": min(fold["first_seen"], row["first_seen"]),
        "last_seen": max(fold["last_seen"], row["last_seen"]),
    }


def _select(database: sqlite3.Connection, where: str, *arguments: float) -> list[Record]:
    return _records(database.execute(select_rows(where), arguments))


def _records(cursor: Iterable[tuple[Any, ...]]) -> list[Record]:
    """Rows by the names of ROW. Raises ValueError where a counter is not a number."""
    records = [dict(zip(ROW, values, strict=True)) for values in cursor]
    for record in records:
        record.update({name: int(record[name]) for name in (*SUMS, "last_update")})
        record.update({name: record[name] or 0.0 for name in ("first_seen", "last_seen")})
    return records


def _values(row: Record) -> list[Any]:
    return [integer(row[name]) if name in SUMS or name == "last_update" else row[name] for name in ROW]


def _pages(database: sqlite3.Connection, what: str) -> int:
    return int(database.execute(f"PRAGMA {what}").fetchone()[0])


def _size(database: sqlite3.Connection, *, used: bool) -> int:
    free = _pages(database, "freelist_count") if used else 0
    return (_pages(database, "page_count") - free) * _pages(database, "page_size")


def _shrink(database: sqlite3.Connection, limit: int) -> None:
    """Give free pages back, a bounded number at a time."""
    over = _size(database, used=False) > limit
    keep = 0 if over else max(FREE_PAGES, _pages(database, "page_count") // 10)
    surplus = min(_pages(database, "freelist_count") - keep, VACUUM_PAGES)
    for _ in range(surplus):  # Python's sqlite3 steps this pragma once, which frees one page
        database.execute("PRAGMA incremental_vacuum(1)")
