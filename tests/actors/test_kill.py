"""kill -9 on each actor, in turn and at random, under traffic: everything returns, and the store equals what the sockets counted."""

from __future__ import annotations

import os
import random
import signal

import pytest
from cluster.core.snapshot import Snapshot

from cluster.core import query
from cluster.stores.sqlite import read_only
from tests.actors.conftest import ROLES, Running, wait_for
from tests.traffic import Traffic

pytestmark = pytest.mark.ray


def stored(running: Running, port: int) -> dict[str, list[int]]:
    """What the store says of this port: seed key -> [sent, received], received less one where the row says that it may be one too high."""
    snapshot = Snapshot.of(read_only(str(running.store)))
    found: dict[str, list[int]] = {}
    for one in query.transactions(snapshot, query.Filter(port=port), "key", None):
        if one["total_sent_bytes"] or one["total_recv_bytes"]:
            total = found.setdefault(one["key"], [0, 0])
            total[0] += one["total_sent_bytes"]
            total[1] += one["total_recv_bytes"]
    return found


def difference(truth: dict[str, list[int]], found: dict[str, list[int]]) -> dict[str, tuple[list[int] | None, list[int] | None]]:
    """Where the two disagree, by more than the one byte of an unproven FIN that a received total may be too high."""
    keys = truth.keys() | found.keys()
    return {key: (truth.get(key), found.get(key)) for key in keys if not agrees(truth.get(key, [0, 0]), found.get(key, [0, 0]))}


def agrees(truth: list[int], found: list[int]) -> bool:
    """Sent to the byte; received to the byte, or one more for a FIN that no field of the kernel's shows."""
    return truth[0] == found[0] and 0 <= found[1] - truth[1] <= 1


def assert_totals(running: Running, traffic: Traffic) -> None:
    """The store comes to equal the truth."""
    last: dict[str, object] = {}

    def equal() -> bool:
        last.clear()
        last.update(difference(traffic.truth.bytes, stored(running, traffic.port)))
        return not last

    try:
        wait_for(equal)
    except AssertionError:
        raise AssertionError(
            f"{len(last)} of {len(traffic.truth.bytes)} keys differ (true, stored): {dict(list(last.items())[:5])}"
        ) from None


def await_more(traffic: Traffic, keys: int) -> None:
    """Let so many more keys carry bytes."""
    before = len(traffic.truth.bytes)
    wait_for(lambda: len(traffic.truth.bytes) >= before + keys)


def kill(running: Running, role: str) -> None:
    """SIGKILL the actor's process, and wait until another has taken its place."""
    pid = running.pid(role)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: running.pid(role) != pid)


@pytest.mark.parametrize("role", ROLES)
def test_an_actor_that_is_killed_comes_back_and_totals_stay_exact(running: Running, role: str) -> None:
    with Traffic(seed=len(role)) as traffic:
        wait_for(lambda: len(stored(running, traffic.port)) > 20)
        kill(running, role)
        await_more(traffic, 50)
        traffic.stop()
        assert_totals(running, traffic)


@pytest.mark.slow
def test_random_kills(running: Running) -> None:
    chance = random.Random(7)
    with Traffic(seed=7) as traffic:
        for _ in range(6):
            await_more(traffic, chance.randint(20, 200))
            os.kill(running.pid(chance.choice(ROLES)), signal.SIGKILL)
        traffic.stop()
        assert_totals(running, traffic)
