"""A store that lasts as long as the process: for a look without a file, and the plain model of what a store does."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.core.checkpoint import COUNTERS, NO_SLOT, ROW, Checkpoint, Columns, Commit, Edge, NodeState, Rows
from cluster.core.errors import FencedError, StoreBusy, StoreError
from cluster.stores.rows import TEXT_COLUMNS, Numbers

Record = dict[str, Any]


@dataclass(slots=True)
class Contents:
    """What is stored. Handles that share it are handles of one store."""

    fence: int = 0
    committed: tuple[int, int] = (0, 0)  # fence and number of the last commit
    next_uid: int = 1
    rows: dict[int, Record] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)
    edges: dict[int, Edge] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    holder: MemoryStore | None = None


class MemoryStore:
    """A Store without a file. It keeps every row: there is no retention."""

    def __init__(self, contents: Contents | None = None) -> None:
        self.contents = Contents() if contents is None else contents

    def open(self) -> Checkpoint:
        """Raise the fence by one. Raises StoreBusy where another handle has it open."""
        contents = self.contents
        self._hold()
        contents.fence += 1
        return self.read_only(history=False)

    def commit(self, commit: Commit) -> None:
        """Apply one commit whole. Raises FencedError, StoreError."""
        contents = self.contents
        self._hold()
        if commit.fence != contents.fence:
            raise FencedError(
                f"memory: commit {commit.number} of aggregator {commit.fence} refused: the store belongs to aggregator {contents.fence}"
            )
        if contents.committed[0] == commit.fence and commit.number <= contents.committed[1]:
            return
        rows, changes = _records(commit.rows), _changes(commit.changed)
        if absent := changes.keys() - rows.keys() - contents.rows.keys():
            raise StoreError(f"commit {commit.number}: {len(absent)} changed rows are not in the store; nothing of it is written")
        contents.rows |= rows
        for uid, change in changes.items():
            contents.rows[uid] |= change
        for uid in commit.removed.tolist():
            contents.rows.pop(uid, None)
        contents.next_uid = max([contents.next_uid, *(uid + 1 for uid in rows)])
        contents.committed = (commit.fence, commit.number)
        self._apply_others(commit)

    def _hold(self) -> None:
        if self.contents.holder not in (None, self):
            raise StoreBusy("memory: another handle has the store open. Close it first.")
        self.contents.holder = self

    def _apply_others(self, commit: Commit) -> None:
        contents = self.contents
        contents.nodes |= {state.node: copy.deepcopy(state) for state in commit.nodes}
        contents.edges |= {edge.number: edge for edge in commit.edges}
        contents.counters |= commit.counters
        for address, record in commit.metadata.items():
            if record is None:
                contents.metadata.pop(address, None)
            else:
                contents.metadata[address] = copy.deepcopy(record)

    def close(self) -> None:
        """Let another handle open it."""
        if self.contents.holder is self:
            self.contents.holder = None

    def read_only(self, *, history: bool = True) -> Checkpoint:
        """What is stored; with `history` also the rows that have left their node."""
        contents = self.contents
        rows = [row for row in contents.rows.values() if history or row["slot"] != NO_SLOT]
        return Checkpoint(
            fence=contents.fence,
            rows=_rows(rows),
            nodes=tuple(copy.deepcopy(state) for state in contents.nodes.values()),
            edges=tuple(contents.edges.values()),
            metadata=copy.deepcopy(contents.metadata),
            counters=dict(contents.counters),
            next_uid=contents.next_uid,
        )


def _records(rows: Rows) -> dict[int, Record]:
    columns = {name: rows.columns[name].tolist() for name in ROW} if len(rows) else {}
    for name, table in TEXT_COLUMNS.items():
        if name in columns:
            columns[name] = [getattr(rows, table)[index] for index in columns[name]]
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return {record["uid"]: record for record in records}


def _changes(changed: Columns) -> dict[int, Record]:
    columns = {name: changed[name].tolist() for name in ("uid", *COUNTERS)} if changed else {}
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return {record["uid"]: record for record in records}


def _rows(records: list[Record]) -> Rows:
    tables = {"node_names": Numbers(), "addresses": Numbers(), "texts": Numbers({"": 0})}
    columns = {}
    for name, dtype in ROW.items():
        values = [record[name] for record in records]
        if name in TEXT_COLUMNS:
            table = tables[TEXT_COLUMNS[name]]
            values = [table[text] for text in values]
        columns[name] = np.array(values, dtype)
    return Rows(columns, **{name: tuple(table) for name, table in tables.items()})
