"""The tracer is killed under traffic: what it had seen is exact, and that nobody looked meanwhile is told."""

from __future__ import annotations

import os
import random
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
from tests.traffic import Client, Sink, Truth, connections

pytestmark = pytest.mark.ray
CONNECTIONS = 20
CLOSED = 5
KILLS = 3
PAUSE = 0.02  # s between two steps of the traffic


def tracer_pid(path: str) -> int:
    """Who listens on this socket; 0 where nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path):
            return 0
        return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def started_again(path: str, pid: int) -> None:
    """Wait until another than `pid` listens."""
    wait_for(lambda: tracer_pid(path) not in (0, pid))


def uncovered(running: Running, since: float) -> list[list[object]]:
    """Intervals of our node that end after `since`, as the aggregator tells them."""
    status = running.peer(AGGREGATOR).call("status", group=QUERY)
    return [interval for node, *interval in status["uncovered"] if node == NODE and interval[1] >= since]


def wrong(running: Running, port: int, truth: Truth, keys: set[str]) -> dict[str, object]:
    """Of these keys, what the store has not got as it was."""
    found = stored(running.store, port, NODE)
    return dict(difference({key: truth.bytes[key] for key in keys}, {key: found[key] for key in keys & found.keys()}))


def test_what_lives_through_a_killed_tracer_stays_exact_and_the_gap_is_told(running: Running) -> None:
    with connections(CONNECTIONS) as (sink, truth, clients):
        say(clients, 100)
        wait_for(lambda: not wrong(running, sink.port, truth, set(truth.bytes)))
        pid, at = tracer_pid(running.socket), time.time()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: tracer_pid(running.socket) != pid)
        say(clients, 200)
        for client in clients[:CLOSED]:
            client.close()
        closed_at = time.time()
        started_again(running.socket, pid)
        say(clients[CLOSED:], 300)

        lost = {key for client in clients[:CLOSED] for key in client.keys}
        wait_for(lambda: not wrong(running, sink.port, truth, set(truth.bytes) - lost))
        (gap,) = wait_for(lambda: uncovered(running, at))
        assert gap[0] <= at
        if closed_at <= gap[1]:  # what passed while nobody looked is not there, and not claimed
            assert wrong(running, sink.port, truth, lost).keys() == lost
        kept = next(node for node in read_only(str(running.store)).nodes if node.node == NODE)
        assert gap in [list(interval) for interval in kept.status["uncovered"]]


def test_killed_at_random_only_what_closes_in_a_reported_interval_is_lost(running: Running) -> None:
    chance, sink, truth, began = random.Random(7), Sink(), Truth(), time.time()
    live: list[Client] = []
    closed: dict[str, float] = {}  # key -> when it was closed, s since 1970
    kills = {60 * number + chance.randrange(60) for number in range(KILLS)}
    for step in range(60 * KILLS):
        time.sleep(PAUSE)
        live.append(Client(sink, truth))
        client = chance.choice(live)
        client.ask(chance.randint(8, 20_000), chance.randint(0, 20_000))
        if len(live) > 10:
            end(live.pop(chance.randrange(len(live))), closed)
        if step in kills:
            pid = tracer_pid(running.socket)
            os.kill(pid, signal.SIGKILL)
            for victim in live[:2]:
                end(victim, closed)
            del live[:2]
            started_again(running.socket, pid)
    for client in live:
        end(client, closed)
    sink.close()

    gaps = wait_for(lambda: found if len(found := uncovered(running, began)) >= KILLS else None)
    assert len(gaps) == KILLS
    covered = {key for key, at in closed.items() if not any(since <= at <= until for since, until, _ in gaps)}
    assert len(covered) > len(closed) / 3
    wait_for(lambda: not wrong(running, sink.port, truth, covered & truth.bytes.keys()))
    found = stored(running.store, sink.port, NODE)
    assert found.keys() <= truth.bytes.keys()
    for key in found.keys() - covered:  # never more than there was
        assert found[key][0] <= truth.bytes[key][0]
        assert found[key][1] <= truth.bytes[key][1] + 1


def end(client: Client, closed: dict[str, float]) -> None:
    """Close it, and note when."""
    client.close()
    closed.update(dict.fromkeys(client.keys, time.time()))


def say(clients: list[Client], size: int) -> None:
    """Each sends and receives another number of bytes."""
    for number, client in enumerate(clients):
        client.ask(size + number, 10 * size + number)
