"""Parts written by hand, to say to an aggregate what no collector would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.core import query
from cluster.core.aggregate import Aggregate, AggregateLimits
from cluster.core.checkpoint import VIEW, Checkpoint, Rows
from cluster.core.commands import Reply, Write
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick
from cluster.core.records import pack_address
from cluster.core.wire import SECTIONS, Answer, Final, Part, pack_part
from cluster.stores.memory import MemoryStore
from tests.core.invariants import Invariants

AT = 1_000_000.0
ADDRESSES = ("10.0.0.1", "10.0.0.2", "198.51.100.7", "198.51.100.8", "203.0.113.9", "127.0.0.1", "2001:db8::1")
TEXTS = ("", "process/curl", "container/web", "process/ssh")


def section(name: str, *rows: Mapping[str, int]) -> dict[str, Any]:
    """Columns of a section; what a row does not say is 0."""
    return {column: np.array([row.get(column, 0) for row in rows], kind) for column, kind in SECTIONS[name].items()}


def opened(slot: int, **values: int) -> dict[str, int]:
    """A row from 10.0.0.1:40000 + slot to 10.0.0.2:80, of process/curl as client, with a cookie."""
    usual = {
        "id": slot,
        "source": 0,
        "dest": 1,
        "sport": 40_000 + slot % 1_000,
        "dport": 80,
        "cookie": 100 + slot,
        "pid": 7,
        "local": 1,
        "role": 1,
    }
    return usual | values


class Talk:
    """One aggregate with a store, and what it answers; invariants are checked after every event."""

    def __init__(self, limits: AggregateLimits | None = None, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.limits = limits or AggregateLimits()
        self.at = AT
        self.start()

    def start(self) -> None:
        self.aggregate = Aggregate(self.store.open(), self.limits)
        self.invariants = Invariants()

    def handle(self, event: Event) -> list[Any]:
        commands = self.aggregate.handle(event)
        self.invariants.check(self.aggregate)
        return commands

    def answer(self, event: Event) -> Answer:
        (reply,) = self.handle(event)
        assert isinstance(reply, Reply)
        return reply.answer

    def commit(self) -> None:
        for command in self.handle(Tick(self.at)):
            assert isinstance(command, Write)
            self.store.commit(command.commit)
            self.handle(Committed(command.commit.number, self.at))

    def greet(self, node: str = "n", stream: int = 1) -> int:
        """Say hello until it is durable; the incarnation."""
        assert self.answer(Hello(node, stream, self.at)).verdict == "wait"
        self.commit()
        answer = self.answer(Hello(node, stream, self.at))
        assert answer.verdict == "ok"
        self.incarnation, self.stream = answer.incarnation, stream
        return answer.incarnation

    def part(self, sequence: int, node: str = "n", part: int = 0, last: bool = True, final: Final | None = None, **more: Any) -> bytes:
        sections = {name: section(name, *more.pop(name)) for name in SECTIONS if name in more}
        whole: dict[str, Any] = {"incarnation": self.incarnation, "stream": self.stream, "texts": TEXTS} | more
        whole["final"] = (final or Final(self.at, {"rows": 1}, ("t", 0))) if last else None
        addresses = b"".join(map(pack_address, ADDRESSES))
        return pack_part(Part(node, sequence=sequence, part=part, last=last, addresses=addresses, sections=sections, **whole))

    def say(self, sequence: int, **more: Any) -> Answer:
        return self.answer(BatchReceived(self.part(sequence, **more), self.at))

    def ok(self, sequence: int, **more: Any) -> None:
        answer = self.say(sequence, **more)
        assert (answer.verdict, answer.applied) == ("ok", sequence), answer


def empty() -> Checkpoint:
    return Checkpoint(1, Rows({}))


def rows(talk: Talk) -> dict[int, dict[str, Any]]:
    """Live transactions by source port."""
    return {one["sport"]: one for one in query.transactions(talk.aggregate.snapshot())}


def view(talk: Talk, client: str, server: str, side: int = 0) -> dict[str, int]:
    edges = [edge for edge in talk.aggregate.snapshot().edges.values() if (edge.client, edge.server) == (client, server)]
    return dict(zip(VIEW, edges[0].views[side], strict=True)) if edges else {}
