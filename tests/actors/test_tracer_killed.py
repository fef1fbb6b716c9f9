"""The tracer is killed under traffic: what lives through it stays exact, and that nobody looked is told."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time

import pytest

from actors.options import AGGREGATOR, QUERY
from cluster.stores.sqlite import read_only
from tests.actors.conftest import NODE, Running
from tests.actors.totals import difference, stored
from tests.actors.waiting import wait_for
from tests.traffic import Client, connections

pytestmark = pytest.mark.ray
CONNECTIONS = 20
CLOSED = 5


def tracer_pid(path: str) -> int:
    """Who listens on this socket; 0 where nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path):
            return 0
        return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def uncovered(running: Running, since: float) -> list[list[object]]:
    """Intervals of our node that end after `since`, as the aggregator tells them."""
    status = running.peer(AGGREGATOR).call("status", group=QUERY)
    return [interval for node, *interval in status["uncovered"] if node == NODE and interval[1] >= since]


def test_what_lives_through_a_killed_tracer_stays_exact_and_the_gap_is_told(running: Running) -> None:
    with connections(CONNECTIONS) as (sink, truth, clients):

        def wrong(keys: set[str]) -> dict[str, object]:
            found = stored(running.store, sink.port, NODE)
            return dict(difference({key: truth.bytes[key] for key in keys}, {key: found[key] for key in keys & found.keys()}))

        say(clients, 100)
        wait_for(lambda: not wrong(set(truth.bytes)))
        pid, at = tracer_pid(running.socket), time.time()
        os.kill(pid, signal.SIGKILL)
        say(clients, 200)
        for client in clients[:CLOSED]:
            client.close()
        wait_for(lambda: tracer_pid(running.socket) not in (0, pid))
        say(clients[CLOSED:], 300)

        lost = {key for client in clients[:CLOSED] for key in client.keys}
        wait_for(lambda: not wrong(set(truth.bytes) - lost))
        assert wrong(lost).keys() == lost  # what passed while nobody looked is not there, and not claimed
        (gap,) = wait_for(lambda: uncovered(running, at))
        assert gap[0] <= at + running.settings.collector.interval  # from the last good poll
        kept = next(node for node in read_only(str(running.store)).nodes if node.node == NODE)
        assert gap in [list(interval) for interval in kept.status["uncovered"]]


def say(clients: list[Client], size: int) -> None:
    """Each sends and receives another number of bytes."""
    for number, client in enumerate(clients):
        client.ask(size + number, 10 * size + number)
