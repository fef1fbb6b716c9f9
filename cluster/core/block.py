"""The rows of one node as columns indexed by slot, the number that the collector gave the row.

About 100 bytes a row: addresses and texts are numbers of shared tables, times are whole seconds, and the sums of ended generations are kept
only for rows that had one. Columns grow in place, so that growing never holds two copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import Columns
from cluster.core.records import SUM_LIMITS, Flag

NATIVE: dict[str, type[np.number[Any]]] = {
    "uid": np.int64,
    "net_ns": np.uint32,
    "protocol": np.uint8,
    "source": np.uint32,  # number of the aggregate's addresses
    "dest": np.uint32,
    "sport": np.uint16,
    "dport": np.uint16,
    "pid": np.uint32,
    "cookie": np.uint64,
    "direction": np.uint8,
    "flags": np.uint8,
    "sent": np.uint64,
    "recv": np.uint64,
    "retransmits": np.uint32,
    "generation": np.uint32,
    "last_update": np.uint64,
    "local": np.uint32,  # number of the aggregate's texts
    "remote": np.uint32,
    "service": np.uint32,  # number of the text service/NAMESPACE/NAME:PORT that the connection goes through; 0 for none
    "role": np.uint8,
    "cell": np.uint32,  # twice the edge's number, plus 1 for the server's view; 0 for no edge yet
    "first_seen": np.uint32,  # s since 1970
    "last_seen": np.uint32,
}
NAMED = ("local", "remote", "service")  # what holds numbers of texts
COUNTED = ("sent", "recv", "retransmits")
MOVING = (*COUNTED, "flags", "generation", "last_update", "last_seen")  # what changes without DESCRIBED
# What `marks` says of a slot.
USED = 1
GONE = 2  # its row was folded here, and the collector has not used the slot again
DESCRIBED = 4  # since the last commit the row is new, or something besides its counters changed
TOUCHED = 8  # since the last commit its counters or flags changed
GROWTH = 16  # a full block grows by a sixteenth


def added(name: str, one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Sums of counters up to their limits, in the type of that counter: what would pass the limit stops there."""
    capped: NDArray[Any] = np.minimum(one.astype(np.uint64) + other, np.uint64(SUM_LIMITS[name])).astype(NATIVE[name])
    return capped


class Bases:
    """The sums of ended generations, for the rows that had one: a number per slot, and values per number. Number 0 stays zero."""

    def __init__(self) -> None:
        self._number: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._values: Columns = {name: np.zeros(1, NATIVE[name]) for name in COUNTED}

    def __bool__(self) -> bool:
        return len(self._values["sent"]) > 1

    def of(self, slots: NDArray[np.intp]) -> Columns:
        """The sums of these slots, under COUNTED names."""
        numbers = np.zeros(len(slots), np.uint32)
        inside = slots < len(self._number)
        numbers[inside] = self._number[slots[inside]]
        return {name: values[numbers] for name, values in self._values.items()}

    def add(self, slots: NDArray[np.intp], amounts: Columns) -> None:
        """Add to distinct slots."""
        if not len(slots):
            return
        if (top := int(slots.max())) >= len(self._number):
            self._number.resize(top + 1 + top // GROWTH, refcheck=False)
        fresh = slots[self._number[slots] == 0]
        start = len(self._values["sent"])
        self._number[fresh] = np.arange(start, start + len(fresh), dtype=np.uint32)
        for name, values in self._values.items():
            values.resize(start + len(fresh), refcheck=False)
            numbers = self._number[slots]
            values[numbers] = added(name, values[numbers], amounts[name])

    def clear(self, slots: NDArray[np.intp]) -> None:
        """Make the sums of these slots zero."""
        if not self:
            return
        numbers = self._number[slots[slots < len(self._number)]]
        for values in self._values.values():
            values[numbers] = 0


class Block:
    """Columns of NATIVE and `marks` (u8), all `capacity` long; slots below `size` have been used at some time."""

    def __init__(self) -> None:
        self.columns: Columns = {name: np.zeros(0, dtype) for name, dtype in NATIVE.items()}
        self.marks: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.bases = Bases()
        self.size = 0
        self.rows = 0
        self.closed = 0  # rows with Flag.CLOSED
        self.unsettled = 0  # rows without Flag.SETTLED
        self.version = 0  # moves with every change, so that an unchanged block need not be copied again
        self.description = 0  # moves with every change of which rows there are, or of a column that is not in MOVING
        self.dirty = False  # whether a mark says DESCRIBED or TOUCHED
        self.copied: tuple[int, int, Any] | None = None  # version and description of the copy that readers have, and the copy

    @property
    def capacity(self) -> int:
        """Slots that need no growing."""
        return len(self.marks)

    def reserve(self, size: int) -> None:
        """Make slots below `size` usable."""
        if size > self.capacity:
            wanted = max(size, self.capacity + self.capacity // GROWTH)
            for column in (*self.columns.values(), self.marks):
                column.resize(wanted, refcheck=False)
        self.size = max(self.size, size)

    def fill(self, slots: NDArray[np.intp], rows: Columns) -> None:
        """Put whole rows (NATIVE columns) into distinct free slots."""
        if not len(slots):
            return
        self.reserve(int(slots.max()) + 1)
        for name, column in self.columns.items():
            column[slots] = rows[name]
        self.bases.clear(slots)
        self.rows += len(slots)
        self.count(rows["flags"], 1)
        self.mark(slots, USED | DESCRIBED, only=True)

    def empty(self, slots: NDArray[np.intp], mark: int = 0) -> None:
        """Take these rows out."""
        self.rows -= len(slots)
        self.count(self.columns["flags"][slots], -1)
        self.marks[slots] = mark
        self.version += 1
        self.description += 1

    def count(self, flags: NDArray[np.uint8], sign: int) -> None:
        """Count rows of these flags in (1) or out (-1)."""
        self.closed += sign * int(np.count_nonzero(flags & Flag.CLOSED))
        self.unsettled += sign * int(np.count_nonzero(~flags & Flag.SETTLED))

    def set_flags(self, slots: NDArray[np.intp], flags: NDArray[np.uint8]) -> None:
        """Replace the flags of distinct rows."""
        self.count(self.columns["flags"][slots], -1)
        self.columns["flags"][slots] = flags
        self.count(flags, 1)
        self.mark(slots, TOUCHED)

    def mark(self, slots: NDArray[np.intp], bits: int, only: bool = False) -> None:
        """Set bits of marks, or with `only` exactly them."""
        self.marks[slots] = np.uint8(bits) if only else self.marks[slots] | np.uint8(bits)
        self.changed(described=bool(bits & DESCRIBED))

    def changed(self, *, described: bool = False) -> None:
        """Something did; `described`: not only counters and flags."""
        self.dirty = True
        self.version += 1
        self.description += described

    def used(self) -> NDArray[np.intp]:
        """The slots that hold a row."""
        return np.flatnonzero(self.marks[: self.size] & USED)

    def take(self, slots: NDArray[np.intp], names: Iterable[str] = NATIVE) -> Columns:
        """Copies of rows: these NATIVE columns, and `base_*`."""
        rows = {name: self.columns[name][slots] for name in names}
        return rows | {f"base_{name}": values for name, values in self.bases.of(slots).items()}

    def totals(self, slots: NDArray[np.intp]) -> Columns:
        """base + raw of these rows, u64, under COUNTED names."""
        bases = self.bases.of(slots) if self.bases else {}
        totals = {name: self.columns[name][slots].astype(np.uint64) for name in COUNTED}
        for name, base in bases.items():
            totals[name] += base
        return totals
