"""Rows as numpy columns on one side, tuples of SQLite on the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import COUNTERS, ROW, Columns, Rows
from cluster.stores.schema import SIGNED_MAX, column_name, integer

TEXT_COLUMNS = {"node": "node_names", "source": "addresses", "dest": "addresses", "local": "texts", "remote": "texts", "service": "texts"}
"""Columns that are an index in `Rows` and a text in the store."""

UPDATE_COUNTERS = f"UPDATE transaction_rows SET {', '.join(f'{column_name(name)} = ?' for name in COUNTERS)} WHERE uid = ?"  # noqa: S608
CHUNK = 1_000  # rows read at a time: few enough that their objects are reused while the processor still has them


class Cursor(Protocol):
    """What is read from: sqlite3's cursor."""

    def fetchmany(self, size: int, /) -> list[Any]:
        """The next rows; empty at the end."""


class Numbers(dict[str, int]):
    """Numbers texts in the order in which they first appear."""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number


def encode_rows(rows: Rows) -> Iterator[tuple[Any, ...]]:
    """The rows as tuples in the order of ROW. Raises LookupError or ValueError for columns that are not right."""
    if not len(rows):
        return iter(())
    if int(rows.columns["uid"].min()) < 1:
        raise ValueError("a uid below 1: those are the store's own")
    return zip(*(_encode(rows, name) for name in ROW), strict=True)


def encode_changed(changed: Columns) -> Iterator[tuple[Any, ...]]:
    """The changed counters as tuples for UPDATE_COUNTERS."""
    return zip(*(integers(changed[name]) for name in (*COUNTERS, "uid")), strict=True)


def _encode(rows: Rows, name: str) -> list[Any]:
    column = rows.columns[name]
    if name in TEXT_COLUMNS:
        table = np.array(getattr(rows, TEXT_COLUMNS[name]), dtype=object)
        return list(table[column].tolist())
    return integers(column)


def integers(column: NDArray[Any]) -> list[Any]:
    """A column of numbers as Python's, those that SQLite's integer cannot hold as text."""
    if column.dtype == np.uint64 and column.size and int(column.max()) > SIGNED_MAX:
        return list(map(integer, column.tolist()))
    return list(column.tolist())


def decode_rows(cursor: Cursor) -> Rows:
    """What `select_rows` selects, as columns of ROW. Raises ValueError, TypeError or OverflowError where a value is not of its type."""
    tables = {"node_names": Numbers(), "addresses": Numbers(), "texts": Numbers({"": 0})}
    chunks: list[list[NDArray[Any]]] = [[np.empty(0, dtype)] for dtype in ROW.values()]
    while batch := cursor.fetchmany(CHUNK):
        for (name, dtype), values, arrays in zip(ROW.items(), zip(*batch, strict=True), chunks, strict=True):
            if name in TEXT_COLUMNS:
                table = tables[TEXT_COLUMNS[name]]
                arrays.append(np.array([table[text] for text in values], dtype))
            else:
                arrays.append(np.array(values, dtype))
    columns = {name: np.concatenate(arrays) for name, arrays in zip(ROW, chunks, strict=True)}
    return Rows(columns, **{name: tuple(table) for name, table in tables.items()})
