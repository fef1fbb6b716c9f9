"""The one owner of transactions, metadata and edges, as a state machine.

`handle` is the only mutator. It reads no clock and never raises on input that a network could bring: what cannot be applied is refused with
the reason and counted, and nothing of it is applied.
"""

from __future__ import annotations

from cluster.core import apply, commit
from cluster.core.block import Block
from cluster.core.carry import check_carried
from cluster.core.checkpoint import SAID, SEEN_AT, Checkpoint
from cluster.core.commands import Command, Reply, Stop, Write
from cluster.core.errors import WireError
from cluster.core.events import BatchReceived, Committed, Event, Fenced, Hello, Tick
from cluster.core.fold import fold
from cluster.core.forget import forget_unused
from cluster.core.joining import depart_settled, join_ends
from cluster.core.placing import place_moved, settle_due
from cluster.core.restore import restore
from cluster.core.resync import resync
from cluster.core.sequence import SLOTS_SLACK, Batch, check, join
from cluster.core.snapshot import Snapshot
from cluster.core.state import AggregateLimits, Node
from cluster.core.wire import SEQUENCE_PARTS_LIMIT, Answer, Part, unpack_part

__all__ = ["Aggregate", "AggregateLimits"]

NODES_LIMIT = 50_000
NAME_LIMIT = 253  # characters of a node's name, as in DNS
INCARNATIONS = 20  # bits of an incarnation that count within one aggregator


