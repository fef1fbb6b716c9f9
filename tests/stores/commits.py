"""Commits for tests, and the plain model of what a store holds after them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cluster.core.checkpoint import COUNTERS, NO_SLOT, ROW, VIEW, Checkpoint, Columns, Commit, Edge, NodeState, Rows
from cluster.core.records import Flag

Record = dict[str, Any]
TABLES = {"node": "node_names", "source": "addresses", "dest": "addresses", "local": "texts", "remote": "texts", "service": "texts"}
PLAIN: Record = {
    "node": "one",
    "slot": 0,
    "net_ns": 4026531840,
    "source": "10.0.0.1",
    "dest": "10.0.0.2",
    "sport": 40000,
    "dport": 443,
    "local": "container/web",
    "remote": "",
    "service": "",
    "role": 1,
    "edge": -1,
    "first_seen": 1e9,
    "last_seen": 1e9,
}
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where hundreds of short-lived stores go, whose flushes would keep a disk busy."""
NOTHING: Columns = {}


def record(uid: int, **values: Any) -> Record:
    """One row with its texts in place."""
    return dict.fromkeys(ROW, 0) | PLAIN | {"uid": uid} | values


def departed(uid: int, **values: Any) -> Record:
    """A closed row that has left its node."""
    return record(uid, slot=NO_SLOT, flags=int(Flag.CLOSED), **values)


def rows_of(records: Iterable[Mapping[str, Any]]) -> Rows:
    """Rows as the aggregate would send them."""
    records = list(records)
    tables: dict[str, list[str]] = {"node_names": [], "addresses": [], "texts": [""]}
    columns = {}
    for name, dtype in ROW.items():
        values = [row[name] for row in records]
        if name in TABLES:
            table = tables[TABLES[name]]
            table.extend(text for text in dict.fromkeys(values) if text not in table)
            values = [table.index(text) for text in values]
        columns[name] = np.array(values, dtype)
    return Rows(columns, tuple(tables["addresses"]), tuple(tables["texts"]), tuple(tables["node_names"]))


def records_of(rows: Rows) -> dict[int, Record]:
    """Rows as plain records by uid; a uid that is there twice fails."""
    columns = {name: rows.columns[name].tolist() for name in ROW}
    for name, table in TABLES.items():
        columns[name] = [getattr(rows, table)[index] for index in columns[name]]
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    by_uid = {row["uid"]: row for row in records}
    assert len(by_uid) == len(records)
    return by_uid


def changed_of(changes: Iterable[Mapping[str, Any]]) -> Columns:
    """Changed counters as the aggregate would send them."""
    changes = list(changes)
    return {name: np.array([change[name] for change in changes], ROW[name]) for name in ("uid", *COUNTERS)}


def commit(number: int, fence: int, *records: Record, at: float = 1e9, changed: Columns = NOTHING, **rest: Any) -> Commit:
    """A commit of whole rows."""
    return Commit(number=number, fence=fence, at=at, rows=rows_of(records), changed=changed, **rest)


def totals(checkpoint: Checkpoint) -> dict[str, int]:
    """The sums that nothing may change: exact, in Python's integers."""
    columns = checkpoint.rows.columns
    return {name: sum(columns[name].tolist()) + sum(columns[f"base_{name}"].tolist()) for name in ("sent", "recv", "retransmits")}


def _numbers(name: str) -> st.SearchStrategy[Any]:
    dtype = np.dtype(ROW[name])
    if dtype.kind == "f":
        return st.floats(0, 4e9)
    top = int(np.iinfo(dtype.name).max)
    return st.sampled_from([0, 1, top]) | st.integers(0, top)


