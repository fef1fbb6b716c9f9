"""An aggregate that begins on a store shows, and answers, what the one did that wrote it. Only that a collector without a number had a
successor is not remembered."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from cluster.core import query
from cluster.core.aggregate import Aggregate, AggregateLimits
from cluster.core.commands import Reply
from cluster.core.completeness import status
from cluster.core.events import BatchReceived, Event, Hello
from cluster.core.wire import Answer
from tests.core.books import by_key
from tests.core.rig import Rig
from tests.core.test_exactness import Exactness, step
from tests.core.world import CookieTracer

WHERE = (1, 0, "10.0.0.1", 40_000, "10.0.0.2", 80)


def shown(aggregate: Aggregate, now: float) -> list[Any]:
    """All that readers see, in a fixed order, but for the aggregate's own number."""
    snapshot = aggregate.snapshot()
    rows = sorted(map(str, query.transactions(snapshot)))
    return [rows, query.edges(snapshot), query.metadata(snapshot), {**status(snapshot, now), "fence": 0}]


def answers(aggregate: Aggregate, events: list[Event]) -> list[Answer]:
    replies = [command for event in events for command in aggregate.handle(event)]
    return [replace(command.answer, aggregator=0) for command in replies if isinstance(command, Reply)]


@pytest.mark.parametrize("seed", range(12))
def test_it_shows_and_answers_what_the_one_before_did(seed: int) -> None:
    draw = random.Random(seed)
    machine = Exactness()
    machine.begin(held=draw.choice([4, 1_000]), collected=draw.choice([4, 1_000]), externals=draw.choice([1, 100]))
    for _ in range(150):
        step(machine, draw)
    rig = machine.rig
    for _ in range(3):  # what one tick settles and folds the next one commits
        rig.tick()
        rig.committed()
    before, after = rig.aggregate, Aggregate(rig.store.open(), rig.limits)
    assert shown(after, rig.now) == shown(before, rig.now)
    collectors = [collector for node in rig.nodes.values() for collector in (node.collector, *node.zombies) if collector.incarnation]
    events: list[Event] = [Hello(each.node, each.stream, rig.now, each.incarnation) for each in collectors]
    events += [BatchReceived(part, rig.now) for node in rig.nodes.values() for part in node.sent]
    events += [BatchReceived(part, rig.now) for each in collectors if (part := each.next_part()) is not None]
    assert answers(after, [event for event in events if numbered(event, after)]) == answers(
        before, [event for event in events if numbered(event, after)]
    )


def numbered(event: Event, aggregate: Aggregate) -> bool:
    """Not a hello that gets a new number: that holds the aggregate's own."""
    return not isinstance(event, Hello) or event.stream == aggregate.state.nodes[event.node].stream


def test_a_collector_that_never_had_a_number_may_take_over_and_nothing_is_lost() -> None:
    """It has polled nothing yet, so it is as good as a new one; the one that it supersedes ends."""
    rig = Rig(AggregateLimits(), 1_000, {"ours": CookieTracer})
    node = rig.nodes["ours"]
    early = node.collector
    rig.hello(early)  # "wait"
    rig.replace(node, dead=False)
    socket = node.world.open(WHERE, 7, 2)
    assert socket is not None
    node.world.grow(socket, 10, 1, 0)
    rig.settle(node)
    assert rig.ask(Hello("ours", early.stream, rig.now)).verdict == "superseded"
    rig.begin()
    node.world.grow(socket, 100, 1, 0)
    rig.poll(node, node.collector)
    assert rig.ask(Hello("ours", early.stream, rig.now)).verdict == "wait", "it was forgotten"
    rig.send(node, node.collector)
    rig.send(node, node.collector)
    assert node.collector.superseded
    node.collector = early
    node.world.grow(socket, 1_000, 1, 0)
    rig.settle(node)
    assert by_key(rig.stored()) == +rig.truth()
