"""What one node's collector knows and says: replies of a tracer in, parts of a stream out. Pure: no clock, no random, no I/O.

A reply is decoded, matched with the rows that are held, and what changed becomes one sequence, kept until the aggregator's store has
it. Only then are closed rows forgotten, their slots used again and the reply acknowledged to the tracer. So whoever dies, whatever a live
tracer held is said again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core import attribution, diff, namespace_owner, parts
from cluster.core.addresses import Addresses
from cluster.core.decode import Reply, decode
from cluster.core.folding import fold
from cluster.core.history import STREAMS, History
from cluster.core.listeners import Listeners
from cluster.core.metadata_diff import MetadataDiff
from cluster.core.node_status import NodeStatus
from cluster.core.outbox import Outbox
from cluster.core.records import Flag
from cluster.core.said import NOTHING, Said
from cluster.core.slots import ENDED, FREE, Indices, Slots
from cluster.core.wire import Answer, Final, Part, pack_part

Columns = dict[str, NDArray[Any]]
REFUSALS = 3  # of one sequence before a new stream is begun
SOURCE_TEXT_LIMIT = 600  # characters of what a source of metadata says of itself
SPARE = 1 << 20  # free slots below the topmost, beyond as many as are held, before a new stream numbers its rows anew
OLDER = "the aggregator's store is older than what this collector kept"
FORGET_AT = 65_536  # addresses or texts that no row needs, before they are forgotten


@dataclass(frozen=True, slots=True)
class CollectorLimits:
    """What one collector may hold."""

    rows: int = 200_000  # beyond it connections that are closed when first seen are folded
    kept_bytes: int = 32_000_000  # packed and not durable; beyond it the tracer is not asked
    absent_after: float = 120.0  # s that a row may be missing where the tracer does not tell closes
    zero_is: str = "new"  # numbering of `direction` where a reply does not show it


class Collector:
    """One node's stream. `stream` is a random number below 2**63, new for each collector's life.

    The caller says hello(node, `stream`, `incarnation`) while `greeted` is False and hands its "ok" to `greet`, every other answer to
    `on_answer`. It polls while `wants_poll()`, and sends `next_part()` with one call outstanding. It ends when `superseded`.
    """

    def __init__(self, node: str, stream: int, limits: CollectorLimits | None = None) -> None:
        self.node = node
        self.stream = stream
        self.limits = limits or CollectorLimits()
        self._life = stream + 1  # never 0; the stream may become another one
        self.greeted = False
        self.superseded = False
        self.incarnation = 0
        self._aggregator = 0
        self._refusals = 0  # in a row
        self._owes_all = False  # a stream is begun, and what it says first waits for the answer to its hello
        self._applied = ("", 0)  # closes that the aggregate had before this collector began
        self._instance: str | None = None  # the tracer's, at the last good poll
        self._instances = 0
        self._close_id = 0  # the last close of it that is in the stream
        self._reply_id: str | None = None
        self._ack: tuple[str, str] | None = None  # instance, reply_id
        self._at = 0.0
        self._addresses = Addresses()
        self._slots = Slots()
        self._texts = attribution.Texts()
        self._metadata = MetadataDiff()
        self._status = NodeStatus()
        self._outbox = Outbox()
        self._history = History(stream)
        self._carries = False  # the stream goes on from an earlier one
        self._durable = -1  # the last sequence known to be in the store, as `History` numbers them

    # What the aggregator answers

    def greet(self, answer: Answer) -> None:
        """The answer "ok" to hello; any other verdict means what it means to a part, and "wait" nothing."""
        if answer.aggregator < self._aggregator or answer.verdict != "ok":
            self.on_answer(answer)
            return
        self._aggregator = answer.aggregator
        self.incarnation = answer.incarnation
        self.greeted = True
        if self._instance is None:
            self._applied = answer.closed_through
        if self._owes_all:
            self._say_all(answer)
        if not self._outbox.go_to(answer.expect):
            self._begin_stream(OLDER)

    def on_answer(self, answer: Answer) -> None:
        """The answer to the part that `next_part` gave; one of an older aggregator is dropped."""
        if answer.aggregator < self._aggregator:
            return
        self._aggregator = answer.aggregator
        match answer.verdict:
            case "superseded":
                self.superseded = True
            case "hello":
                self.greeted = False
            case "refused":
                self._on_refused(answer.reason)
            case "ok" | "expect" if answer.stream == self.stream:
                self._advance(answer)

    def _on_refused(self, reason: str) -> None:
        """Say the sequence again; where that does not help, everything, in a new stream. The caller waits longer each time."""
        self._status.count("refused_parts")
        self._status.note(f"the aggregator refused sequence {self._outbox.place}: {reason}")
        self._refusals += 1
        if self._refusals % REFUSALS or (self._outbox.place == 0 and not self._carries):  # a first sequence knows no more than it says
            self._outbox.restart()
        else:
            self._begin_stream("the aggregator refuses what it is told")

    def _advance(self, answer: Answer) -> None:
        if answer.verdict == "ok":
            self._refusals = 0
            self._outbox.accepted(answer.applied)
        elif not self._outbox.go_to(answer.expect):
            self._begin_stream(OLDER)
            return
        for queued in self._outbox.durable(answer.durable):
            self._durable = self._history.number(queued.number)
            self._history.durable(self._durable)
            self._slots.free(queued.closed)
            if queued.reply_id is not None:
                self._ack = (queued.instance, queued.reply_id)

    def next_part(self) -> bytes | None:
        """The part to send now, the same until it is answered; None when all is said, or hello has to be said first."""
        current = self._outbox.current() if self.greeted and not self.superseded else None
        if current is None:
            return None
        sequence, part, last, body = current
        return pack_part(Part(self.node, self.incarnation, self.stream, sequence, part, last), body)

    # What the tracer and the other sources say

    def wants_poll(self) -> bool:
        """Whether to ask the tracer now. False before a stream's hello is answered, and under back-pressure, where each call counts as one
        skipped poll: what is read later is cumulative."""
        if self.superseded or self.incarnation == 0 or self._owes_all:
            return False
        if self._outbox.kept_bytes > self.limits.kept_bytes:
            self._status.count("backpressure")
            return False
        return True

    def ack(self) -> str | None:
        """The reply_id up to which the tracer may forget closed rows."""
        return self._ack[1] if self._ack is not None and self._ack[0] == self._instance else None

    def on_missed(self, reason: str, at: float) -> None:
        """A poll that failed. Says so every few seconds, once the first good poll has been said."""
        self._at = at
        self._status.missed(reason, at)
        if self._instance is not None and self._status.due(at):
            self._queue(NOTHING)

    def on_metadata(self, source: str, records: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        """All that a source knows now; what changed goes into the next sequence."""
        self._status.count("metadata_refused", self._metadata.update(source, records))

    def on_sources(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """How the last read of each source of metadata went; it travels with the status, its texts cut."""
        cut = {name: {key: _cut(value) for key, value in state.items()} for name, state in states.items()}
        self._status.tell({"metadata": cut})

    def say(self, at: float, further: Mapping[str, Any]) -> None:
        """For who has no tracer: queue the metadata that changed, and every few seconds that somebody is there. `further` is added to the
        status. To be called while `wants_poll()`. The first records that a source says here replace all that it said before."""
        first = self._instance is None
        self._instance, self._at = "", at
        self._status.tell(further)
        if first or self._metadata.pending or self._status.due(at):
            self._queue(NOTHING)

    def on_reply(
        self,
        body: bytes,
        peer: str,
        at: float,
        workload_of: Callable[[int], str],
        owner_of: Callable[[int], str] = namespace_owner.nobody,
    ) -> None:
        """A tracer's reply, received at `at` (s since 1970). Raises SourceMalformed, and then nothing has changed.

        `workload_of` a pid, `owner_of` a network namespace that holds exactly one container; "" where they do not know.
        """
        if max(len(self._addresses.numbers), len(self._texts.listed)) > FORGET_AT + 4 * len(self._slots):
            self._forget_unused()
        reply = decode(body, self._addresses, self.limits.zero_is)
        first = self._instance is None
        another = self._note_instance(peer if reply.instance is None else reply.instance)
        self._at, self._reply_id = at, reply.reply_id
        self._status.polled(reply, at, another=another and not first)
        said = self._apply(reply, at, workload_of, owner_of, dump=another and not first)
        self._status.rows(len(self._slots), attribution.unattributed(self._slots))
        if said or first or self._metadata.pending or self._status.due(at):
            self._queue(said)

    def status(self) -> dict[str, Any]:
        """Counters and the uncovered intervals, as they travel in `Final.status`."""
        return {**self._status.as_map(), "kept_bytes": self._outbox.kept_bytes, "sequences": self._outbox.next_number}

    def _note_instance(self, instance: str) -> bool:
        """Whether another tracer answers than at the last good poll; its close ids are then others, too."""
        if instance == self._instance:
            return False
        began = self._instance is None
        self._close_id = self._applied[1] if began and self._applied[0] == instance else 0
        self._instance, self._instances = instance, self._instances + 1
        return True

    def _apply(self, reply: Reply, at: float, workload_of: Callable[[int], str], owner_of: Callable[[int], str], *, dump: bool) -> Said:
        """Bring the slots up to date; `dump`: the first reply of another instance, which lacks whatever ended meanwhile."""
        slots, number = self._slots, self._history.number(self._outbox.next_number)
        matched = diff.match(self._unsaid(reply.columns), slots)
        self._status.count("duplicates", matched.duplicates)
        self._status.count("late", matched.late)
        known = matched.slots >= 0
        seen, at_slots = diff.select(matched.rows, known), matched.slots[known]
        repidded = attribution.late_pids(slots, seen, at_slots)
        changed, reflagged, fell, last = diff.update(slots, seen, at_slots, self._instances)
        self._history.ended(number, fell, last)
        listeners = Listeners(reply.listeners, self._addresses)
        fresh = diff.select(matched.rows, ~known)
        attribution.local_end(fresh, listeners, self._texts, workload_of)
        opened, moved, disowned, ended = self._open(fresh, matched.identities[:, ~known])
        ended = np.concatenate([at_slots[(seen["flags"] & Flag.CLOSED) != 0], ended])
        slots.columns["opened_at"][opened] = number
        touched = np.concatenate([at_slots, opened])
        if dump or not reply.tells_closes:
            limit = 0.0 if reply.tells_closes else self.limits.absent_after
            ended = np.concatenate([ended, diff.absent(slots, touched, at, limit)])
        owned = namespace_owner.by_namespace(slots, opened, reply.listeners, self._texts, workload_of, owner_of)
        learned = attribution.resolve(slots, opened, listeners, self._texts, workload_of, len(self._addresses.numbers))
        diff.end(slots, ended, number)
        learned = diff.union(np.concatenate([repidded, reflagged, disowned, owned, learned]), opened, slots.top)
        return Said(opened, np.concatenate([changed, moved]), learned, ended)

    def _unsaid(self, rows: Columns) -> Columns:
        """Without the closes that are in the stream already; a tracer repeats them until they are acknowledged."""
        said = (rows["close_id"] <= self._close_id) & ((rows["flags"] & Flag.CLOSED) != 0)
        self._close_id = max(self._close_id, int(rows["close_id"].max(initial=0)))
        return diff.select(rows, ~said) if said.any() else rows

    def _open(self, rows: Columns, identities: NDArray[np.uint64]) -> tuple[Indices, Indices, Indices, Indices]:
        """Slots for new rows; beyond the limit those that are closed already are folded. Returns opened slots, those of fold rows that
        moved and that lost their owner, and ended ones."""
        rows["recv"] = diff.held_back(rows, rows["recv"] - np.uint64(1))
        rows["instance"] = np.full(identities.shape[1], self._instances, np.uint32)
        closed = (rows["flags"] & Flag.CLOSED) != 0
        room = max(0, self.limits.rows - len(self._slots) - int((~closed).sum()))
        if self._outbox.next_number == 0:  # the aggregate may hold these as open rows of the last collector: folded, they would count twice
            room = len(closed)
        excess = closed & (np.cumsum(closed) > room)
        rows["flags"] = rows["flags"] & ~np.uint8(Flag.CLOSED)
        opened = self._slots.add(diff.select(rows, ~excess), identities[:, ~excess])
        ended = opened[closed[~excess]]
        if not excess.any():
            return opened, diff.NONE, diff.NONE, ended
        self._status.count("folded", int(excess.sum()))
        nowhere = self._addresses.number_of(bytes(16))
        folds, moved, disowned = fold(self._slots, diff.select(rows, excess), self.limits.rows, nowhere, self._life)
        return np.concatenate([opened, folds]), moved, disowned, ended

    def _queue(self, said: Said, carried: Columns | None = None, continues: tuple[int, int] | None = None) -> None:
        self._status.said(self._at)
        final = Final(self._at, self.status(), (self._instance or "", self._close_id), continues=continues)
        sections = said.sections(self._slots) | ({"carried": carried} if carried else {})
        content = parts.Content(sections, self._metadata.take(), final, self._addresses.packed, self._texts.listed)
        self._outbox.add(parts.bodies(content), said.closed, self._reply_id, self._instance or "")

    def _begin_stream(self, why: str) -> None:
        """Say everything again under a new number."""
        self.greeted = False
        if self._owes_all:
            return
        self.stream = (self.stream + 1) % STREAMS
        self._owes_all = True
        self._status.count("streams_begun")
        self._status.note(f"{why}: all rows are said again in a new stream")

    def _say_all(self, answer: Answer) -> None:
        """Another stream: where the aggregate's rows are of an earlier one of this collector, first what became of them since; where they
        are of another collector's, all that was said, if that is kept; else, as a new collector would, first all that is held."""
        slots, self._owes_all = self._slots, False
        stream, sequence, at = answer.rows
        number = self._history.number_of(stream, sequence)
        if number is None and self._outbox.whole and not self._carries:
            self._history.begin(0)
            return
        self._history.begin(self._outbox.next_number)
        self._outbox = Outbox()
        if self._durable > (-1 if number is None else number):
            self._status.forgotten(at, self._at)
        self._metadata.again()
        self._durable = -1 if number is None else number
        if number is None:
            self._free_told(answer.closed_through)
        else:
            slots.free(np.flatnonzero((slots["state"] == ENDED) & (slots["closed_at"] <= number)))
        self._carries = number is not None and slots.top <= 2 * len(slots) + SPARE
        if number is None or not self._carries:
            self._status.count("generations_lost", self._history.forget(self.stream))
            self._forget_unused(dense=True)
            self._queue(Said.all(slots))
            return
        self._forget_unused()
        said, sums = Said.all(slots), self._history.since(number, slots.top)
        carried = {name: column[said.opened] for name, column in sums.items()}
        carried |= {"id": said.opened.astype(np.uint32), "known": (slots["opened_at"][said.opened] <= number).astype(np.uint8)}
        self._queue(said, carried, (stream, sequence))

    def _free_told(self, closed_through: tuple[str, int]) -> None:
        """Forget the closes that the aggregate has: it may have summed those rows already."""
        slots = self._slots
        ended = np.flatnonzero(slots["state"] == ENDED)
        instance, close_id = closed_through
        if instance == self._instance:
            earlier = slots["instance"][ended] < self._instances  # whose closes were said before any of this instance, or with its first
            told = (slots["close_id"][ended] != 0) & (slots["close_id"][ended] <= close_id)
            slots.free(ended[earlier | told])

    def _forget_unused(self, *, dense: bool = False) -> None:
        """Forget the addresses and texts that no row has any more; `dense`: give the rows the lowest slots, too."""
        live = self._slots["state"] != FREE
        used = []
        for size, ends in ((len(self._addresses.numbers), ("source", "dest")), (len(self._texts.listed), ("local", "remote"))):
            needed = np.zeros(size, np.bool_)
            for end in ends:
                needed[self._slots[end][live]] = True
            used.append(needed)
        self._slots.renumber(self._addresses.forget(used[0]), self._texts.forget(used[1]), dense=dense)


def _cut(value: Any) -> Any:
    return value[:SOURCE_TEXT_LIMIT] if isinstance(value, str) else value
