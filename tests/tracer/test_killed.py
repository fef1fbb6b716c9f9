"""kill -9: the next tracer on the same socket tells what the last one knew, once and exactly, and when nobody looked."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.tracer.serving import DEADLINE, Row, Served, Watch, ends
from tests.tracer.test_closes_live import Pair, move

CONNECTIONS = 60
KILLS = 4
PAUSE = 0.01  # s between two connections
Bytes = tuple[int, int]


@pytest.fixture
def path(place: Path) -> Iterator[Path]:
    """A socket of a tracer that is to be killed."""
    made = place / "killed.sock"
    yield made
    for left in place.glob("killed.sock*"):
        left.unlink()


@contextmanager
def tracing(path: Path, *options: str, prefix: tuple[str, ...] = ()) -> Iterator[Served]:
    with Served(path, *options, prefix=prefix) as served:
        yield served


def kill(served: Served, number: signal.Signals = signal.SIGKILL) -> None:
    """End a tracer, and wait until it is gone."""
    served.process.send_signal(number)
    served.process.wait(DEADLINE)


def has_read(served: Served, count: int) -> None:
    """Wait until the tracer has read so many deaths. No reply tells of them."""
    deadline = time.monotonic() + DEADLINE
    while served.telemetry().get("destroyed", 0) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def talk(pair: Pair, out: int, back: int) -> None:
    move(pair.client, pair.server, out)
    move(pair.server, pair.client, back)


def told(rows: dict[int, Row], pair: Pair) -> list[tuple[int, int, bool]]:
    """What the closed rows of a pair's client, then of its server, say: sent, received, exact."""
    both = ((*pair.near, *pair.far), (*pair.far, *pair.near))
    fitting = [row for end in both for row in rows.values() if ends(row) == end]
    return [(row["monotonic_sent_bytes"], row["monotonic_recv_bytes"], row["recv_exact"]) for row in fitting]


def pairs(stack: ExitStack, count: int) -> list[Pair]:
    made = [Pair(socket.AF_INET, "127.0.0.1") for _ in range(count)]
    for pair in made:
        stack.callback(pair.close)
    return made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_closed_before_the_end_is_told_once_and_exactly_by_the_next(path: Path, number: signal.Signals) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(tracing(path))
        known = pairs(stack, CONNECTIONS)
        watch = Watch(first)
        unknown = pairs(stack, CONNECTIONS)  # no reply ever told of these while they were open
        for size, pair in enumerate([*known, *unknown], 1):
            talk(pair, size, 2 * size)
            pair.close()
        has_read(first, 4 * CONNECTIONS)
        instance = watch.ack.rpartition(".")[0]
        kill(first, number)
        second = stack.enter_context(tracing(path))
        watch.served = second
        watch.poll()
        for size, pair in enumerate([*known, *unknown], 1):
            assert told(watch.closed, pair) == [(size, 2 * size, True), (2 * size, size, True)]
        assert watch.ack.rpartition(".")[0] == instance  # to its clients it is the same tracer
        for row in watch.closed.values():  # the owner was known to the first one
            if ends(row) in {(*pair.near, *pair.far) for pair in known}:
                assert row["pid"]
        watch.poll()  # acknowledges
        kill(second, number)
        watch.served = stack.enter_context(tracing(path))
        watch.poll()  # fails where one is told again


