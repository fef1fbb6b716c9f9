"""A copy of the aggregate for readers, and the same shape made of a stored checkpoint, so that both are read by one code path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import MOVING, Block
from cluster.core.checkpoint import Checkpoint, Columns, Edge, NodeState
from cluster.core.records import pack_address
from cluster.core.restore import native
from cluster.core.state import Node, State


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as NATIVE columns, and `base_*` where a generation ended; `node` indexes the snapshot's nodes."""

    node: NDArray[np.uint32]
    columns: Columns

    def __len__(self) -> int:
        return len(self.node)

    def total(self, name: str) -> NDArray[np.uint64]:
        """base + raw, u64; `name` is sent, recv or retransmits."""
        raw = self.columns[name]
        base = self.columns.get(f"base_{name}")
        total: NDArray[np.uint64] = raw.astype(np.uint64) if base is None else base.astype(np.uint64) + raw
        return np.where(total < raw, np.uint64(2**64 - 1), total)  # a store of an older release may hold what passes 64 bits


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a question can be about; nothing here changes."""

    nodes: tuple[NodeState, ...]
    tables: tuple[Table, ...]
    addresses: Sequence[bytes]
    texts: Sequence[str]
    edges: Mapping[int, Edge]
    metadata: Mapping[str, Mapping[str, Any]]
    counters: Mapping[str, int]
    fence: int = 0

    @staticmethod
    def live(state: State) -> Snapshot:
        """What the aggregate holds now. A block that has not changed since the last call is not copied again."""
        edges = state.edges
        return Snapshot(
            nodes=tuple(node.state() for node in state.nodes.values()),
            tables=tuple(_copy(node, block) for node in state.nodes.values() for block, _ in node.blocks if block.rows),
            addresses=tuple(state.addresses.values),
            texts=tuple(state.texts.values),
            edges={number: edges.edge(number) for number in range(1, len(edges.keys))},
            metadata={
                address: {source: dict(by_uid) for source, by_uid in sources.items()} for address, sources in state.metadata.records.items()
            },
            counters=dict(state.counters),
            fence=state.fence,
        )

    @staticmethod
    def of(checkpoint: Checkpoint) -> Snapshot:
        """What a store has."""
        rows = checkpoint.rows
        columns = native(rows, np.arange(len(rows.addresses)), np.arange(len(rows.texts))) if len(rows) else {}
        nodes = {state.node: state for state in checkpoint.nodes}
        names = [*nodes, *(name for name in rows.node_names if name not in nodes)]
        numbers = np.array([names.index(name) for name in rows.node_names], np.uint32)
        tables = (Table(numbers[rows.columns["node"]], columns),) if len(rows) else ()
        return Snapshot(
            nodes=tuple(nodes.get(name, NodeState(name, 0, 0, -1)) for name in names),
            tables=tables,
            addresses=tuple(map(pack_address, rows.addresses)),
            texts=rows.texts,
            edges={edge.number: edge for edge in checkpoint.edges},
            metadata=checkpoint.metadata,
            counters=checkpoint.counters,
            fence=checkpoint.fence,
        )


def _copy(node: Node, block: Block) -> Table:
    """The block as it is; of the last copy all that has not changed is used again."""
    version, description, copied = block.copied or (-1, -1, None)
    before: Table | None = copied
    if version == block.version and before is not None:
        return before
    slots = None if block.rows == block.size else block.used()
    again = before.columns if description == block.description and before is not None else {}
    columns = {
        name: again[name] if name in again and name not in MOVING else _rows(column[: block.size], slots)
        for name, column in block.columns.items()
    }
    if block.bases:
        bases = block.bases.of(np.arange(block.size) if slots is None else slots)
        columns |= {f"base_{name}": values for name, values in bases.items()}
    table = Table(np.broadcast_to(np.uint32(node.number), block.rows), columns)
    block.copied = (block.version, block.description, table)
    return table


def _rows(column: NDArray[Any], slots: NDArray[np.intp] | None) -> NDArray[Any]:
    return column.copy() if slots is None else column[slots]
