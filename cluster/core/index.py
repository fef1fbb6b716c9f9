"""Which slot holds a row: a hash table over columns, so that a whole reply is looked up at once.

Open addressing with linear probing, in numpy: all rows probe together, and those that are not done go on. It needs no object per row: a
dict of 100,000 identities costs three times as much to ask. Hashes only say where to look; what counts is that all columns are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.records import Flag

Columns = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]
EMPTY, GONE = -1, -2
_BY_PID, _FOLD = 0x80, 0x40
_FACTORS = tuple(np.uint64(factor) for factor in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))


def identity(columns: Columns) -> NDArray[np.uint64]:
    """What tells rows apart, shape (4, n), u64: namespace and source; dest and ports; the cookie, or the pid where there is no cookie;
    the protocol, and which of the two."""
    words = np.empty((4, len(columns["source"])), np.uint64)
    words[0] = columns["net_ns"]
    words[0] <<= np.uint64(32)
    words[0] |= columns["source"]
    words[1] = columns["dest"]
    words[1] <<= np.uint64(16)
    words[1] |= columns["sport"]
    words[1] <<= np.uint64(16)
    words[1] |= columns["dport"]
    by_pid = columns["cookie"] == 0
    words[2] = columns["cookie"]
    np.copyto(words[2], columns["pid"], where=by_pid)
    words[3] = columns["protocol"]
    words[3] |= by_pid * np.uint64(_BY_PID)
    words[3] |= ((columns["flags"] & np.uint8(Flag.FOLDED)) != 0) * np.uint64(_FOLD)
    return words


def hashed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each identity, u64."""
    mixed: NDArray[np.uint64] = words[3] * _FACTORS[0]
    for word, factor in zip(words[:3], _FACTORS, strict=True):
        mixed ^= word
        mixed *= factor
        mixed ^= mixed >> np.uint64(29)
    return mixed


class Index:
    """From identity to slot. The caller keeps the identities of the slots: `words`, shape (4, capacity)."""

    def __init__(self) -> None:
        self._table = np.full(2048, EMPTY, np.int32)
        self._used = 0  # places that are not EMPTY

    def find(self, wanted: NDArray[np.uint64], words: NDArray[np.uint64]) -> Indices:
        """The slot of each identity, -1 where there is none; i64."""
        return self._probe(wanted, words)[0]

    def add(self, slots: Indices, words: NDArray[np.uint64]) -> None:
        """Let each slot's identity lead to it; an older slot of the same identity is not found any more."""
        self._reserve(len(slots), words)
        if not self._used:
            self._insert(slots, words)
            return
        known, places = self._probe(words.take(slots, axis=1), words)
        self._table[places[known >= 0]] = slots[known >= 0]
        self._insert(slots[known < 0], words)

    def remove(self, slots: Indices, words: NDArray[np.uint64]) -> None:
        """Forget these slots, where their identity still leads to them."""
        found, places = self._probe(words.take(slots, axis=1), words)
        self._table[places[found == slots]] = GONE

    def _probe(self, wanted: NDArray[np.uint64], words: NDArray[np.uint64]) -> tuple[Indices, Indices]:
        """The slot of each identity, and the place in the table that leads to it."""
        found = np.full(wanted.shape[1], -1, np.int64)
        mask = len(self._table) - 1
        places = (hashed(wanted) & np.uint64(mask)).astype(np.int64)
        rest = np.arange(len(found))
        while len(rest):
            slots = self._table[places[rest]]
            rest = rest[slots != EMPTY]
            slots = slots[slots != EMPTY]
            same = slots != GONE
            for word, held in zip(wanted, words, strict=True):
                same &= word[rest] == held[slots]
            found[rest[same]] = slots[same]
            rest = rest[~same]
            places[rest] = (places[rest] + 1) & mask
        return found, places

    def _insert(self, slots: Indices, words: NDArray[np.uint64]) -> None:
        """Put slots, whose identities are distinct and not in the table, into empty places."""
        mask = len(self._table) - 1
        places = (hashed(words.take(slots, axis=1)) & np.uint64(mask)).astype(np.int64)
        self._used += len(slots)
        while len(slots):
            empty = self._table[places] == EMPTY
            self._table[places[empty]] = slots[empty]  # of several that want one place the last has it
            left = self._table[places] != slots
            slots, places = slots[left], (places[left] + 1) & mask

    def _reserve(self, more: int, words: NDArray[np.uint64]) -> None:
        """Keep half of the table empty."""
        if 2 * (self._used + more) <= len(self._table):
            return
        held = self._table[self._table >= 0].astype(np.int64)
        size = 1 << (4 * (len(held) + more)).bit_length()
        self._table = np.full(max(size, 2048), EMPTY, np.int32)
        self._used = 0
        self._insert(held, words)
