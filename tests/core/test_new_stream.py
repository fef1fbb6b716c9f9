"""A collector that begins a new stream goes on exactly: its tracer has no cookies, so nothing shows which row is which but what it says."""

from __future__ import annotations

import copy

import pytest

from cluster.core.aggregate import AggregateLimits
from cluster.core.collector import REFUSALS
from cluster.core.completeness import status
from cluster.core.snapshot import Snapshot
from cluster.core.wire import Answer
from cluster.stores.memory import Contents, MemoryStore
from tests.core.books import by_key, check_edges, check_slots
from tests.core.rig import NodeRig, Rig
from tests.core.world import PlainTracer, Tuple

WHERE: Tuple = (1, 0, "10.0.0.1", 40_000, "10.0.0.2", 80)


class Scene:
    """One node with DataDog's tracer."""

    def __init__(self) -> None:
        self.rig = Rig(AggregateLimits(), 1_000, {"plain": PlainTracer})
        self.node: NodeRig = self.rig.nodes["plain"]

    def reuse(self, sent: int) -> None:
        """The process connects again from the same port, and the kernel counts from 0."""
        for before in list(self.node.world.sockets):
            self.node.tracer.close(before)
        socket = self.node.world.open(WHERE, 7, 2)
        assert socket is not None
        self.node.world.grow(socket, sent, 1, 0)

    def poll(self) -> None:
        self.rig.poll(self.node, self.node.collector)

    def say(self) -> None:
        """Until all is applied; nothing of it is committed."""
        while self.rig.send(self.node, self.node.collector):
            pass

    def hello(self) -> None:
        while not self.node.collector.greeted:
            self.rig.hello(self.node.collector)
            self.rig.tick()
            self.rig.committed()

    def refuse(self) -> None:
        collector = self.node.collector
        for _ in range(REFUSALS):
            assert collector.next_part() is not None
            collector.on_answer(Answer("refused", self.rig.aggregate.state.fence, stream=collector.stream, reason="no"))

    def put_back(self, older: Contents) -> None:
        self.rig.store.close()
        older.holder = None
        self.rig.store = MemoryStore(older)
        self.rig.begin()

    def finish(self) -> None:
        self.rig.settle(self.node)
        self.rig.now += 61.0
        self.rig.drain(self.node)
        check_edges(self.rig.stored())
        check_slots(self.rig.stored())

    def exact(self) -> bool:
        self.finish()
        return by_key(self.rig.stored()) == +self.rig.truth()


@pytest.mark.parametrize("applied", range(5))
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("again", [1, 2])
def test_generations_that_ended_and_were_not_applied_are_counted(applied: int, crash: bool, again: int) -> None:
    """`applied` of five polls, each of another generation, are; then the next sequence is refused until a new stream begins."""
    scene = Scene()
    scene.rig.drain(scene.node)
    for number, sent in enumerate((500, 400, 300, 200, 100)):
        scene.reuse(sent)
        scene.poll()
        if number < applied:
            scene.say()
    for sent in (50, 20)[:again]:
        scene.refuse()
        if crash:
            scene.rig.begin()
        scene.hello()
        scene.reuse(sent)
        scene.poll()
    assert scene.exact()
    assert not scene.rig.aggregate.state.counters["generations_lost"]
    assert not scene.rig.aggregate.state.counters["closes_lost"]


def test_a_close_that_is_applied_and_not_durable_is_counted_once() -> None:
    scene = Scene()
    scene.reuse(500)
    scene.rig.settle(scene.node)
    scene.node.tracer.close(scene.node.world.sockets[0])
    scene.poll()
    scene.rig.now += 130.0
    scene.poll()
    scene.rig.now += 130.0
    scene.poll()
    scene.say()
    scene.reuse(600)
    scene.poll()
    scene.refuse()
    assert scene.exact()


def test_what_a_store_that_was_put_back_lost_is_counted_and_shown() -> None:
    scene = Scene()
    scene.reuse(500)
    scene.rig.settle(scene.node)
    older = copy.deepcopy(scene.rig.store.contents)
    for sent in (400, 300):
        scene.reuse(sent)
        scene.rig.settle(scene.node)
    scene.reuse(200)
    scene.poll()
    scene.put_back(older)
    scene.finish()
    truth = scene.rig.truth()
    truth["10.0.0.1-10.0.0.2-40000-80", "sent"] -= 400  # of what ended and was durable the collector knows nothing any more
    truth["10.0.0.1-10.0.0.2-40000-80", "recv"] -= 1
    assert by_key(scene.rig.stored()) == truth
    said = status(Snapshot.of(scene.rig.stored()), scene.rig.now)
    assert said["counters"]["generations_lost"] == 2
    assert [reason for *_, reason in said["uncovered"]] == ["the store was put back to an older state: what had ended since is lost"]
