"""Totals are exact to the byte, whatever is lost, repeated, delayed or killed.

Real collectors, the real aggregate and a store, against a world that knows what its sockets moved. After every run all is brought to
rest, and then the sums by seed key, over all, and by edge are equal to the world's: equal, always.

What the design does not promise, and the world therefore does not do:
* Our tracer (cookies): it restarts only when its closes are durable (what closed while it was down, or was held by it alone, is not
  claimed).
* A tracer without cookies: a tuple is used again by the same process only after the close was polled, and what it sends stays below what
  was sent before until that is durable (a reuse that overtakes cannot be seen). The tracer restarts, and its collector is replaced, only
  when nothing is held by the collector alone (that tracer tells a close once). Two collectors never poll it at the same time.
* The store is never put back to an older state (a test of its own does that): what ended and was durable in the newer state, closed rows
  and ended generations, the tracer and the collector have forgotten, as they may once it is durable. It is counted and shown.

RAYSCOPE_EXACTNESS=large runs it for minutes instead of seconds.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cluster.core.aggregate import AggregateLimits
from cluster.core.collector import REFUSALS
from cluster.core.events import BatchReceived
from cluster.core.wire import Answer
from cluster.stores.memory import MemoryStore
from tests.core.books import by_key, check_edges, check_slots, regrouped, without_ports
from tests.core.rig import NodeRig, Rig, workload_of
from tests.core.world import CookieTracer, PlainTracer, Socket, Tuple

LARGE = os.environ.get("RAYSCOPE_EXACTNESS") == "large"
NODES: dict[str, Any] = {"ours": CookieTracer, "plain": PlainTracer}
ENDS = ((40_000, "10.0.0.2", 80), (40_001, "10.0.0.2", 80), (443, "198.51.100.7", 50_000), (443, "198.51.100.8", 50_000))
TUPLES: list[Tuple] = [(ns, protocol, "10.0.0.1", *ends) for ns in (1, 2) for protocol in (0, 1) for ends in ENDS]
pids = st.integers(1, 6)
node_names = st.sampled_from(sorted(NODES))
losses = st.sampled_from(["", "", "there", "back"])
AMOUNTS = [0, 1, 2, 7, 1_000, 2**33]
amounts = st.sampled_from(AMOUNTS)
some = st.integers(0, 7)
several = st.lists(some, min_size=1, max_size=6)
limits = st.sampled_from([2, 4, 1_000])


class Exactness(RuleBasedStateMachine):
    """Random interleavings; see the head of this file."""

    rig: Rig
    folds: bool

    @initialize(held=limits, collected=limits, externals=st.sampled_from([1, 100]))
    def begin(self, held: int, collected: int, externals: int) -> None:
        self.folds = min(held, collected) < 1_000
        self.rig = Rig(AggregateLimits(rows=held, externals=externals), collected, NODES)
        self.reported: dict[tuple[Tuple, int], int | None] = {}  # plain tracer: what the last connection of a tuple and process had sent
        for node in self.rig.nodes.values():
            self.rig.drain(node)

    def node(self, name: str) -> NodeRig:
        return self.rig.nodes[name]

    # What sockets do

    @rule(name=node_names, wheres=st.lists(st.sampled_from(TUPLES), min_size=1, max_size=6), pid=pids, direction=st.sampled_from([1, 2]))
    def open(self, name: str, wheres: list[Tuple], pid: int, direction: int) -> None:
        node = self.node(name)
        for where in wheres:
            if isinstance(node.tracer, CookieTracer):
                node.world.open(where, pid, direction)
                continue
            before = self.reported.get((where, pid))
            if (where, pid) not in self.reported or before:
                socket = node.world.open(where, pid, direction)
                if socket is not None:
                    socket.ceiling = before

    @rule(name=node_names, which=several, sent=amounts, recv=amounts, retransmits=st.integers(0, 2))
    def grow(self, name: str, which: list[int], sent: int, recv: int, retransmits: int) -> None:
        world = self.node(name).world
        for index in which if world.sockets else ():
            world.grow(world.sockets[index % len(world.sockets)], sent, recv, retransmits)

    @rule(name=node_names, which=several)
    def close(self, name: str, which: list[int]) -> None:
        node = self.node(name)
        for index in which:
            if node.world.sockets:
                self._close(node, node.world.sockets[index % len(node.world.sockets)])

    def _close(self, node: NodeRig, socket: Socket) -> None:
        node.tracer.close(socket)
        if isinstance(node.tracer, PlainTracer):
            self.reported[socket.where, socket.pid] = None  # not to be used again before it is polled

    @rule(name=node_names, which=some, pid=pids)
    def hand_over(self, name: str, which: int, pid: int) -> None:
        """Another process has the socket now."""
        node = self.node(name)
        if not node.world.sockets:
            return
        socket = node.world.sockets[which % len(node.world.sockets)]
        if isinstance(node.tracer, CookieTracer):
            socket.pid = pid
        elif pid != socket.pid and (socket.where, pid) not in self.reported:
            self._close(node, socket)
            node.world.open(socket.where, pid, socket.direction)

    # What is polled and sent

    @rule(name=node_names)
    def poll(self, name: str) -> None:
        node = self.node(name)
        self._note_reported(node)
        self.rig.poll(node, node.collector)

    def _note_reported(self, node: NodeRig) -> None:
        if isinstance(node.tracer, PlainTracer) and node.collector.wants_poll():
            for record in node.tracer.closed:
                where = (record["net_ns"], record["type"], record["source"], record["sport"], record["dest"], record["dport"])
                self.reported[where, record["pid"]] = record["monotonic_sent_bytes"]

    @rule(name=node_names, lose=losses, times=st.integers(1, 4))
    def send(self, name: str, lose: str, times: int) -> None:
        node = self.node(name)
        for _ in range(times):
            self.rig.send(node, node.collector, lose=lose)

    @rule(name=node_names, which=some)
    def deliver_again(self, name: str, which: int) -> None:
        """A part that was sent some time ago arrives once more; its answer goes nowhere."""
        node = self.node(name)
        if node.sent:
            self.rig.handle(BatchReceived(node.sent[which % len(node.sent)], self.rig.now))

    @rule(name=node_names, under_way=st.booleans())
    def refuse(self, name: str, under_way: bool) -> None:
        """The aggregate takes something for wrong, again and again: the same collector says everything in a new stream. A poll may be
        under way meanwhile, and one may fail."""
        node = self.node(name)
        reply = None
        if under_way and node.collector.wants_poll():
            self._note_reported(node)
            reply = node.tracer.poll(node.collector.ack())
        for _ in range(REFUSALS):
            if node.collector.next_part() is not None:
                node.collector.on_answer(Answer("refused", self.rig.aggregate.state.fence, stream=node.collector.stream, reason="drawn"))
        node.collector.on_missed("drawn", self.rig.now)
        if reply is not None:
            node.collector.on_reply(reply, node.tracer.peer, self.rig.now, workload_of)

    @rule(which=some, poll=st.booleans())
    def zombie(self, which: int, poll: bool) -> None:
        """A collector that has a successor goes on."""
        node = self.node("ours")
        if node.zombies:
            old = node.zombies[which % len(node.zombies)]
            if poll:
                self.rig.poll(node, old)
            if not old.superseded:
                self.rig.send(node, old)

    @rule(name=node_names)
    def work(self, name: str) -> None:
        """All goes well for a while."""
        self.poll(name)
        self.rig.drain(self.node(name))

    @rule(
        name=node_names, address=st.sampled_from(["10.0.0.2", "198.51.100.7"]), workload=st.sampled_from(["container/a", "container/b", ""])
    )
    def know(self, name: str, address: str, workload: str) -> None:
        records = {(address, "u"): {"kind": "container", "workload": workload}} if workload else {}
        self.node(name).collector.on_metadata("docker", records)

    # Time, store, crashes

    @rule(seconds=st.sampled_from([1.0, 20.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.rig.now += seconds
        self.rig.tick()

    @rule()
    def write(self) -> None:
        self.rig.write()

    @rule()
    def commit(self) -> None:
        self.rig.tick()
        self.rig.committed()

    @rule(written=st.booleans())
    def kill_aggregator(self, written: bool) -> None:
        if written:
            self.rig.write()
        self.rig.begin()

    @rule(name=node_names, dead=st.booleans())
    def replace_collector(self, name: str, dead: bool) -> None:
        node = self.node(name)
        if isinstance(node.tracer, PlainTracer) and node.tracer.handed:
            self.poll(name)
        self.rig.replace(node, dead=dead)

    @rule(name=node_names)
    def restart_tracer(self, name: str) -> None:
        self.rest(self.node(name))
        self.node(name).tracer.restart()

    def rest(self, node: NodeRig) -> None:
        self.rig.drain(node)
        self.poll(node.name)
        self.rig.settle(node)

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        for node in self.rig.nodes.values():
            self.rest(node)
        self.rig.now += 61.0
        self.rig.tick()
        self.rig.committed()
        self.rig.tick()
        self.rig.committed()
        stored = self.rig.stored()
        truth, found = self.rig.truth(), by_key(stored)
        if not self.folds:
            assert found == +truth
        elif not any("::" in key for key, _ in found):
            assert regrouped(found, without_ports) == regrouped(truth, without_ports)
        assert regrouped(found, lambda _: "all") == regrouped(truth, lambda _: "all")
        check_edges(stored)
        check_slots(stored)
        assert sum(edge.views[view][5] for edge in stored.edges for view in (0, 1)) == regrouped(truth, lambda _: "all")["all", "sent"]


TestExactness = Exactness.TestCase
TestExactness.settings = settings(
    max_examples=2_000 if LARGE else 60,
    stateful_step_count=100 if LARGE else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("seed", range(2_000 if LARGE else 60))
def test_long_walks(seed: int) -> None:
    """Hypothesis likes short programs, which it can shrink; these are long ones, in which everything happens often."""
    draw = random.Random(seed)
    machine = Exactness()
    sizes = [2, 4, 12, 1_000, 1_000]
    machine.begin(held=draw.choice(sizes), collected=draw.choice(sizes), externals=draw.choice([1, 100]))
    for _ in range(1_000 if LARGE else 250):
        step(machine, draw)
    machine.teardown()


def step(machine: Exactness, draw: random.Random) -> None:
    """One random rule with random arguments."""
    name = draw.choice(sorted(NODES))
    which = [draw.randrange(8) for _ in range(draw.randint(1, 4))]
    deeds: list[tuple[float, Callable[[], None]]] = [
        (3, lambda: machine.open(name, draw.choices(TUPLES, k=3), draw.randint(1, 6), draw.randint(1, 2))),
        (6, lambda: machine.grow(name, which, draw.choice(AMOUNTS), draw.choice(AMOUNTS), draw.randint(0, 2))),
        (2, lambda: machine.close(name, which)),
        (1, lambda: machine.hand_over(name, which[0], draw.randint(1, 6))),
        (6, lambda: machine.poll(name)),
        (8, lambda: machine.send(name, draw.choice(["", "", "there", "back"]), len(which))),
        (2, lambda: machine.work(name)),
        (1, lambda: machine.deliver_again(name, which[0])),
        (1, lambda: machine.zombie(which[0], draw.random() < 0.5)),
        (1, lambda: machine.know(name, draw.choice(["10.0.0.2", "198.51.100.7"]), draw.choice(["container/a", "node/b", ""]))),
        (2, lambda: machine.wait(draw.choice([1.0, 20.0, 130.0]))),
        (2, machine.write),
        (4, machine.commit),
        (0.7, lambda: machine.kill_aggregator(draw.random() < 0.5)),
        (0.7, lambda: machine.replace_collector(name, draw.random() < 0.5)),
        (0.3, lambda: machine.restart_tracer(name)),
        (0.7, lambda: machine.refuse(name, draw.random() < 0.5)),
    ]
    weights, actions = zip(*deeds, strict=True)
    draw.choices(actions, weights)[0]()


@pytest.mark.parametrize("limit", [1_000, 4], ids=["rows", "fold rows"])
def test_a_store_that_is_put_back_to_an_older_state(limit: int) -> None:
    """What the store forgot, the collector says again in a new stream; of rows with a cookie nothing is lost but
    what had ended, was told and forgotten; fold rows have that, too."""
    rig = Rig(AggregateLimits(), limit, {"ours": CookieTracer})
    node = rig.nodes["ours"]
    sockets = [socket for where in TUPLES[:6] if (socket := node.world.open(where, 1, 2))]
    for number, socket in enumerate(sockets):
        node.world.grow(socket, 10 + number, 5, 1)
    rig.settle(node)
    assert isinstance(node.tracer, CookieTracer)
    short_lived(rig, node)
    older = copy.deepcopy(rig.store.contents)
    for socket in sockets[:4]:
        node.world.grow(socket, 100, 7, 0)
        rig.settle(node)
    if limit < len(sockets):
        short_lived(rig, node)
    stream = node.collector.stream
    rig.store.close()
    older.holder = None
    rig.store = MemoryStore(older)
    rig.begin()
    node.tracer.close(sockets[0])
    rig.settle(node)
    assert node.collector.stream == stream + 1
    stored = rig.stored()
    assert regrouped(by_key(stored), without_ports) == regrouped(rig.truth(), without_ports)
    check_edges(stored)
    check_slots(stored)


def short_lived(rig: Rig, node: NodeRig) -> None:
    """A connection that opens and closes between two polls."""
    socket = node.world.open(TUPLES[-1], 1, 2)
    assert socket is not None
    node.world.grow(socket, 1_000, 0, 0)
    node.tracer.close(socket)
    rig.settle(node)
