"""The rows that a collector holds: one slot (u32) each, columns by slot, and an index from a row's identity to its slot."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.records import Flag
from cluster.core.wire import OPENED

Columns = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]

FREE, OPEN, ENDED = 0, 1, 2  # `state` of a slot; ENDED: closed, kept until the store has it
HELD: dict[str, type[np.generic]] = {
    **{name: kind for name, kind in OPENED.items() if name != "id"},
    "state": np.uint8,
    "instance": np.uint32,  # which tracer instance its counters are of
    "tries": np.uint8,  # how often its owner was asked for
    "absent_since": np.float64,  # s since 1970 of the first reply that lacked it; nan while it is there
}
# What tells rows apart. `owner` is the cookie, or the pid where there is no cookie; `kind` is the protocol, and which of the two.
IDENTITY = np.dtype(
    [("net_ns", "<u4"), ("source", "<u4"), ("dest", "<u4"), ("sport", "<u2"), ("dport", "<u2"), ("kind", "u1"), ("owner", "<u8")]
)
_BY_PID, _FOLD = 0x80, 0x40


def identities(columns: Columns) -> list[bytes]:
    """The identity of each row as bytes (equal exactly where all that tells rows apart is equal)."""
    keys = np.empty(len(columns["source"]), IDENTITY)
    for name in ("net_ns", "source", "dest", "sport", "dport"):
        keys[name] = columns[name]
    by_pid = columns["cookie"] == 0
    keys["kind"] = columns["protocol"] | by_pid * np.uint8(_BY_PID) | ((columns["flags"] & Flag.FOLDED) != 0) * np.uint8(_FOLD)
    keys["owner"] = np.where(by_pid, columns["pid"], columns["cookie"])
    listed: list[bytes] = keys.view(f"S{IDENTITY.itemsize}").tolist()  # drops trailing zeros: still one to one at a fixed size
    return listed


class Slots:
    """Columns by slot; `count` slots are in use."""

    def __init__(self, capacity: int = 1024) -> None:
        self.columns: Columns = {name: np.zeros(capacity, kind) for name, kind in HELD.items()}
        self.index: dict[bytes, int] = {}
        self.top = 0  # slots from here on were never used
        self._free: list[int] = []

    def __len__(self) -> int:
        return self.top - len(self._free)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name][: self.top]

    def find(self, keys: Iterable[bytes], count: int) -> Indices:
        """The slot of each identity, -1 where it is new; i64."""
        return np.fromiter(map(self.index.get, keys, repeat(-1)), np.int64, count)

    def add(self, rows: Columns, keys: list[bytes]) -> Indices:
        """Give each row a slot, lowest first among those never used; columns that `rows` lacks begin at 0."""
        count = len(keys)
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        slots = np.concatenate([np.array(reused, np.int64), np.arange(self.top, self.top + count - len(reused), dtype=np.int64)])
        self._grow(self.top + count - len(reused))
        for name, column in self.columns.items():
            column[slots] = rows.get(name, 0)
        self.columns["state"][slots] = OPEN
        self.columns["absent_since"][slots] = np.nan
        self.index.update(zip(keys, slots.tolist(), strict=True))
        return slots

    def free(self, slots: Indices) -> None:
        """Give slots back; an identity that has a newer row keeps that one."""
        for key, slot in zip(identities(self.take(slots)), slots.tolist(), strict=True):
            if self.index.get(key) == slot:
                del self.index[key]
        self.columns["state"][slots] = FREE
        self._free.extend(slots.tolist())

    def take(self, slots: Indices) -> Columns:
        """The columns of these slots, copied."""
        return {name: column[slots] for name, column in self.columns.items()}

    def _grow(self, top: int) -> None:
        capacity = len(self.columns["state"])
        if top > capacity:
            more = max(top, 2 * capacity) - capacity
            self.columns = {name: np.concatenate([column, np.zeros(more, column.dtype)]) for name, column in self.columns.items()}
        self.top = max(self.top, top)
