"""A new collector's rows and those that the old one had."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.core.checkpoint import Columns
from cluster.core.match import match
from cluster.core.records import Flag
from cluster.core.wire import Final
from tests.core.books import check_edges, check_slots
from tests.core.stream import Talk, opened, rows

CLOSED, FOLDED, UNKNOWN = int(Flag.CLOSED), int(Flag.FOLDED), int(Flag.BYTES_UNKNOWN)


def resync(talk: Talk, *again: dict[str, int], instance: str = "t", stream: int = 2) -> None:
    talk.greet(stream=stream)
    talk.ok(0, opened=list(again), final=Final(talk.at, {}, (instance, 0)))


def test_a_row_with_a_cookie_goes_on_under_its_new_slot() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10, remote=2), opened(1, sent=1)])
    uid = int(talk.aggregate.state.nodes["n"].block.columns["uid"][0])
    resync(talk, opened(7, sport=40_000, cookie=100, sent=12, pid=99, local=0))
    row = rows(talk)[40_000]
    assert (row["total_sent_bytes"], row["pid"], row["local"], row["remote"]) == (12, 99, "process/curl", "container/web")
    block = talk.aggregate.state.nodes["n"].block
    assert block.used().tolist() == [7]
    assert block.columns["uid"][7] == uid
    talk.commit()
    stored = talk.store.read_only()
    check_slots(stored)
    assert sorted(zip(stored.rows.columns["flags"] & CLOSED, stored.rows.columns["sent"], strict=True)) == [(0, 12), (1, 1)]


@pytest.mark.parametrize(
    ("before", "after", "instance", "total"),
    [
        (opened(0, sent=10), opened(0, sent=4), "t", 14),  # a decrease
        (opened(0, sent=10), opened(0, sent=40), "other", 40),  # a cookie outlives the tracer
        (opened(0, sent=10, recv=5), opened(0, sent=10, recv=4), "t", 10),  # the byte of a FIN
        (opened(0, sent=10, cookie=0), opened(0, sent=40, cookie=0), "t", 40),
        (opened(0, sent=10, cookie=0), opened(0, sent=40, cookie=0), "other", 50),
        (opened(0, sent=10, cookie=0), opened(0, sent=40, cookie=0, pid=8), "t", 50),  # another process: another row
        (opened(0, sent=10, pid=0, flags=FOLDED), opened(0, sent=40, pid=0, flags=FOLDED), "t", 40),  # the same collector
        (opened(0, sent=10, pid=0, flags=FOLDED), opened(0, sent=40, pid=0, flags=FOLDED, cookie=9), "t", 50),  # its successor
        (opened(0, sent=10, flags=CLOSED), opened(0, sent=10, flags=CLOSED), "t", 10),  # a closed one that is told again
        (opened(0, sent=10, cookie=0, flags=CLOSED), opened(0, sent=40, cookie=0), "t", 50),  # a tuple that lives again
    ],
)
def test_what_a_new_collector_finds_again(before: dict[str, int], after: dict[str, int], instance: str, total: int) -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[before])
    talk.commit()
    resync(talk, after, instance=instance)
    talk.commit()
    columns = talk.store.read_only().rows.columns
    assert int((columns["sent"] + columns["base_sent"]).sum()) == total
    check_edges(talk.store.read_only())


def test_of_two_with_one_identity_the_closed_one_is_the_earlier() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=100, cookie=0)])
    again = opened(0, sent=30, cookie=0), opened(1, sport=40_000, sent=150, cookie=0, flags=CLOSED)
    resync(talk, *again)
    talk.commit()
    columns = talk.store.read_only().rows.columns
    assert int((columns["sent"] + columns["base_sent"]).sum()) == 180


def test_matching_is_exact_even_where_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.core.match._hash", lambda columns: np.zeros(len(columns["a"]), np.uint64))
    old: Columns = {"a": np.array([1, 1, 2, 3], np.uint32), "b": np.array([1, 1, 1, 1], np.uint64)}
    new: Columns = {"a": np.array([3, 1, 1, 1, 4], np.uint32), "b": np.array([1, 1, 1, 1, 1], np.uint64)}
    assert match(old, new).tolist() == [3, 0, 1, -1, -1]


def test_matching_finds_what_a_dict_finds() -> None:
    draw = np.random.default_rng(5)
    tables: list[Columns] = [{"a": draw.integers(0, 50, n), "b": draw.integers(0, 50, n).astype(np.uint16)} for n in (1_500, 2_000)]
    old, new = tables
    waiting: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(old["a"].tolist(), old["b"].tolist(), strict=True)):
        waiting.setdefault(key, []).append(index)
    expected = [waiting[key].pop(0) if waiting.get(key) else -1 for key in zip(new["a"].tolist(), new["b"].tolist(), strict=True)]
    assert match(old, new).tolist() == expected
