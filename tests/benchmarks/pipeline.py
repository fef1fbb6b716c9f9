"""The whole path on a real Ray: `python -m tests.benchmarks.pipeline`, as root (the tracer sees its own processes only, otherwise).

[ray] connections per second from a tracer's socket through collector, aggregator and writer into SQLite, every connection changed at each
poll, as a fraction of the same path in one process without Ray: the same reading, diffing, packing, applying and committing, one after
the other. Before it the plain figures, and the seconds from a socket's write to its transaction being answered to a question: our real
tracer, real sockets, at the default poll interval and at a short one.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.session import set_environment
from configs.settings import CollectorSettings, RaySettings, Settings, StoreSettings

BASE = Path(tempfile.mkdtemp(prefix="rp-"))
RAY = RaySettings(namespace="benchmark", dashboard=False, temp_dir=str(BASE / "ray"))
set_environment(RAY, BASE)  # before Ray is imported

from actors import deploy, session  # noqa: E402
from actors.calls import Peer  # noqa: E402
from actors.options import AGGREGATOR, QUERY  # noqa: E402
from cluster.cli.tracer_process import TracerProcess  # noqa: E402
from cluster.core.aggregate import Aggregate  # noqa: E402
from cluster.core.collector import Collector  # noqa: E402
from cluster.core.commands import Reply, Write  # noqa: E402
from cluster.core.errors import RayscopeError  # noqa: E402
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick  # noqa: E402
from cluster.core.query import Filter  # noqa: E402
from cluster.core.wire import Answer, pack_answer, unpack_answer  # noqa: E402
from cluster.sources.tracer_socket import TracerSocket  # noqa: E402
from cluster.stores.sqlite import SqliteStore  # noqa: E402
from tests.benchmarks.report import median, report  # noqa: E402
from tests.benchmarks.tracer_stub import serving  # noqa: E402
from tests.traffic import Client, Sink, Truth  # noqa: E402

NODE = "benchmark"
CONNECTIONS = 50_000
ALONE, THROUGH_RAY = 3.0, 8.0  # s of each measurement
COMMIT_INTERVAL = 1.0  # s
FAST = 0.02  # s: as often as it goes
SAMPLES, SPREAD = 150, 6.0  # writes, and the s over which they are spread
LOOK = 0.02  # s between two questions


class Alone:
    """The same path without Ray: one thread does one thing after the other."""

    def __init__(self, socket: str, store: Path) -> None:
        self.source = TracerSocket(socket, NODE)
        self.store = SqliteStore(store)
        self.aggregate = Aggregate(self.store.open())
        self.collector = Collector(NODE, stream=1)
        self.committed_at = 0.0
        while not self.collector.greeted:
            self.commit()
            answer = self.ask(Hello(NODE, 1, time.time()))
            if answer.verdict == "ok":
                self.collector.greet(answer)

    def ask(self, event: Event) -> Answer:
        """The answer, through the wire format as between actors."""
        (reply,) = self.aggregate.handle(event)
        assert isinstance(reply, Reply)
        return unpack_answer(pack_answer(reply.answer))

    def commit(self) -> None:
        """As the aggregator does every commit interval."""
        self.committed_at = time.monotonic()
        for command in self.aggregate.handle(Tick(time.time())):
            if isinstance(command, Write):
                self.store.commit(command.commit)
                self.aggregate.handle(Committed(command.commit.number, time.time()))

    def poll(self) -> None:
        """One reply, all the way."""
        if self.collector.wants_poll():
            reply = self.source.poll(self.collector.ack())
            self.collector.on_reply(reply.body, reply.peer, reply.received_at, lambda _pid: "process/benchmark")
        while (part := self.collector.next_part()) is not None:
            self.collector.on_answer(self.ask(BatchReceived(part, time.time())))
        if time.monotonic() - self.committed_at > COMMIT_INTERVAL:
            self.commit()

    def rate(self, seconds: float) -> float:
        """Connections per second, once the first poll is through."""
        self.poll()
        began, polls = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            self.poll()
            polls += 1
        self.commit()
        rate = polls * CONNECTIONS / (time.monotonic() - began)
        self.store.close()
        return rate


def settings(interval: float, commit_interval: float) -> Settings:
    """As `up` would have them."""
    return Settings(
        collector=CollectorSettings(interval=interval, docker_socket=None), store=StoreSettings(commit_interval=commit_interval), ray=RAY
    )


@contextmanager
def deployed(name: str, socket: str, how: Settings) -> Iterator[Peer]:
    """Our actors with a store of their own; the aggregator, once the node is covered."""
    deploy.deploy(str(BASE / f"{name}.db"), socket, how)
    aggregator = Peer(AGGREGATOR)
    while applied(aggregator) < 1:
        time.sleep(LOOK)
    yield aggregator
    deploy.take_down()


def applied(aggregator: Peer) -> int:
    """The last sequence of our node, once it is covered; else -1."""
    try:
        nodes = aggregator.call("status", group=QUERY)["nodes"]
    except RayscopeError:
        return -1
    return max((node["applied"] for node in nodes if node["state"] == "ok"), default=-1)


def through_ray(socket: str) -> float:
    """Connections per second over several seconds."""
    with deployed("fast", socket, settings(FAST, COMMIT_INTERVAL)) as aggregator:
        began, first = time.monotonic(), applied(aggregator)
        time.sleep(THROUGH_RAY)
        deploy.flush()
        return (applied(aggregator) - first) * CONNECTIONS / (time.monotonic() - began)


def latencies(name: str, socket: str, how: Settings) -> list[float]:
    """Seconds from a write to its being answered, of writes at random moments."""
    chance, sink = random.Random(3), Sink()
    written: dict[str, float] = {}
    answered: dict[str, float] = {}

    def write() -> None:
        clients = []
        for pause in sorted(chance.uniform(0, SPREAD) for _ in range(SAMPLES)):
            time.sleep(max(0.0, began + pause - time.monotonic()))
            clients.append(Client(sink, Truth()))
            written[clients[-1].keys[0]] = time.monotonic()
            clients[-1].ask(1_000, 8)
        for client in clients:
            client.close()

    with deployed(name, socket, how) as aggregator:
        began = time.monotonic()
        writer = threading.Thread(target=write)
        writer.start()
        while len(answered) < SAMPLES and time.monotonic() - began < 3 * SPREAD:
            for one in aggregator.call("transactions", Filter(port=sink.port), "key", None, group=QUERY):
                if one["total_sent_bytes"] == 1_000:
                    answered.setdefault(one["key"], time.monotonic())
            time.sleep(LOOK)
        writer.join()
        sink.close()
    return sorted(answered[key] - written[key] for key in written if key in answered)


def show(title: str, found: list[float]) -> None:
    """Median and 99th percentile."""
    highest = found[int(0.99 * len(found))]
    print(f"{title}: median {median(found):.2f} s, p99 {highest:.2f} s, {len(found)} of {SAMPLES} writes answered")


def main() -> None:
    """Run it and print."""
    stub, tracer = str(BASE / "stub.sock"), str(BASE / "tracer.sock")
    try:
        with serving(stub, CONNECTIONS):
            alone = [Alone(stub, BASE / "alone-1.db").rate(ALONE)]
            session.start(NODE, RAY, BASE)
            rate = through_ray(stub)
            alone.append(Alone(stub, BASE / "alone-2.db").rate(ALONE))
        print(f"{CONNECTIONS} connections, all changed at each poll, into SQLite: {rate:,.0f} connections/s through Ray,")
        print(f"  {median(alone):,.0f} in one process without Ray (before and after: {alone[0]:,.0f}, {alone[1]:,.0f})")
        with TracerProcess(tracer, BASE / "tracer.log"):
            usual = Settings()
            show(
                "write to answer, interval 1 s (default)",
                latencies("usual", tracer, settings(usual.collector.interval, usual.store.commit_interval)),
            )
            show("write to answer, interval 0.1 s", latencies("short", tracer, settings(0.1, usual.store.commit_interval)))
        report("pipeline", {"ray": rate / median(alone)})
    finally:
        session.leave()
        shutil.rmtree(BASE, ignore_errors=True)


if __name__ == "__main__":
    main()
