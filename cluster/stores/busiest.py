"""Reads from the SQLite store what is published: the busiest transactions and the metadata, of one moment.

The rows stream past, so that of a store of a million only the texts of those that may fit are held; the sorting is SQLite's, which lets
the writer's thread run meanwhile.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.core.filters import protocol_name
from cluster.core.publication import FIELDS, Publication, publication
from cluster.core.records import Direction, Flag
from cluster.stores.faults import readable, told
from cluster.stores.opening import open_reader
from cluster.stores.tables import read_meta

COUNTERS = tuple(name for name in FIELDS if name.startswith(("monotonic_", "total_")))
COLUMNS = ("key", "source", "dest", "flags", *FIELDS)
DIRECTIONS = {direction.value: direction.name.lower() for direction in Direction}
BUSY = "CASE WHEN flags & 2 THEN 0 ELSE base_sent_bytes + monotonic_sent_bytes + base_recv_bytes + monotonic_recv_bytes END DESC, uid"
# Two sorts: the first, of numbers only, chooses; the second orders the few that are chosen.
BUSIEST = (
    f"SELECT {', '.join(COLUMNS)} FROM transactions "  # noqa: S608 - fixed names
    f"WHERE uid IN (SELECT uid FROM transaction_rows ORDER BY {BUSY} LIMIT ?) ORDER BY {BUSY}"
)


class Busiest:
    """A reader of one store. It takes no lock that a writer feels."""

    def __init__(self, path: str | Path, limit: int) -> None:
        """`limit` transactions are read at most."""
        self._path = Path(os.path.realpath(path))
        self._limit = limit

    def identity(self) -> str:
        """Which store it is: fences of one store can be compared. Raises StoreError."""
        with told(self._path):
            database = open_reader(self._path)
            try:
                found = database.execute("SELECT value FROM meta WHERE name = 'store'").fetchone()
                return str(found[0]) if found else ""
            finally:
                database.close()

    def read(self) -> tuple[int, Publication]:
        """The store's fence, and what it has to publish. Raises StoreError."""
        with told(self._path):
            database = open_reader(self._path)
            try:
                with readable(self._path):
                    database.execute("BEGIN")
                    return read_meta(database)["fence"], self._read(database)
            finally:
                database.close()

    def _read(self, database: sqlite3.Connection) -> Publication:
        (rows,) = database.execute("SELECT count(*) FROM transaction_rows").fetchone()
        metadata = {address: json.loads(record) for address, record in database.execute("SELECT address, record FROM metadata")}
        return publication(_transactions(database, self._limit), metadata, max(0, rows - self._limit))


def _transactions(database: sqlite3.Connection, limit: int) -> Iterator[dict[str, Any]]:
    for values in database.execute(BUSIEST, (limit,)):
        row = dict(zip(COLUMNS, values, strict=True))
        unknown = row["flags"] & Flag.BYTES_UNKNOWN
        row |= {name: None if unknown else int(row[name]) for name in COUNTERS}
        row["last_update_epoch"] = int(row["last_update_epoch"])
        row["protocol"] = protocol_name(row["protocol"])
        row["direction"] = DIRECTIONS.get(row["direction"], str(row["direction"]))
        row["folded"] = bool(row["flags"] & Flag.FOLDED)
        row["first_seen"], row["last_seen"] = row["first_seen"] or 0.0, row["last_seen"] or 0.0
        yield row
