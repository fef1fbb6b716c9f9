"""100,000 connections of a tracer's JSON, socket bytes to packed batches: `python -m tests.benchmarks.collector`.

[naive] is our speed as a multiple of json.loads and a dict keyed by the seed string that finds what opened, changed and closed and packs it
with msgpack: the lower of a first poll and a poll in which 20 % of the connections changed. Both do the same replies in turn.
"""

from __future__ import annotations

import gc
import json
import random
from functools import partial
from typing import Any

import msgpack

from cluster.core.collector import Collector, CollectorLimits
from cluster.core.wire import Answer
from tests.benchmarks.report import median, report, seconds

CONNECTIONS = 100_000
ROUNDS = 5
PORTS = (53, 80, 443, 5432, 6379, 8080, 8443, 9090)
Connection = dict[str, Any]


class Node:
    """A node with 100 pods that talk to 5,000 addresses, as DataDog's tracer tells it; its rows come in no order (Go's maps have none)."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        below = self.random.randrange
        self.v4 = list(dict.fromkeys(f"10.{below(256)}.{below(256)}.{below(1, 255)}" for _ in range(3_500)))
        self.v6 = list(dict.fromkeys(f"fd00:10:244:{below(1 << 16):x}::{below(1 << 16):x}" for _ in range(1_500)))
        self.connections = [self.connection() for _ in range(CONNECTIONS)]

    def connection(self) -> Connection:
        below = self.random.randrange
        family = int(below(10) < 3)
        known = self.v6 if family else self.v4
        pod = below(100)
        return {
            "pid": 20_000 + 97 * pod + below(5),
            "type": int(below(10) < 2),
            "family": family,
            "net_ns": 4_026_532_000 + pod,
            "source": known[pod],
            "dest": known[below(len(known))],
            "sport": below(32_768, 61_000),
            "dport": PORTS[below(len(PORTS))],
            "direction": 1 + below(3),
            "monotonic_sent_bytes": below(1 << 30),
            "last_sent_bytes": 0,
            "monotonic_recv_bytes": below(1 << 32),
            "last_recv_bytes": 0,
            "monotonic_retransmits": below(5),
            "last_retransmits": 0,
            "last_update_epoch": 11_457_291_007_926_789 + below(1 << 40),
            "conntrack": None,
        }

    def reply(self) -> bytes:
        return json.dumps({"connections": self.connections}, separators=(",", ":")).encode()

    def go_on(self) -> None:
        """A fifth of the connections move bytes, one in a hundred gives way to a new one."""
        for connection in self.random.sample(self.connections, CONNECTIONS // 5):
            connection["last_sent_bytes"] = self.random.randrange(1, 1 << 16)
            connection["monotonic_sent_bytes"] += connection["last_sent_bytes"]
            connection["last_recv_bytes"] = self.random.randrange(1 << 16)
            connection["monotonic_recv_bytes"] += connection["last_recv_bytes"]
            connection["last_update_epoch"] += self.random.randrange(10**9)
        for index in self.random.sample(range(CONNECTIONS), CONNECTIONS // 100):
            self.connections[index] = self.connection()
        self.random.shuffle(self.connections)


class Naive:
    """What one would write first."""

    def __init__(self) -> None:
        self.known: dict[str, Connection] = {}

    def poll(self, body: bytes) -> bytes:
        opened, changed, now = [], [], {}
        for connection in json.loads(body)["connections"] or []:
            key = f"{connection['source']}-{connection['dest']}-{connection['sport']}-{connection['dport']}"
            now[key] = connection
            old = self.known.get(key)
            if old is None:
                opened.append(connection)
            elif (
                old["monotonic_sent_bytes"] != connection["monotonic_sent_bytes"]
                or old["monotonic_recv_bytes"] != connection["monotonic_recv_bytes"]
                or old["monotonic_retransmits"] != connection["monotonic_retransmits"]
            ):
                changed.append(
                    (
                        key,
                        connection["monotonic_sent_bytes"],
                        connection["monotonic_recv_bytes"],
                        connection["monotonic_retransmits"],
                        connection["last_update_epoch"],
                    )
                )
        closed = [key for key in self.known if key not in now]
        self.known = now
        return bytes(msgpack.packb({"opened": opened, "changed": changed, "closed": closed}))


def collect(collector: Collector, body: bytes, at: float) -> int:
    """One poll, whole: the bytes of its parts."""
    collector.on_reply(body, "1:1", at, "process/{}".format)
    size, sequence = 0, collector.status()["sequences"] - 1
    while (part := collector.next_part()) is not None:
        size += len(part)
        collector.on_answer(Answer("ok", 1, stream=collector.stream, applied=sequence, durable=sequence))
    return size


def one_round(seed: int) -> dict[str, float]:
    """Seconds of both, for a first poll and one with a fifth changed."""
    node, naive, collector = Node(seed), Naive(), Collector("node", 1, CollectorLimits(absent_after=1.0))
    collector.greet(Answer("ok", 1, incarnation=1))
    gc.collect()
    gc.freeze()  # the node's own records are not what a collector's garbage collector would walk through
    taken = {}
    for at, poll in ((1.0, "first"), (3.0, "changed")):
        body = node.reply()
        taken[f"{poll} naive"] = seconds(partial(naive.poll, body))
        taken[poll] = seconds(partial(collect, collector, body, at))
        node.go_on()
    gc.unfreeze()
    return taken


def main() -> None:
    rounds = [one_round(seed) for seed in range(ROUNDS)]
    ratios = {}
    for poll in ("first", "changed"):
        ours, naive = (median([taken[name] for taken in rounds]) for name in (poll, f"{poll} naive"))
        ratios[poll] = median([taken[f"{poll} naive"] / taken[poll] for taken in rounds])
        print(f"{poll}: {ours:.3f} s, naive {naive:.3f} s, {CONNECTIONS / ours:,.0f} connections/s, {ratios[poll]:.2f} times naive")
    report("collector", {"naive": min(ratios.values()), **ratios})


if __name__ == "__main__":
    main()
