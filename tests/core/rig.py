"""Real collectors and the real aggregate over a store; the network between them loses, repeats and delays, and everything can crash."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cluster.core.aggregate import Aggregate, AggregateLimits
from cluster.core.checkpoint import Checkpoint, Commit
from cluster.core.collector import Collector, CollectorLimits
from cluster.core.commands import Reply, Write
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick
from cluster.core.wire import Answer
from cluster.stores.memory import MemoryStore
from tests.core.invariants import Invariants
from tests.core.world import CookieTracer, PlainTracer, Tracer, Truth, World

POLLS = 3  # enough for every row to be said, closed and acknowledged


def workload_of(pid: int) -> str:
    """Every fifth process has no known workload."""
    return "" if pid % 5 == 0 else f"process/p{pid}"


@dataclass
class NodeRig:
    name: str
    tracer: Tracer
    world: World
    collector: Collector
    zombies: list[Collector] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)  # parts that may be delivered again


class Rig:
    """One aggregator, its store and its nodes."""

    def __init__(self, limits: AggregateLimits, rows: int, nodes: dict[str, type[CookieTracer] | type[PlainTracer]]) -> None:
        self.now = 1_000_000.0
        self.streams = 0
        self.limits = limits
        self.rows = rows
        self.store = MemoryStore()
        self.pending: Commit | None = None
        self.nodes: dict[str, NodeRig] = {}
        self.events: list[Event] = []
        self.begin()
        for name, tracer in nodes.items():
            world = World()
            self.nodes[name] = NodeRig(name, tracer(world), world, self.collector(name))

    # The aggregator and its store

    def begin(self) -> None:
        """A new aggregator on the store as it is."""
        self.pending = None
        self.checkpoint = self.store.open()
        self.events = []
        self.aggregate = Aggregate(self.checkpoint, self.limits)
        self.invariants = Invariants()
        self.invariants.check(self.aggregate)

    def handle(self, event: Event) -> Answer | None:
        self.events.append(event)
        answer = None
        for command in self.aggregate.handle(event):
            if isinstance(command, Reply):
                answer = command.answer
            elif isinstance(command, Write):
                assert self.pending is None
                self.pending = command.commit
        self.invariants.check(self.aggregate)
        return answer

    def ask(self, event: Hello | BatchReceived) -> Answer:
        answer = self.handle(event)
        assert answer is not None
        return answer

    def tick(self) -> None:
        self.handle(Tick(self.now))

    def write(self) -> None:
        """The store takes what is in flight; nobody is told."""
        if self.pending is not None:
            self.store.commit(self.pending)

    def committed(self) -> None:
        if self.pending is not None:
            self.write()
            pending, self.pending = self.pending, None
            self.handle(Committed(pending.number, self.now))

    # Collectors

    def collector(self, node: str) -> Collector:
        self.streams += 1_000  # a collector may begin some more
        return Collector(node, self.streams, CollectorLimits(rows=self.rows))

    def hello(self, collector: Collector) -> None:
        answer = self.ask(Hello(collector.node, collector.stream, self.now, collector.incarnation))
        if answer.verdict == "ok":
            collector.greet(answer)
        else:
            collector.on_answer(answer)

    def poll(self, node: NodeRig, collector: Collector) -> None:
        if collector.wants_poll():
            collector.on_reply(node.tracer.poll(collector.ack()), node.tracer.peer, self.now, workload_of)

    def send(self, node: NodeRig, collector: Collector, *, lose: str = "") -> bool:
        """One call: lost on the way there, or on the way back, or answered. False where there was nothing to send."""
        if not collector.greeted:
            self.hello(collector)
            return True
        part = collector.next_part()
        if part is None:
            return False
        if lose == "there":
            return True
        node.sent = [*node.sent[-7:], part]
        answer = self.ask(BatchReceived(part, self.now))
        assert answer.verdict != "refused", answer.reason
        if lose != "back":
            collector.on_answer(answer)
        return True

    def drain(self, node: NodeRig) -> None:
        """Send and commit until everything is durable."""
        for _ in range(200):
            if node.collector.superseded:  # by one that should have been dead: whoever says hello last goes on
                node.collector = self.collector(node.name)
            sent = self.send(node, node.collector)
            self.tick()
            self.committed()
            if not sent and node.collector.greeted:
                return
        raise AssertionError("does not come to rest")

    def settle(self, node: NodeRig) -> None:
        """Poll and send until all is said, durable and acknowledged."""
        node.tracer.fins, fins = False, node.tracer.fins
        for _ in range(POLLS):
            self.drain(node)
            self.poll(node, node.collector)
            self.now += 10.0  # more than the time between two words of a collector, so that durable numbers come back
            self.drain(node)
        node.tracer.fins = fins
        if isinstance(node.tracer, PlainTracer):
            node.tracer.handed = False
        for socket in node.world.sockets:
            socket.ceiling = None

    def replace(self, node: NodeRig, *, dead: bool) -> None:
        """A new collector; the old one is dead, or goes on for a while."""
        if isinstance(node.tracer, PlainTracer):
            dead = True
            if node.tracer.handed:  # what is only at the old collector would be lost: this tracer tells a close once
                self.settle(node)
        if not dead:
            node.zombies = [*node.zombies[-1:], node.collector]
        node.collector = self.collector(node.name)

    # The books

    def truth(self) -> Truth:
        total: Truth = Counter()
        for node in self.nodes.values():
            total.update(node.world.truth)
        return total

    def stored(self) -> Checkpoint:
        return self.store.read_only()