def test_what_was_told_and_not_acknowledged_has_the_same_close_ids(path: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(tracing(path))
        (pair,) = pairs(stack, 1)
        first.reply("one")
        first.reply("other")
        pair.close()
        has_read(first, 2)
        ids = close_ids(first.reply("one"), pair)
        assert len(ids) == 2
        kill(first)
        second = stack.enter_context(tracing(path))
        after = second.reply("one")
        assert close_ids(after, pair) == close_ids(second.reply("other"), pair) == ids
        assert not close_ids(second.reply("one", after["reply_id"]), pair)
        kill(second)
        third = stack.enter_context(tracing(path))
        assert not close_ids(third.reply("one"), pair)
        assert close_ids(third.reply("other"), pair) == ids


def close_ids(reply: dict[str, list[Row]], pair: Pair) -> set[tuple[int, int]]:
    """(close_id, cookie) of a pair's closed rows."""
    both = ((*pair.near, *pair.far), (*pair.far, *pair.near))
    return {(row["close_id"], row["cookie"]) for row in reply["connections"] if row["state"] == "closed" and ends(row) in both}


def test_what_closes_while_no_tracer_runs_is_closed_as_last_seen_and_the_interval_is_named(path: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(tracing(path))
        known, lives, gone = pairs(stack, 3)
        for pair in (known, lives):
            talk(pair, 100, 10)
        gone.close()
        watch = Watch(first)
        kill(first)
        since = time.time()
        talk(known, 7, 7)
        talk(lives, 7, 7)
        known.close()
        (never,) = pairs(stack, 1)
        never.close()
        until = time.time()
        second = stack.enter_context(tracing(path))
        watch.served = second
        watch.until(lambda: len(told(watch.closed, known)) == 2)
        assert [one[:2] for one in told(watch.closed, known)] == [(100, 10), (10, 100)]
        assert not told(watch.closed, never)
        assert not told(watch.closed, lives)
        assert watch.end(lives.near, lives.far)["monotonic_sent_bytes"] == 107
        (interval,) = second.reply()["uncovered"]
        assert interval[0] <= since <= until <= interval[1]
        kill(second)
        third = stack.enter_context(tracing(path))
        assert third.get("/status")[1]["uncovered"][0] == interval
        assert len(third.reply()["uncovered"]) == 2


def test_killed_at_random_under_traffic(path: Path) -> None:
    chance = random.Random(5)
    with ExitStack() as stack:
        served = stack.enter_context(tracing(path))
        watch, live = Watch(served), list[tuple[Pair, int]]()
        lives: list[tuple[Pair, int, float]] = []  # with the size, and when it was closed, s since 1970
        kills = {120 * number + chance.randrange(20, 100) for number in range(KILLS)}
        for step in range(120 * KILLS):
            time.sleep(PAUSE)
            if step in kills:
                served.process.kill()
                lives += [end(pair, size) for pair, size in live[:3]]  # while it dies, and is dead
                del live[:3]
                served.process.wait(DEADLINE)
                served = watch.served = stack.enter_context(tracing(path))
            (pair,) = pairs(stack, 1)
            talk(pair, step + 1, 3 * step + 1)
            live.append((pair, step))
            while len(live) > 10:
                lives.append(end(*live.pop(chance.randrange(len(live)))))
            if chance.random() < 0.05:
                watch.poll()
        lives += [end(pair, size) for pair, size in live]
        watch.poll()
        intervals = served.reply()["uncovered"]
        assert len(intervals) == KILLS
        covered = [(pair, size) for pair, size, at in lives if not any(since <= at <= until for since, until in intervals)]
        assert len(covered) > len(lives) / 3
        watch.until(lambda: all(len(told(watch.closed, pair)) == 2 for pair, _ in covered))
        for pair, size in covered:
            (sent, received, exact), (back, out, also) = told(watch.closed, pair)
            assert (sent, back) == (size + 1, 3 * size + 1)
            assert received - back in ((0,) if exact else (0, 1))
            assert out - sent in ((0,) if also else (0, 1))


def end(pair: Pair, size: int) -> tuple[Pair, int, float]:
    pair.close()
    return pair, size, time.time()


def test_without_room_for_a_journal_it_serves_and_says_so_and_the_next_is_another_instance(path: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(tracing(path, prefix=("prlimit", "--fsize=64")))
        before = first.reply()
        status = first.get("/status")[1]
        assert not status["journal"]["kept"]
        assert "closes that a killed tracer has not told yet" in {lack["what"] for lack in status["missing"]}
        kill(first)
        assert [one.name for one in path.parent.glob(path.name + "*")] == [path.name]
        second = stack.enter_context(tracing(path))
        assert second.reply()["instance"] != before["instance"]
        assert second.get("/status")[1]["journal"]["kept"]


def test_a_journal_of_garbage_is_refused_and_replaced(path: Path) -> None:
    for suffix in ("a", "b"):
        path.with_name(f"{path.name}.journal-{suffix}").write_bytes(b"\x00\xff garbage" * 1_000)
    with tracing(path) as served:
        status = served.get("/status")[1]
        assert status["journal"]["refused"] == {"not a journal": 2}
        assert "its journal could not be used: not a journal" in {lack["why"] for lack in status["missing"]}
        served.reply()
        assert served.get("/status")[1]["journal"]["kept"]


def test_a_tracer_without_clients_leaves_nothing_behind(path: Path) -> None:
    with tracing(path) as served:
        assert served.get("/status")[0] == 200
    assert not list(path.parent.glob(path.name + "*"))
