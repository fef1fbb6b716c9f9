"""Questions are answered while ingest is busy."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
import ray

from actors.calls import Peer, find
from actors.options import AGGREGATOR, INGEST, QUERY
from cluster.core.collector import Collector
from cluster.core.query import Filter
from cluster.core.wire import unpack_answer
from tests.actors.conftest import Running
from tests.actors.waiting import wait_for

pytestmark = pytest.mark.ray
NODE = "flood"
CONNECTIONS = 10_000
COPIES = 60


def reply() -> bytes:
    """A tracer's reply with many connections."""
    rows = [
        {
            "pid": 1, "type": 0, "family": 0, "net_ns": 1, "direction": 2, "state": "open", "cookie": number + 1,
            "source": "192.0.2.1", "dest": f"198.51.{number >> 8 & 255}.{number & 255}", "sport": 1024 + number % 60_000, "dport": 443,
            "monotonic_sent_bytes": number, "monotonic_recv_bytes": number, "monotonic_retransmits": 0, "last_update_epoch": number,
        }
        for number in range(CONNECTIONS)
    ]  # fmt: skip
    return msgspec.json.encode({"instance": "flood", "connections": rows})


def parts(aggregator: Peer) -> list[bytes]:
    """The parts of a resync, which is not sent yet."""
    collector = Collector(NODE, stream=1)

    def greeted() -> bool:
        answer = unpack_answer(aggregator.call("hello", NODE, collector.stream, group=INGEST))
        if answer.verdict == "ok":
            collector.greet(answer)
        return collector.greeted

    wait_for(greeted)
    collector.on_reply(reply(), "", time.time(), lambda _: "")
    found = []
    while (part := collector.next_part()) is not None:
        found.append(part)
        collector.on_answer(unpack_answer(aggregator.call("ingest", part, group=INGEST)))
    return found


def test_questions_are_answered_while_parts_flood_in(running: Running) -> None:
    aggregator = running.peer(AGGREGATOR)
    flood = parts(aggregator) * COPIES
    ingest = find(AGGREGATOR).ingest.options(concurrency_group=INGEST)
    outstanding: list[Any] = [ingest.remote(part) for part in flood]
    answered = 0
    while ray.wait([outstanding[-1]], timeout=0)[1]:
        assert aggregator.call("status", group=QUERY)["rows"] >= CONNECTIONS
        assert len(aggregator.call("transactions", Filter(node=NODE), "bytes", 5, group=QUERY)) == 5
        answered += 1 if ray.wait([outstanding[-1]], timeout=0)[1] else 0
    verdicts = {unpack_answer(answer).verdict for answer in ray.get(outstanding, timeout=60)}
    assert verdicts == {"ok"}
    assert answered > 0
