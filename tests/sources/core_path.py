"""From a source through the real core: collector, aggregate and a store, with nothing between them."""

from __future__ import annotations

from typing import Any

from cluster.core import query
from cluster.core.aggregate import Aggregate
from cluster.core.collector import Collector
from cluster.core.commands import Reply, Write
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick
from cluster.core.snapshot import Snapshot
from cluster.core.wire import Answer
from cluster.ports import ConnectionSource, MetadataRecords, Store
from cluster.stores.memory import MemoryStore


class CorePath:
    """One node's path. The clock is that of the replies, so the same replies give the same state."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store or MemoryStore()
        self._aggregate = Aggregate(self._store.open())
        self._collector = Collector("node", 1)
        self._at = 0.0

    def read(self, source: ConnectionSource, polls: int) -> None:
        """Poll so often, and bring all of it into the store."""
        for _ in range(polls):
            self._greet()
            reply = source.poll(self._collector.ack())
            self._at = max(self._at, reply.received_at)
            self._collector.on_reply(reply.body, reply.peer, reply.received_at, lambda pid: "")  # noqa: ARG005
            self._deliver()

    def tell(self, source: str, records: MetadataRecords) -> list[bytes]:
        """Bring what a source of metadata knows into the store; the parts as they travelled."""
        self._greet()
        self._collector.on_metadata(source, records)
        self._collector.on_reply(b'{"connections": []}', "1:1", self._at, lambda pid: "")  # noqa: ARG005
        return self._deliver()

    def _deliver(self) -> list[bytes]:
        parts = []
        while (part := self._collector.next_part()) is not None:
            parts.append(part)
            answer = self._handle(BatchReceived(part, self._at))
            assert answer is not None
            assert answer.verdict == "ok", answer
            self._collector.on_answer(answer)
        self._handle(Tick(self._at))
        return parts

    def transactions(self) -> list[dict[str, Any]]:
        """As cluster.core.query gives them from the store, which keeps the closed ones."""
        assert isinstance(self._store, MemoryStore)
        return query.transactions(Snapshot.of(self._store.read_only()), query.Filter(), "key", None)

    def _greet(self) -> None:
        while not self._collector.greeted:
            answer = self._handle(Hello("node", self._collector.stream, self._at))
            assert answer is not None
            if answer.verdict == "ok":
                self._collector.greet(answer)
            self._handle(Tick(self._at))

    def _handle(self, event: Event) -> Answer | None:
        answer = None
        for command in self._aggregate.handle(event):
            match command:
                case Reply():
                    answer = command.answer
                case Write():
                    self._store.commit(command.commit)
                    self._handle(Committed(command.commit.number, self._at))
        return answer
