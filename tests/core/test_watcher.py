"""What the watcher of the API server says, from its pure collector into the aggregate."""

from __future__ import annotations

from typing import Any

from cluster.core import query
from cluster.core.aggregate import Aggregate
from cluster.core.checkpoint import Checkpoint, Rows
from cluster.core.collector import Collector
from cluster.core.commands import Reply, Write
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick
from cluster.core.metadata import STALE_AFTER, WATCHER
from cluster.core.wire import Answer

SERVICES = {("10.96.0.1", "u1"): {"kind": "service"}, ("10.96.0.2", "u2"): {"kind": "service"}}
NODES = {("192.0.2.1", "n1"): {"kind": "node", "name": "worker-1"}, ("192.0.2.2", "n2"): {"kind": "node", "name": "worker-2"}}
SYNCED = {"resources": {"services": {"state": "synced", "heard_at": 99.0}}}


class Talk:
    """An aggregate, and watchers that speak to it one after the other."""

    def __init__(self) -> None:
        self.aggregate = Aggregate(Checkpoint(1, Rows({})))
        self.streams = 0

    def ask(self, event: Event) -> Answer:
        (reply,) = self.aggregate.handle(event)
        assert isinstance(reply, Reply)
        return reply.answer

    def tick(self, at: float) -> None:
        for command in self.aggregate.handle(Tick(at)):
            if isinstance(command, Write):
                self.aggregate.handle(Committed(command.commit.number, at))

    def watcher(self, at: float) -> Collector:
        self.streams += 1
        made = Collector(WATCHER, self.streams)
        self.ask(Hello(WATCHER, made.stream, at))
        self.tick(at)
        made.greet(self.ask(Hello(WATCHER, made.stream, at)))
        assert made.wants_poll()
        return made

    def deliver(self, watcher: Collector, at: float) -> None:
        while (part := watcher.next_part()) is not None:
            watcher.on_answer(self.ask(BatchReceived(part, at)))
        self.tick(at)

    def status(self, now: float) -> Any:
        return query.status(self.aggregate.snapshot(), now)

    @property
    def addresses(self) -> set[str]:
        return set(query.metadata(self.aggregate.snapshot()))


def test_records_arrive_and_leave_and_the_watcher_is_no_node() -> None:
    talk = Talk()
    assert talk.status(0.0)["kubernetes"] is None
    watcher = talk.watcher(100.0)
    assert talk.status(100.0)["kubernetes"]["state"] == "waiting"
    watcher.on_metadata("apiserver", {**SERVICES, **NODES})
    watcher.say(100.0, SYNCED)
    talk.deliver(watcher, 100.0)
    assert talk.addresses == {"10.96.0.1", "10.96.0.2", "192.0.2.1", "192.0.2.2"}
    status = talk.status(101.0)
    assert (status["nodes"], status["nodes_covered"]) == ([], 0)
    kubernetes = status["kubernetes"]
    assert (kubernetes["state"], kubernetes["nodes"], kubernetes["uncovered"]) == ("ok", 2, ["worker-1", "worker-2"])
    assert kubernetes["resources"] == {"services": {"state": "synced", "age": 2.0}}
    watcher.on_metadata("apiserver", dict(list(SERVICES.items())[:1]))
    watcher.say(102.0, {"resources": {"services": {"state": "failing"}}})
    talk.deliver(watcher, 102.0)
    assert talk.addresses == {"10.96.0.1"}
    assert talk.status(102.0)["kubernetes"]["state"] == "failing"
    assert talk.status(200.0)["kubernetes"]["state"] == "silent"


def test_nothing_is_said_twice_but_that_somebody_is_there() -> None:
    talk = Talk()
    watcher = talk.watcher(100.0)
    for at in (100.0, 101.0, 102.0, 106.0):
        watcher.on_metadata("apiserver", SERVICES)
        watcher.say(at, SYNCED)
    assert watcher.status()["sequences"] == 2


def test_a_new_watcher_takes_nothing_back_until_it_knows_everything() -> None:
    talk = Talk()
    first = talk.watcher(100.0)
    first.on_metadata("apiserver", SERVICES)
    first.say(100.0, SYNCED)
    talk.deliver(first, 100.0)
    second = talk.watcher(200.0)
    second.say(200.0, {})
    talk.deliver(second, 200.0)
    talk.tick(200.0 + 100 * STALE_AFTER)
    assert talk.addresses == {"10.96.0.1", "10.96.0.2"}, "the API server may be away for long"
    second.on_metadata("apiserver", {("10.96.0.2", "u2"): {"kind": "service"}, ("10.96.0.3", "u3"): {"kind": "service"}})
    second.say(9_999.0, SYNCED)
    talk.deliver(second, 9_999.0)
    assert talk.addresses == {"10.96.0.2", "10.96.0.3"}


def test_a_store_that_was_put_back_hears_everything_again() -> None:
    talk = Talk()
    watcher = talk.watcher(100.0)
    watcher.on_metadata("apiserver", SERVICES)
    watcher.say(100.0, SYNCED)
    talk.deliver(watcher, 100.0)
    talk.aggregate = Aggregate(Checkpoint(2, Rows({})))
    watcher.say(110.0, SYNCED)
    part = watcher.next_part()
    assert part is not None
    watcher.on_answer(talk.ask(BatchReceived(part, 110.0)))
    for _ in range(2):  # the old stream's hello, then that of the new one
        for at in (110.0, 111.0):
            answer = talk.ask(Hello(WATCHER, watcher.stream, at))
            talk.tick(at)
        watcher.greet(answer)
    talk.deliver(watcher, 112.0)
    assert talk.addresses == {"10.96.0.1", "10.96.0.2"}


def test_a_status_that_is_no_status_is_borne() -> None:
    talk = Talk()
    watcher = talk.watcher(100.0)
    watcher.say(100.0, {"resources": {"services": 5, "nodes": {"heard_at": "x"}}})
    talk.deliver(watcher, 100.0)
    assert talk.status(101.0)["kubernetes"]["state"] == "failing"
