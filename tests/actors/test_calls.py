"""Calls to a real actor that is slow, that dies, and that is not there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import ray

from actors.calls import Line, Peer, ask_all
from actors.deploy import end, ensure
from actors.options import INGEST, QUERY, singleton_options
from cluster.core.errors import ActorError, ActorUnavailable, StoreBusy
from tests.actors.conftest import Running
from tests.actors.waiting import wait_for

pytestmark = pytest.mark.ray
NAME = "slow"


class Slow:
    """Works when it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self._go = threading.Event()

    def work(self) -> int:
        """The number of this call, once it is let go."""
        self.calls += 1
        self._go.wait()
        return self.calls

    def go(self) -> tuple[int, int]:
        """Let it go: calls so far, and the pid."""
        self._go.set()
        return self.calls, os.getpid()

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def refuse(self) -> None:
        """An error of ours."""
        raise StoreBusy("somebody has it")

    def stumble(self) -> None:
        """An error of nobody's."""
        raise KeyError("lost")


@pytest.fixture
def slow(running: Running) -> Iterator[Peer]:
    ensure(Slow, singleton_options(NAME), {INGEST: 1, QUERY: 2}, ())
    peer = running.peer(NAME)
    peer.call("pid", group=QUERY)
    yield peer
    end(NAME)
    wait_for(lambda: NAME not in ray.util.list_named_actors())


def test_a_call_that_timed_out_is_waited_for_and_not_sent_again(slow: Peer) -> None:
    line = Line(NAME)
    for _ in range(3):
        with pytest.raises(ActorUnavailable, match=r"no answer within 0\.1 s"):
            line.ask("work", group=INGEST, timeout=0.1)
    slow.call("go", group=QUERY)
    assert line.ask("work", group=INGEST, timeout=30.0) == 1
    assert slow.call("go", group=QUERY)[0] == 1


def test_a_call_whose_actor_died_is_sent_again_to_the_next(slow: Peer) -> None:
    line = Line(NAME, 0.5)
    with pytest.raises(ActorUnavailable):
        line.ask("work", group=INGEST)
    pid = slow.call("pid", group=QUERY)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: slow.call("go", group=QUERY)[1] != pid)
    assert wait_for(lambda: line.ask("work", group=INGEST)) == 1


def test_errors_say_what_they_are(slow: Peer) -> None:
    with pytest.raises(StoreBusy, match="somebody has it"):
        slow.call("refuse")
    with pytest.raises(ActorError, match=f"actor {NAME}: KeyError"):
        slow.call("stumble")
    with pytest.raises(ActorUnavailable, match=r"actor nobody: not there"):
        Peer("nobody").call("pid")


def test_asking_many_waits_once_and_answers_for_each(slow: Peer) -> None:
    busy, free, absent = Line(NAME), Line(NAME), Line("nobody")
    with pytest.raises(ActorUnavailable):
        busy.ask("work", group=INGEST, timeout=0.1)
    answers = ask_all({"busy": busy, "free": free, "absent": absent}, "pid", group=QUERY, timeout=2.0)
    assert isinstance(answers["busy"], ActorUnavailable)
    assert isinstance(answers["absent"], ActorUnavailable)
    assert answers["free"] == slow.call("pid", group=QUERY)
