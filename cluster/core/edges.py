"""Edges: traffic between two workloads, as totals that rows add to.

Sums are whole numbers, never floats; one that reaches TOTAL_LIMIT stays there, and means "at least so much".

Each edge has two cells, its client's view (2 x number) and its server's view (2 x number + 1); a row adds its bytes to one cell. Cell 0
is that of rows without an edge. Differences are modulo 2^64.

What is exported (counters that never fall) is `total + less`: `less` takes off the bytes of rows that are not settled yet, and puts back
those of settled rows that moved to another edge. So the hot path touches the totals alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import Columns, Edge

EDGES_LIMIT = 100_000  # beyond it new edges fold their port to 0
TOTAL_LIMIT = 2**63 - 1  # also the largest number that SQLite compares as one
SUMS = ("sent", "recv", "retransmits", "opened")  # what is exported too
TOTALS = (*SUMS, "open")


class Key(NamedTuple):
    """What tells edges apart."""

    client: str
    server: str
    service: str
    protocol: int
    port: int  # the server's


@dataclass(frozen=True, slots=True)
class Amounts:
    """What rows bring to their cells: arrays of one length, u64."""

    sums: Columns  # SUMS
    open: NDArray[np.uint64]


class EdgeTable:
    """All edges, numbered from 1."""

    def __init__(self) -> None:
        self.keys: list[Key] = [Key("", "", "", 0, 0)]
        self._numbers: dict[Key, int] = {}
        self.total: Columns = {name: np.zeros(2, np.uint64) for name in TOTALS}
        self.less: Columns = {name: np.zeros(2, np.uint64) for name in SUMS}
        self.proof: NDArray[np.uint8] = np.zeros(2, np.uint8)
        self.first_seen = np.zeros(1)
        self.last_seen = np.zeros(1)
        self._full: dict[str, NDArray[np.intp]] = {name: np.zeros(0, np.intp) for name in SUMS}  # cells that reached the limit
        self._most = dict.fromkeys(SUMS, 0.0)  # no other cell has more, nor exports more
        self._committed: list[NDArray[Any]] = []

    def __len__(self) -> int:
        return len(self.keys) - 1

    def number(self, key: Key, at: float) -> int:
        """The number of an edge, a new one if it is new."""
        if (found := self._numbers.get(key)) is not None:
            return found
        if len(self) >= EDGES_LIMIT and key.port:
            return self.number(key._replace(port=0), at)
        return self._append(key, at, at)

    def _append(self, key: Key, first: float, last: float) -> int:
        number = self._numbers[key] = len(self.keys)
        self.keys.append(key)
        if number >= len(self.first_seen):
            self._grow(max(64, 2 * number))
        self.first_seen[number], self.last_seen[number] = first, last
        return number

    def _grow(self, edges: int) -> None:
        for columns in (self.total, self.less):
            for name, column in columns.items():
                columns[name] = np.concatenate([column, np.zeros(2 * edges - len(column), np.uint64)])
        self.proof = np.concatenate([self.proof, np.zeros(2 * edges - len(self.proof), np.uint8)])
        self.first_seen = np.concatenate([self.first_seen, np.zeros(edges - len(self.first_seen))])
        self.last_seen = np.concatenate([self.last_seen, np.zeros(edges - len(self.last_seen))])

    def prove(self, cells: NDArray[np.intp], proof: NDArray[np.uint8]) -> None:
        """Rows of these cells rest on that (Proof bits)."""
        np.bitwise_or.at(self.proof, cells, proof)

    def grew(self, cells: NDArray[np.intp], amounts: Columns, at: float) -> None:
        """Rows of these cells counted more; amounts (u64) by name, those of SUMS that moved."""
        for name, amount in amounts.items():
            self._expect(name, cells, amount)
            np.add.at(self.total[name], cells, amount)
            self._pin(name)
        self.seen(cells, at)

    def seen(self, cells: NDArray[np.intp], at: float) -> None:
        """There was traffic at that time."""
        touched = np.zeros(2 * len(self.keys), np.bool_)
        touched[cells] = True
        numbers = np.flatnonzero(touched) >> 1
        self.last_seen[numbers] = np.maximum(self.last_seen[numbers], at)

    def _expect(self, name: str, cells: NDArray[np.intp], amount: NDArray[np.uint64], *, shown: bool = False) -> None:
        """So much is about to come to these cells; `shown`: only to what they export. Which then are full is found by floats, and that only
        once some may be."""
        signed = amount.view(np.int64)  # a correction is -1
        self._most[name] += float(signed.max(initial=0)) * len(signed)
        if self._most[name] < TOTAL_LIMIT and not len(self._full[name]):
            return
        exported = self.total[name] + self.less[name]
        after = (exported if shown else np.maximum(self.total[name], exported)).astype(np.float64)
        np.add.at(after, cells, signed.astype(np.float64))
        full = after >= TOTAL_LIMIT
        full[self._full[name]] = True
        self._full[name] = np.flatnonzero(full)
        self._most[name] = float(np.maximum(after, self.total[name])[~full].max(initial=0.0))

    def _pin(self, *names: str) -> None:
        """What is full stays so."""
        for name in names:
            self.total[name][self._full[name]] = TOTAL_LIMIT
            self.less[name][self._full[name]] = 0

    def hide(self, cells: NDArray[np.intp], amounts: Columns) -> None:
        """Take amounts off what is exported: their rows are not settled."""
        for name, amount in amounts.items():
            np.subtract.at(self.less[name], cells, amount)
            self._pin(name)

    def show(self, cells: NDArray[np.intp], amounts: Columns) -> None:
        """Put amounts back: their rows are settled now."""
        for name, amount in amounts.items():
            self._expect(name, cells, amount, shown=True)
            np.add.at(self.less[name], cells, amount)
            self._pin(name)

    def join(self, cells: NDArray[np.intp], amounts: Amounts) -> None:
        """New rows bring all they have."""
        for name, amount in amounts.sums.items():
            self._expect(name, cells, amount)
            np.add.at(self.total[name], cells, amount)
            self._pin(name)
        np.add.at(self.total["open"], cells, amounts.open)

    def move(self, old: NDArray[np.intp], new: NDArray[np.intp], amounts: Amounts) -> None:
        """Rows take all they have to another cell; what is exported stays where it was."""
        for name, amount in amounts.sums.items():
            self._expect(name, new, amount)
            np.subtract.at(self.total[name], old, amount)
            np.add.at(self.less[name], old, amount)
            np.add.at(self.total[name], new, amount)
            np.subtract.at(self.less[name], new, amount)
            self._pin(name)
        np.subtract.at(self.total["open"], old, amounts.open)
        np.add.at(self.total["open"], new, amounts.open)

    def closed(self, cells: NDArray[np.intp], weights: NDArray[np.uint64]) -> None:
        """Rows that were open are not any more."""
        np.subtract.at(self.total["open"], cells, weights)

    def edge(self, number: int) -> Edge:
        """One edge as it leaves the aggregate."""
        cells = slice(2 * number, 2 * number + 2)
        totals = [self.total[name][cells] for name in TOTALS] + [self.total[name][cells] + self.less[name][cells] for name in SUMS]
        views = list(zip(*(column.tolist() for column in totals), strict=True))
        first, last = float(self.first_seen[number]), float(self.last_seen[number])
        client, server = self.proof[cells].tolist()
        return Edge(number, *self.keys[number], (views[0], views[1]), first, last, (client, server))

    def restore(self, edges: tuple[Edge, ...]) -> None:
        """Begin with these; their numbers are kept."""
        for edge in sorted(edges, key=lambda one: one.number):
            self._pad(edge.number)
            self._append(Key(edge.client, edge.server, edge.service, edge.protocol, edge.port), edge.first_seen, edge.last_seen)
            self.proof[2 * edge.number : 2 * edge.number + 2] = edge.proof
            for cell, view in zip((2 * edge.number, 2 * edge.number + 1), edge.views, strict=True):
                for name, value in zip(TOTALS, view, strict=False):
                    self.total[name][cell] = value
                for name, value in zip(SUMS, view[len(TOTALS) :], strict=True):
                    self.less[name][cell : cell + 1] = np.uint64(value) - self.total[name][cell : cell + 1]
        for name in SUMS:
            self._full[name] = np.flatnonzero((self.total[name] >= TOTAL_LIMIT) | (self.total[name] + self.less[name] >= TOTAL_LIMIT))
            self._most[name] = float(TOTAL_LIMIT)
            self._pin(name)
        self.changed()

    def _pad(self, number: int) -> None:
        """A number that the store does not have stays unused."""
        while len(self.keys) < number:
            self._append(Key("", "", "", -1, len(self.keys)), 0.0, 0.0)

    def changed(self) -> list[int]:
        """The numbers of edges that are not as they were at the last call."""
        columns = [column.reshape(-1, 2) for column in (*self.total.values(), *self.less.values(), self.proof)] + [
            self.last_seen.reshape(-1, 1)
        ]
        now = np.concatenate([column[: len(self.keys)].astype(np.uint64, copy=False) for column in columns], axis=1)
        differs = np.ones(len(now), np.bool_)
        if self._committed:
            before = self._committed[0]
            differs[: len(before)] = (now[: len(before)] != before).any(axis=1)
        self._committed = [now]
        return [int(number) for number in np.flatnonzero(differs) if number]


def has_traffic(edge: Edge) -> bool:
    """Whether some row is, or was when it left, on this edge; one from which all rows have moved is kept for what it has exported."""
    return any(any(view[: len(TOTALS)]) for view in edge.views)
