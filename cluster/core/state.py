"""What the aggregate holds. Only `Aggregate.handle` changes it, through the functions of the modules beside."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import Block
from cluster.core.checkpoint import SAID, SEEN_AT, Columns, NodeState
from cluster.core.edges import EdgeTable
from cluster.core.ends import Ends
from cluster.core.intern import Interned
from cluster.core.metadata import Metadata
from cluster.core.records import pack_address
from cluster.core.wire import Part

NOWHERE = bytes(16)  # address number 0
FOLD_SLOT = 0x80000000  # slots from here on are the aggregate's own fold rows, in `Node.folds`
OLD_STREAMS = 16  # how many superseded streams of a node are remembered


@dataclass(frozen=True, slots=True)
class AggregateLimits:
    """What bounds memory."""

    rows: int = 1_000_000  # beyond it closed rows are summed into fold rows
    externals: int = 10_000  # outside addresses told apart; beyond it /24 (IPv6 /48), and beyond as many of those, `external/other`
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)  # names of outside networks, and their CIDR blocks


@dataclass(slots=True)
class Node:
    """One node: how far its stream is, and its rows."""

    name: str
    number: int  # index into State.nodes
    incarnation: int = 0
    stream: int = 0
    applied: int = -1
    instance: str = ""
    closed_through: int = 0
    status: Mapping[str, Any] = field(default_factory=dict)
    block: Block = field(default_factory=Block)  # by the collector's slots
    folds: Block = field(default_factory=Block)  # by slot - FOLD_SLOT
    parts: list[Part] = field(default_factory=list)  # of the sequence that is under way
    part_rows: int = 0
    durable: tuple[int, int] = (0, -1)  # incarnation and sequence, as the store has them
    superseded: deque[int] = field(default_factory=lambda: deque(maxlen=OLD_STREAMS))
    dirty: bool = False

    def state(self) -> NodeState:
        """What the store keeps."""
        return NodeState(self.name, self.incarnation, self.stream, self.applied, self.instance, self.closed_through, self.status)

    @property
    def rests_on(self) -> tuple[int, int, float]:
        """The stream and sequence that its rows are of, and when that was polled; sequence -1 where it has none."""
        stream, sequence = self.status.get(SAID, (0, -1))
        return int(stream), int(sequence), float(self.status.get(SEEN_AT, 0.0))

    @property
    def blocks(self) -> tuple[tuple[Block, int], tuple[Block, int]]:
        """Its blocks, each with the slot that its index 0 stands for."""
        return (self.block, 0), (self.folds, FOLD_SLOT)


class State:
    """Everything; see the fields."""

    def __init__(self, fence: int, limits: AggregateLimits) -> None:
        self.fence = fence
        self.limits = limits
        self.nodes: dict[str, Node] = {}
        self.addresses: Interned[bytes] = Interned(NOWHERE)
        self.texts: Interned[str] = Interned("")
        self.metadata = Metadata()
        self.ends = Ends(self.addresses, self.texts, self.metadata, limits.externals, limits.networks)
        self.edges = EdgeTable()
        self.counters: Counter[str] = Counter()
        self.counters_kept: Counter[str] = Counter()  # as the store has them, or will with the commit under way
        self.next_uid = 1
        self.departed: list[Columns] = []  # rows that left a block since the last commit: `Block.take` and node
        self.removed: list[NDArray[np.int64]] = []  # uids that were folded since the last commit
        self.commits = 0
        self.in_flight: tuple[int, dict[str, tuple[int, int]]] | None = None  # the commit under way and what it makes durable
        self.stopped = ""

    @property
    def rows(self) -> int:
        """Rows held."""
        return sum(block.rows for node in self.nodes.values() for block, _ in node.blocks)

    def node(self, name: str) -> Node:
        """The node of that name, a new one if it is new."""
        if name not in self.nodes:
            self.nodes[name] = Node(name, len(self.nodes))
        return self.nodes[name]

    def numbers_of_addresses(self, texts: Iterable[str]) -> NDArray[np.intp]:
        """The numbers of those addresses that some row has."""
        return np.array([number for text in texts if (number := self._number_of_address(text)) is not None], np.intp)

    def _number_of_address(self, text: str) -> int | None:
        try:
            return self.addresses.find(pack_address(text))
        except ValueError:
            return None

    def uids(self, count: int) -> NDArray[np.int64]:
        """Numbers for new rows."""
        first, self.next_uid = self.next_uid, self.next_uid + count
        return np.arange(first, first + count, dtype=np.int64)

    def depart(self, node: Node, rows: Columns) -> None:
        """These rows (`Block.take`) have left their block and stay in the store."""
        if len(rows["uid"]):
            self.departed.append({**rows, "node": np.full(len(rows["uid"]), node.number, np.uint32)})