texts = st.sampled_from(["", "container/web", "unit/ssh.service", "process/naïve \u2603 'quote\""]) | st.text(max_size=8)
addresses = st.sampled_from(["10.0.0.1", "fd00::1", "192.0.2.7"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5), lambda v: st.lists(v, max_size=2), max_leaves=3
)
documents = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
whole_rows = st.fixed_dictionaries(
    {name: addresses if name in ("source", "dest") else texts if name in TABLES else _numbers(name) for name in ROW if name != "uid"}
    | {"slot": st.sampled_from([0, 1, 2**32 - 2, NO_SLOT]), "edge": st.integers(-1, 2**63 - 1)}
)
counter_values = st.fixed_dictionaries({name: _numbers(name) for name in COUNTERS})
nodes = st.builds(
    NodeState,
    node=st.sampled_from(["one", "two"]),
    incarnation=st.integers(0, 2**63),
    stream=st.integers(0, 2**64 - 1),
    applied=st.integers(-1, 2**40),
    instance=texts,
    closed_through=st.integers(0, 2**64 - 1),
    status=documents,
)
views = st.tuples(*[st.integers(0, 2**64 - 1)] * len(VIEW))
edges = st.builds(
    Edge,
    number=st.integers(0, 3),
    client=texts,
    server=texts,
    service=texts,
    protocol=st.integers(0, 1),
    port=st.integers(0, 65535),
    views=st.tuples(views, views),
    first_seen=st.floats(0, 4e9),
    last_seen=st.floats(0, 4e9),
    proof=st.tuples(*[st.integers(0, 255)] * 2),
)


@st.composite
def steps(draw: st.DrawFn) -> Record:
    """What one commit brings, before its rows are numbered: the test knows which are there to change."""
    return {
        "rows": draw(st.dictionaries(st.integers(1, 12), whole_rows, max_size=3)),
        "changes": draw(st.dictionaries(st.integers(0, 11), counter_values, max_size=2)),
        "removed": draw(st.lists(st.integers(0, 11), max_size=1)),
        "nodes": draw(st.lists(nodes, max_size=2, unique_by=lambda state: state.node)),
        "edges": draw(st.lists(edges, max_size=2, unique_by=lambda edge: edge.number)),
        "metadata": draw(st.dictionaries(addresses, st.none() | st.dictionaries(texts, documents, max_size=2), max_size=2)),
        "counters": draw(st.dictionaries(texts, st.integers(0, 2**70), max_size=2)),
    }


class Model:
    """Plain dictionaries that do what a store should."""

    def __init__(self) -> None:
        self.rows: dict[int, Record] = {}
        self.others: dict[str, dict[Any, Any]] = {"nodes": {}, "edges": {}, "metadata": {}, "counters": {}}
        self.next_uid = 1

    def commit(self, number: int, fence: int, step: Record) -> Commit:
        """Apply one step, and return it as a commit."""
        whole = [row | {"uid": uid} for uid, row in step["rows"].items()]
        self.rows |= {row["uid"]: row for row in whole}
        present = sorted(self.rows)
        changes = {present[index % len(present)]: values for index, values in step["changes"].items()} if present else {}
        for uid, values in changes.items():
            self.rows[uid] = self.rows[uid] | values
        removed = [present[index % len(present)] for index in step["removed"]] if present else []
        for uid in removed:
            self.rows.pop(uid)
        self.next_uid = max([self.next_uid, *(uid + 1 for uid in step["rows"])])
        self.others["nodes"] |= {state.node: state for state in step["nodes"]}
        self.others["edges"] |= {edge.number: edge for edge in step["edges"]}
        self.others["counters"] |= step["counters"]
        for address, kept in step["metadata"].items():
            self.others["metadata"][address] = kept
        return commit(
            number,
            fence,
            *whole,
            at=0.0,  # nothing is old
            changed=changed_of(values | {"uid": uid} for uid, values in changes.items()),
            nodes=tuple(step["nodes"]),
            edges=tuple(step["edges"]),
            metadata=step["metadata"],
            counters=step["counters"],
            removed=np.array(removed, np.int64),
        )

    def check(self, checkpoint: Checkpoint, *, history: bool) -> None:
        """Equal as sets."""
        expected = {uid: row for uid, row in self.rows.items() if history or row["slot"] != NO_SLOT}
        assert records_of(checkpoint.rows) == expected
        assert {state.node: state for state in checkpoint.nodes} == self.others["nodes"]
        assert {edge.number: edge for edge in checkpoint.edges} == self.others["edges"]
        assert checkpoint.counters == self.others["counters"]
        assert checkpoint.metadata == {address: kept for address, kept in self.others["metadata"].items() if kept is not None}
        assert checkpoint.next_uid == self.next_uid
        assert {name: column.dtype for name, column in checkpoint.rows.columns.items()} == {
            name: np.dtype(kind) for name, kind in ROW.items()
        }
