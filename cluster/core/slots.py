"""The rows that a collector holds: one slot (u32) each, columns by slot, and an index from a row's identity to its slot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.index import Index, identity
from cluster.core.wire import OPENED

Columns = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]

FREE, OPEN, ENDED = 0, 1, 2  # `state` of a slot; ENDED: closed, kept until the store has it
HELD: dict[str, type[np.generic]] = {
    **{name: kind for name, kind in OPENED.items() if name != "id"},
    "state": np.uint8,
    "instance": np.uint32,  # which tracer instance its counters are of
    "close_id": np.uint64,  # under which that told its close; 0 where it did not
    "opened_at": np.uint32,  # number of the sequence that opens it, see `History`
    "closed_at": np.uint32,  # and that closes it; means nothing while it is open
    "tries": np.uint8,  # how often its owner was asked for
    "absent_since": np.float64,  # s since 1970 of the first reply that lacked it; nan while it is there
}


class Slots:
    """Columns by slot; `count` slots are in use."""

    def __init__(self, capacity: int = 1024) -> None:
        self.columns: Columns = {name: np.zeros(capacity, kind) for name, kind in HELD.items()}
        self._words: NDArray[np.uint64] = np.zeros((4, capacity), np.uint64)
        self._index = Index()
        self.top = 0  # slots from here on were never used
        self._free: list[int] = []

    def __len__(self) -> int:
        return self.top - len(self._free)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name][: self.top]

    def find(self, wanted: NDArray[np.uint64]) -> Indices:
        """The slot of each identity (see `index.identity`), -1 where it is new; i64."""
        return self._index.find(wanted, self._words)

    def add(self, rows: Columns, identities: NDArray[np.uint64]) -> Indices:
        """Give each row a slot, freed ones first; columns that `rows` lacks begin at 0. The identities are distinct."""
        count = identities.shape[1]
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        slots = np.concatenate([np.array(reused, np.int64), np.arange(self.top, self.top + count - len(reused), dtype=np.int64)])
        self._grow(self.top + count - len(reused))
        place = slots if reused else slice(self.top - count, self.top)
        for name, column in self.columns.items():
            column[place] = rows.get(name, 0)
        self.columns["state"][place] = OPEN
        self.columns["absent_since"][place] = np.nan
        self._words[:, place] = identities
        self._index.add(slots, self._words)
        return slots

    def free(self, slots: Indices) -> None:
        """Give slots back; an identity that has a newer row keeps that one."""
        self._index.remove(slots, self._words)
        self.columns["state"][slots] = FREE
        self._free.extend(slots.tolist())

    def renumber(self, addresses: NDArray[np.uint32], texts: NDArray[np.uint32], *, dense: bool) -> None:
        """Let addresses and texts have these numbers instead; `dense`: the rows, too, the lowest slots there are."""
        slots = np.flatnonzero(self["state"] != FREE) if dense else np.arange(self.top)
        held = {name: column[slots] for name, column in self.columns.items()}
        held |= {name: addresses[held[name]] for name in ("source", "dest")} | {name: texts[held[name]] for name in ("local", "remote")}
        newest = np.flatnonzero(self.find(self._words[:, slots]) == slots)
        self.top, self._index = 0, Index()
        self._free = [] if dense else self._free
        self._grow(len(slots))
        for name, column in self.columns.items():
            column[: len(slots)] = held[name]
        self._words[:, : len(slots)] = identity(held)
        self._index.add(newest, self._words)

    def take(self, slots: Indices) -> Columns:
        """The columns of these slots, copied."""
        return {name: column[slots] for name, column in self.columns.items()}

    def _grow(self, top: int) -> None:
        if top > len(self.columns["state"]):
            capacity = 2 * top  # what is not written yet takes no memory
            words = np.zeros((4, capacity), np.uint64)
            words[:, : self.top] = self._words[:, : self.top]
            columns = {name: np.zeros(capacity, column.dtype) for name, column in self.columns.items()}
            for name, column in self.columns.items():
                columns[name][: self.top] = column[: self.top]
            self._words, self.columns = words, columns
        self.top = max(self.top, top)
