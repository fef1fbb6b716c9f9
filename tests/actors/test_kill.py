"""kill -9 on each actor, in turn and at random, under traffic: everything returns, and the store equals what the sockets counted."""

from __future__ import annotations

import os
import random
import signal

import pytest

from tests.actors.conftest import ROLES, Running
from tests.actors.waiting import wait_for
from tests.traffic import Traffic

pytestmark = pytest.mark.ray


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
        wait_for(lambda: running.seen(traffic) > 20)
        kill(running, role)
        await_more(traffic, 50)
        traffic.stop()
        running.assert_totals(traffic)


@pytest.mark.slow
def test_random_kills(running: Running) -> None:
    chance = random.Random(7)
    with Traffic(seed=7) as traffic:
        for _ in range(6):
            await_more(traffic, chance.randint(20, 200))
            os.kill(running.pid(chance.choice(ROLES)), signal.SIGKILL)
        traffic.stop()
        running.assert_totals(traffic)
