"""What passes between the aggregate and a store: a commit one way, a checkpoint the other.

Rows are columns (equal lengths, ROW below); `source` and `dest` index `addresses`, `local`, `remote` and `service` index `texts`, `node`
indexes `node_names`. Strings are decoded here, so that a store knows nothing of the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
SEEN_AT = "seen_at"  # in a node's status: when its last applied sequence was polled, s since 1970
SAID = "said"  # likewise: the stream and sequence of that
NO_SLOT = 0xFFFFFFFF  # the slot of a row that has left its node's block: closed, kept for the record

ROW: dict[str, type[np.number[Any]]] = {
    "uid": np.int64,  # the row's number in the store: never reused
    "node": np.uint32,  # index into node_names
    "slot": np.uint32,  # the row id in the node's stream
    "net_ns": np.uint32,
    "protocol": np.uint8,
    "source": np.uint32,  # index into addresses
    "dest": np.uint32,
    "sport": np.uint16,
    "dport": np.uint16,
    "pid": np.uint32,
    "cookie": np.uint64,
    "direction": np.uint8,
    "flags": np.uint8,
    "sent": np.uint64,  # raw: monotonic_sent_bytes
    "recv": np.uint64,
    "retransmits": np.uint32,
    "base_sent": np.uint64,  # the sum of ended generations; total = base + raw
    "base_recv": np.uint64,
    "base_retransmits": np.uint32,
    "generation": np.uint32,
    "last_update": np.uint64,  # ns since boot of the node
    "local": np.uint32,  # index into texts
    "remote": np.uint32,
    "service": np.uint32,  # index into texts
    "role": np.uint8,
    "edge": np.int64,  # the edge's number, -1 for none yet
    "first_seen": np.float64,  # s since 1970
    "last_seen": np.float64,
}
COUNTERS = ("sent", "recv", "retransmits", "base_sent", "base_recv", "base_retransmits", "generation", "flags", "last_update", "last_seen")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as columns, with the tables that their indices point into."""

    columns: Columns
    addresses: tuple[str, ...] = ()
    texts: tuple[str, ...] = ("",)
    node_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns["uid"]) if "uid" in self.columns else 0


@dataclass(frozen=True, slots=True)
class NodeState:
    """How far one node's stream has come."""

    node: str
    incarnation: int
    stream: int
    applied: int  # the last sequence applied; -1 before the resync
    instance: str = ""  # the tracer instance, and the last close of it that is applied
    closed_through: int = 0
    status: Mapping[str, Any] = field(default_factory=dict)  # the node's counters and uncovered intervals, as last reported


@dataclass(frozen=True, slots=True)
class Edge:
    """Traffic between two workloads, each end's view apart. Bytes are as that end sent and received them."""

    number: int
    client: str
    server: str
    service: str
    protocol: int
    port: int
    views: tuple[tuple[int, ...], tuple[int, ...]]  # client's view, server's view: VIEW
    first_seen: float
    last_seen: float
    proof: tuple[int, int] = (0, 0)  # of each view: Proof bits, what its rows' ends rest on


# What a view holds: first what the map shows, which moves with a row when its identity changes; then what is exported, which never falls.
VIEW = (
    "sent",
    "recv",
    "retransmits",
    "opened",
    "open",
    "exported_sent",
    "exported_recv",
    "exported_retransmits",
    "exported_opened",
)


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that changed since the last commit; one transaction.

    `rows` are written whole; `changed` are rows that the store has already: only uid and COUNTERS; `removed` are rows whose totals a fold
    row of this commit holds now: the store drops them, or they would count twice. A row that the aggregate still holds keeps its slot or
    stays open (no Flag.CLOSED): the store may sum closed rows without a slot into its own fold rows (negative uids) at any commit.
    `metadata` maps an address to its whole record ({source: {uid: record}}) or None where it is gone.
    """

    number: int  # increasing within one fence
    fence: int
    at: float
    rows: Rows
    changed: Columns
    nodes: tuple[NodeState, ...] = ()
    edges: tuple[Edge, ...] = ()
    metadata: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    removed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # uids


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a new aggregator starts from."""

    fence: int
    rows: Rows
    nodes: tuple[NodeState, ...] = ()
    edges: tuple[Edge, ...] = ()
    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    next_uid: int = 1