class Aggregate:
    """Applies events one by one."""

    def __init__(self, checkpoint: Checkpoint, limits: AggregateLimits | None = None) -> None:
        self.state = restore(checkpoint, limits or AggregateLimits())

    def __repr__(self) -> str:
        return f"fence {self.state.fence}, {len(self.state.nodes)} nodes, {self.state.rows} rows, {len(self.state.edges)} edges"

    def handle(self, event: Event) -> list[Command]:
        """Apply one event; what is to be done about it."""
        if self.state.stopped:
            return [Stop(self.state.stopped)]
        match event:
            case Hello():
                return [Reply(self._hello(event))]
            case BatchReceived():
                return [Reply(self._received(event))]
            case Committed():
                self._committed(event)
                return []
            case Tick():
                return self._tick(event)
            case Fenced():
                self.state.stopped = event.reason
                return [Stop(event.reason)]

    def snapshot(self) -> Snapshot:
        """A copy of everything that readers ask for, as it is now; keep it for as long as its age does not matter (the actor: a second).

        It costs about 60 ns a row of the nodes that changed since the last one; what did not change is not copied again.
        """
        return Snapshot.live(self.state)

    # Numbering collectors

    def _hello(self, event: Hello) -> Answer:
        if problem := self._unwelcome(event):
            self.state.counters["refused"] += 1
            return Answer("refused", self.state.fence, stream=event.stream, reason=problem)
        node = self.state.node(event.node)
        if event.stream in node.superseded or (event.stream != node.stream and 0 < event.incarnation < node.incarnation):
            return Answer("superseded", self.state.fence, stream=event.stream)
        if node.incarnation == 0 or node.stream != event.stream:
            self._number(node, event.stream)
        return self._answer(node, "ok" if node.durable[0] == node.incarnation else "wait")

    def _unwelcome(self, event: Hello) -> str:
        if not (0 < len(event.node) <= NAME_LIMIT and event.node.isprintable()):
            return f"node name: expected 1 to {NAME_LIMIT} characters that can be printed"
        if not 0 <= event.stream < 1 << 63:
            return "stream: expected a number below 2^63"
        if event.node not in self.state.nodes and len(self.state.nodes) >= NODES_LIMIT:
            return f"more than {NODES_LIMIT} nodes"
        return ""

    def _number(self, node: Node, stream: int) -> None:
        if node.incarnation:
            node.superseded.append(node.stream)
        node.incarnation = max(node.incarnation + 1, self.state.fence << INCARNATIONS)
        node.stream, node.applied, node.dirty = stream, -1, True
        node.parts, node.part_rows = [], 0

    # Batches

    def _received(self, event: BatchReceived) -> Answer:
        try:
            part = unpack_part(event.raw)
        except WireError as error:
            return self._refuse(None, str(error))
        node = self.state.nodes.get(part.node)
        if node is None or part.incarnation > node.incarnation:
            return Answer("hello", self.state.fence, stream=part.stream)
        if part.incarnation < node.incarnation:
            self.state.counters["superseded"] += 1
            return Answer("superseded", self.state.fence, part.incarnation, part.stream)
        if part.stream != node.stream or node.durable[0] != node.incarnation:
            return Answer("hello", self.state.fence, stream=part.stream)
        return self._in_order(node, part, event.at)

    def _in_order(self, node: Node, part: Part, at: float) -> Answer:
        if part.sequence <= node.applied or (part.sequence == node.applied + 1 and part.part < len(node.parts)):
            self.state.counters["duplicates"] += 1
            return self._answer(node, "ok")
        if part.sequence > node.applied + 1 or part.part > len(node.parts):
            self.state.counters["gaps"] += 1
            node.parts, node.part_rows = [], 0
            return self._answer(node, "expect")
        node.parts.append(part)
        node.part_rows += sum(len(columns["id"]) for columns in part.sections.values())
        if len(node.parts) > SEQUENCE_PARTS_LIMIT or node.part_rows > 4 * (node.block.capacity + SLOTS_SLACK):
            return self._refuse(node, f"sequence {part.sequence}: more than {SEQUENCE_PARTS_LIMIT} parts, or too many rows")
        return self._apply(node, at) if part.last else self._answer(node, "ok")

    def _apply(self, node: Node, at: float) -> Answer:
        parts, node.parts, node.part_rows = node.parts, [], 0
        try:
            batch = join(parts)
            self._apply_batch(node, batch, parts[0].sequence, at)
        except WireError as error:
            return self._refuse(node, f"sequence {parts[0].sequence}: {error}")
        node.applied, node.dirty = parts[0].sequence, True
        self.state.counters["sequences"] += 1
        return self._answer(node, "ok")

    def _apply_batch(self, node: Node, batch: Batch, sequence: int, at: float) -> None:
        state = self.state
        before = check(batch, Block() if batch.resync else node.block, node.block.capacity)
        check_carried(batch, node)
        final = batch.final
        seen = min(max(0.0, final.at + final.offset), at)
        if batch.resync:
            state.metadata.begin(node.name, at)
        state.metadata.apply(node.name, batch.metadata, at)
        state.ends.forget(state.numbers_of_addresses(change[1] for change in batch.metadata))
        if batch.resync:
            resync(state, node, batch, seen)
        else:
            apply.open_rows(state, node, batch, seen)
        apply.change(state, node, batch, before, seen)
        apply.attribute(state, node, batch, seen)
        apply.close(state, node, batch, seen)
        node.status = {**final.status, SEEN_AT: seen, SAID: [node.stream, sequence]}
        node.instance, node.closed_through = final.closed_through

    def _refuse(self, node: Node | None, reason: str) -> Answer:
        self.state.counters["refused"] += 1
        if node is None:
            return Answer("refused", self.state.fence, reason=reason)
        node.parts, node.part_rows = [], 0
        return self._answer(node, "refused", reason)

    def _answer(self, node: Node, verdict: str, reason: str = "") -> Answer:
        return Answer(
            verdict,
            self.state.fence,
            node.incarnation,
            node.stream,
            node.applied,
            node.durable[1] if node.durable[0] == node.incarnation else -1,
            node.applied + 1,
            (node.instance, node.closed_through),
            reason,
            node.rests_on,
        )

    # Time and the store

    def _committed(self, event: Committed) -> None:
        state = self.state
        if state.in_flight is None or state.in_flight[0] != event.number:
            return
        for name, durable in state.in_flight[1].items():
            state.nodes[name].durable = durable
        state.in_flight = None

    def _tick(self, event: Tick) -> list[Command]:
        state = self.state
        state.metadata.expire(event.at)
        place_moved(state, event.at)
        join_ends(state, event.at)
        for node in state.nodes.values():
            settle_due(state, node, event.at)
            depart_settled(state, node)
        fold(state, event.at)
        made = commit.begin(state, event.at)
        forget_unused(state)
        return [Write(made)] if made else []
