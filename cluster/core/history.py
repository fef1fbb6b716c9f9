"""What a collector remembers of what it has said, so that a new stream of it goes on exactly where the last one was applied.

All sequences of its life are numbered through, over its streams. A row knows the number that opened and the one that closed it (columns
of `Slots`); of the generations that ended, those are kept whose end is not durable yet. So whatever number the aggregate's rows rest on,
as long as nothing durable was lost: which rows it has, which closes, and what every row counted since, are known.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.records import SUM_LIMITS

Columns = dict[str, NDArray[Any]]
STREAMS = 1 << 63
GENERATIONS: dict[str, type[np.unsignedinteger[Any]]] = {
    "number": np.uint32,  # of the sequence that said the end
    "slot": np.uint32,
    "generations": np.uint32,  # how many ended
    "sent": np.uint64,  # the sum of their last counters
    "recv": np.uint64,
    "retransmits": np.uint64,
}
SUMMED = ("generations", "sent", "recv", "retransmits")


class History:
    """Numbers of sequences, and the generations that ended since the last durable one."""

    def __init__(self, stream: int) -> None:
        self._first = stream
        self._begins = array("Q", [0])  # the number of sequence 0 of this stream and of those after it
        self._ended: list[Columns] = []

    def number(self, sequence: int) -> int:
        """The number of a sequence of the present stream."""
        return self._begins[-1] + sequence

    def number_of(self, stream: int, sequence: int) -> int | None:
        """The number of any stream's sequence; None where it is not one of this collector, or before `forget`."""
        index = (stream - self._first) % STREAMS
        return self._begins[index] + sequence if index < len(self._begins) and sequence >= 0 else None

    def begin(self, sequences: int) -> None:
        """The next stream begins; so many sequences of the last one were made."""
        self._begins.append(self.number(sequences))

    def forget(self, stream: int) -> int:
        """The present stream becomes the first one; returns how many generations that ended are forgotten."""
        self._first, self._begins = stream, self._begins[-1:]
        ended, self._ended = self._ended, []
        return sum(int(columns["generations"].sum()) for columns in ended)

    def ended(self, number: int, slots: NDArray[np.int64], counters: Columns) -> None:
        """Generations of these slots ended with these counters; the sequence of that number says so."""
        if len(slots):
            rows = {"slot": slots, "number": np.full(len(slots), number), "generations": np.ones(len(slots)), **counters}
            self._ended.append({name: rows[name].astype(kind) for name, kind in GENERATIONS.items()})

    def durable(self, number: int) -> None:
        """What was said up to that sequence is in the store."""
        while self._ended and int(self._ended[0]["number"].max()) <= number:
            self._ended.pop(0)

    def since(self, number: int, top: int) -> Columns:
        """SUMMED columns by slot, for slots below `top`: what ended after that number. Only that is still kept, as one entry a slot, so
        that the streams of a collector that is not understood do not pile up."""
        sums = {name: np.zeros(top, np.uint64) for name in SUMMED}
        last = np.zeros(top, GENERATIONS["number"])
        for columns in self._ended:
            later = columns["number"] > number
            slots = columns["slot"][later]
            for name, column in sums.items():  # the slots of one entry are distinct
                column[slots] = np.minimum(column[slots] + columns[name][later], SUM_LIMITS.get(name, 2**32 - 1))
            np.maximum.at(last, slots, columns["number"][later])
        sums = {name: column.astype(GENERATIONS[name]) for name, column in sums.items()}
        held = np.flatnonzero(sums["generations"])
        kept = {"slot": held.astype(np.uint32), "number": last[held], **{name: column[held] for name, column in sums.items()}}
        self._ended = [kept] if len(held) else []
        return sums
