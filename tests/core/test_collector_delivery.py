from __future__ import annotations

import random
from typing import Any

import pytest

from cluster.core.collector import REFUSALS, Collector, CollectorLimits
from cluster.core.records import COUNTER_LIMIT, Flag
from cluster.core.wire import PART_LIMIT, Answer, unpack_part
from tests.core.receiver import Receiver, drain, greeted, nobody
from tests.core.replies import EXAMPLE, Record, ours, record, reply


def many(count: int, seed: int = 1) -> list[Record]:
    """Records with nothing in common that could be narrowed."""
    chance = random.Random(seed)
    return [
        ours(
            pid=chance.randrange(1 << 32),
            family=1,
            net_ns=chance.randrange(1 << 32),
            source=":".join(f"{chance.randrange(1 << 16):x}" for _ in range(8)),
            dest=":".join(f"{chance.randrange(1 << 16):x}" for _ in range(8)),
            sport=chance.randrange(1 << 16),
            dport=chance.randrange(1 << 16),
            cookie=chance.randrange(1 << 64),
            monotonic_sent_bytes=chance.randrange(1 << 60),
            monotonic_recv_bytes=chance.randrange(1 << 60),
            monotonic_retransmits=chance.randrange(1 << 31),
            last_update_epoch=chance.randrange(1 << 63),
        )
        for _ in range(count)
    ]


def long_names(pid: int) -> str:
    return f"container/{pid:0290}"


def test_parts_hold_what_ray_passes_inline_whatever_the_data() -> None:
    collector, receiver = greeted(), Receiver()
    collector.node = "\N{COLLISION SYMBOL}" * 253
    collector.on_metadata("long", {("10.0.0.1", "x" * 100_000): {}})
    assert collector.status()["metadata_refused"] == 1
    records = many(5_000)
    collector.on_metadata("docker", {("10.0.0.1", str(index)): {"name": "x" * 29_000} for index in range(20)})
    collector.on_reply(reply(*records, instance="i"), "", 1.0, long_names)
    assert drain(collector, receiver) > 20  # the receiver refuses a larger part
    assert len(receiver.open_rows()) == 5_000
    assert receiver.totals()[0] == sum(each["monotonic_sent_bytes"] for each in records)
    assert len(receiver.metadata) == 20
    for each in records:
        each["monotonic_sent_bytes"] += 1 << 60
    collector.on_reply(reply(*records, instance="i"), "", 2.0, long_names)
    drain(collector, receiver)
    assert receiver.totals()[0] == sum(each["monotonic_sent_bytes"] for each in records)


def test_parts_are_well_filled() -> None:
    collector = greeted()
    collector.on_reply(reply(*(record(pid=1 + index, sport=index) for index in range(30_000))), "", 1.0, nobody)
    sizes = []
    while (raw := collector.next_part()) is not None:
        sizes.append(len(raw))
        collector.on_answer(Answer("ok", 1, stream=7, applied=0, durable=0))
    assert sum(sizes[1:-1]) / len(sizes[1:-1]) > 0.8 * PART_LIMIT


def test_the_same_part_until_it_is_answered() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_reply(reply(*many(3_000), instance="i"), "", 1.0, nobody)
    first = collector.next_part()
    assert first == collector.next_part()
    assert first is not None
    collector.on_answer(receiver.receive(first, 7))
    assert collector.next_part() != first


def test_an_answer_that_comes_twice_moves_nothing_further() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_reply(reply(*many(5_000), instance="i"), "", 1.0, nobody)
    raw = collector.next_part()
    assert raw is not None
    answer = receiver.receive(raw, 7)
    collector.on_answer(answer)
    collector.on_answer(answer)
    raw = collector.next_part()
    assert raw is not None
    assert unpack_part(raw).part == 1
    drain(collector, receiver)
    assert len(receiver.open_rows()) == 5_000


def test_a_late_answer_that_skips_a_part_is_put_right_by_expect() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_reply(reply(*many(5_000), instance="i"), "", 1.0, nobody)
    raw = collector.next_part()
    assert raw is not None
    late = receiver.receive(raw, 7)
    collector.on_answer(late)
    collector.next_part()  # sent, and lost
    collector.on_answer(late)
    drain(collector, receiver)
    assert len(receiver.open_rows()) == 5_000


def test_a_late_answer_to_the_last_part_does_not_skip_it() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_reply(reply(EXAMPLE), "", 1.0, nobody)
    drain(collector, receiver)
    collector.on_reply(reply(EXAMPLE, record(sport=1)), "", 2.0, nobody)
    collector.next_part()  # sent, and lost
    collector.on_answer(Answer("ok", 1, stream=7, applied=0, durable=0))  # of the part before
    drain(collector, receiver)
    assert len(receiver.open_rows()) == 2


def test_after_an_aggregators_restart_what_is_not_durable_is_said_again() -> None:
    collector, receiver = greeted(), Receiver()
    sent = [100, 200, 300, 400]
    for at, value in enumerate(sent):
        collector.on_reply(reply(record(monotonic_sent_bytes=value), record(sport=at)), "", float(at), nobody)
        drain(collector, receiver, durable=at == 0)
    assert collector.next_part() is None
    again = Receiver()
    collector.on_answer(Answer("hello", 2))
    assert not collector.greeted
    assert collector.next_part() is None
    collector.greet(Answer("ok", 2, incarnation=9, stream=7, applied=0, durable=0, expect=1))
    again.applied, again.rows = 0, {0: {**receiver.rows[0], "sent": 100, "base": [0, 0, 0]}, 1: dict(receiver.rows[1])}
    while (raw := collector.next_part()) is not None:
        assert unpack_part(raw).incarnation == 9
        answer = again.receive(raw, 7)
        collector.on_answer(Answer(**{name: getattr(answer, name) for name in ("verdict", "stream", "applied", "expect")}, aggregator=2))
    assert {slot: row["sent"] for slot, row in again.rows.items()} == {slot: row["sent"] for slot, row in receiver.rows.items()}


def test_an_older_aggregator_is_not_heard() -> None:
    collector = greeted()
    collector.greet(Answer("ok", 5, incarnation=2, stream=7))
    collector.on_answer(Answer("superseded", 4))
    collector.on_answer(Answer("hello", 4))
    collector.greet(Answer("ok", 4, incarnation=1, stream=7))
    assert (collector.superseded, collector.greeted, collector.incarnation) == (False, True, 2)
    collector.on_answer(Answer("superseded", 5))
    assert collector.superseded
    assert not collector.wants_poll()
    assert collector.next_part() is None


def test_answers_of_another_stream_are_not_heard() -> None:
    collector = greeted()
    collector.on_reply(reply(EXAMPLE), "", 1.0, nobody)
    raw = collector.next_part()
    collector.on_answer(Answer("ok", 1, stream=8, applied=0, durable=0))
    collector.on_answer(Answer("expect", 1, stream=8, expect=40))
    assert collector.next_part() == raw
    assert collector.stream == 7


def test_nothing_is_polled_or_said_before_the_hello_is_answered() -> None:
    collector = Collector("node", 7)
    assert not collector.wants_poll()
    collector.on_answer(Answer("wait", 1))
    assert not collector.wants_poll()
    collector.greet(Answer("ok", 1, incarnation=1, stream=7))
    assert collector.wants_poll()


def test_back_pressure_stops_the_polls_until_something_is_durable() -> None:
    collector, receiver = greeted(kept_bytes=10_000), Receiver()
    collector.on_reply(reply(*many(500), instance="i"), "", 1.0, nobody)
    assert not collector.wants_poll()
    drain(collector, receiver, durable=False)
    assert not collector.wants_poll()
    receiver.durable = receiver.applied
    collector.on_answer(receiver.answer(7))
    assert collector.wants_poll()
    assert collector.status()["backpressure"] == 2


def test_a_store_that_was_put_back_gets_everything_in_a_new_stream() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_metadata("docker", {("10.0.0.1", "x"): {"name": "a"}})
    for at in range(3):
        collector.on_reply(
            reply(ours(monotonic_sent_bytes=100 + at), ours(sport=at), instance="i", reply_id=str(at)), "", float(at), nobody
        )
        drain(collector, receiver)
    collector.on_reply(reply(ours(state="closed", close_id=1, monotonic_sent_bytes=500), instance="i", reply_id="4"), "", 4.0, nobody)
    collector.next_part()
    collector.on_answer(Answer("expect", 1, stream=7, expect=0))
    assert collector.stream != 7
    assert not collector.greeted
    collector.greet(Answer("ok", 1, incarnation=2, stream=collector.stream))
    again = Receiver()
    drain(collector, again)
    assert again.finals[0].closed_through == ("i", 1)
    assert again.metadata == {("docker", "10.0.0.1", "x"): {"name": "a"}}
    assert sorted((row["sport"], row["sent"], bool(row["flags"] & Flag.CLOSED)) for row in again.rows.values()) == [
        (0, EXAMPLE["monotonic_sent_bytes"], False),
        (1, EXAMPLE["monotonic_sent_bytes"], False),
        (2, EXAMPLE["monotonic_sent_bytes"], False),
        (EXAMPLE["sport"], 500, True),
    ]
    assert collector.ack() == "4"
    assert collector.status()["streams_begun"] == 1


def test_a_refused_part_is_sent_again_from_the_start_of_its_sequence_and_told() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_reply(reply(*many(3_000), instance="i"), "", 1.0, nobody)
    first = collector.next_part()
    assert first is not None
    collector.on_answer(receiver.receive(first, 7))
    collector.next_part()
    collector.on_answer(Answer("refused", 1, stream=7, reason="too many parts"))
    assert collector.next_part() == first
    assert "too many parts" in collector.status()["notes"][-1]


def closed(count: int, close_id: int, **fields: Any) -> list[Record]:
    return [
        ours(
            cookie=close_id + index,
            close_id=close_id + index,
            sport=40_000 + index % 20_000,
            state="closed",
            monotonic_sent_bytes=7,
            **fields,
        )
        for index in range(count)
    ]


def begun(rows: int) -> tuple[Collector, Receiver]:
    """After the first sequence, which folds nothing."""
    collector, receiver = greeted(rows=rows), Receiver()
    collector.on_reply(reply(instance="i"), "", 0.0, nobody)
    drain(collector, receiver)
    return collector, receiver


def test_beyond_the_limit_closed_connections_are_folded_and_no_byte_is_lost() -> None:
    collector, receiver = begun(100)
    open_now = [ours(cookie=10**6 + index, sport=index, monotonic_sent_bytes=1) for index in range(40)]
    served = [each | {"sport": 53, "dport": each["sport"]} for each in closed(1_000, 1_001, direction=1)]
    collector.on_reply(reply(*open_now, *closed(1_000, 1, direction=2), *served, instance="i"), "", 1.0, nobody)
    drain(collector, receiver, durable=False)
    rows = receiver.all_rows()
    folds = [row for row in rows if row["flags"] & Flag.FOLDED]
    assert {(row["sport"], row["dport"], row["pid"], row["cookie"]) for row in folds} == {(0, 53, 0, 8), (53, 0, 0, 8)}
    assert receiver.totals()[0] == 40 + 2_000 * 7
    assert len(receiver.open_rows()) - len(folds) == 40, "open rows are never folded"
    assert collector.status()["folded"] == 2_000 - 60
    assert receiver.finals[-1].closed_through == ("i", 2_000)


def test_a_fold_row_goes_on_like_any_other() -> None:
    collector, receiver = begun(1)
    for poll in range(4):
        collector.on_reply(reply(ours(cookie=10**6), *closed(10, 1 + 10 * poll, direction=2), instance="i"), "", float(poll), nobody)
        drain(collector, receiver)
    (fold,) = (row for row in receiver.all_rows() if row["flags"] & Flag.FOLDED)
    assert (fold["sent"], fold["generation"], fold["flags"]) == (4 * 10 * 7, 0, Flag.FOLDED)


def test_even_fold_rows_are_bounded() -> None:
    collector, receiver = begun(50)
    records = [each | {"dest": f"10.0.{index // 200}.{index % 200}", "direction": 2} for index, each in enumerate(closed(2_000, 1))]
    for poll in range(10):
        collector.on_reply(reply(*records[200 * poll : 200 * poll + 200], instance="i"), "", float(poll), nobody)
        drain(collector, receiver)
    assert receiver.totals()[0] == 2_000 * 7
    assert len(receiver.rows) < 50 * 2 + 200 + 10


@pytest.mark.parametrize("polls", [1, 2], ids=["in one poll", "one poll each"])
@pytest.mark.parametrize("pids", [[1, 1], [1, 2]], ids=["one owner", "two owners"])
def test_a_fold_row_has_an_owner_only_where_all_that_it_sums_have_the_same(pids: list[int], polls: int) -> None:
    collector, receiver = begun(0)
    records = [each | {"pid": pid, "direction": 2} for each, pid in zip(closed(2, 1), pids, strict=True)]
    for said in (records,) if polls == 1 else (records[:1], records[1:]):
        collector.on_reply(reply(*said, instance="i"), "", 1.0, "process/{}".format)
        drain(collector, receiver)
    (fold,) = receiver.all_rows()
    assert fold["local"] == ("process/1" if pids == [1, 1] else "")


def test_the_bytes_of_a_fold_row_are_unknown_only_while_those_of_all_are() -> None:
    collector, receiver = begun(0)
    first, second, third = (each | {"direction": 2} for each in closed(3, 1))
    for one, flags in (
        (first | {"bytes": "unknown"}, Flag.FOLDED | Flag.BYTES_UNKNOWN),
        (second, Flag.FOLDED),
        (third | {"bytes": "unknown", "recv_exact": False}, Flag.FOLDED | Flag.RECV_INEXACT),
    ):
        collector.on_reply(reply(one, instance="i"), "", 1.0, nobody)
        drain(collector, receiver)
        (fold,) = receiver.all_rows()
        assert fold["flags"] == flags


def test_limits_have_the_defaults_that_the_settings_document() -> None:
    assert CollectorLimits() == CollectorLimits(rows=200_000, kept_bytes=32_000_000, absent_after=120.0, zero_is="new")


def test_what_is_refused_again_and_again_is_said_whole_in_a_new_stream() -> None:
    collector, receiver = greeted(), Receiver()
    for at in (1.0, 2.0):
        drain(collector, receiver)
        collector.on_reply(reply(EXAMPLE, *([record(sport=1)] * int(at - 1))), "", at, nobody)
    refuse(collector)
    assert collector.stream == 8
    collector.greet(Answer("ok", 1, incarnation=2, stream=8))
    drain(collector, again := Receiver())
    assert len(again.open_rows()) == 2


def test_the_very_first_sequence_is_said_again_as_it_was() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_reply(reply(EXAMPLE), "", 1.0, nobody)
    refuse(collector)
    assert collector.stream == 7
    drain(collector, receiver)
    assert len(receiver.open_rows()) == 1


def refuse(collector: Collector) -> None:
    for _ in range(REFUSALS):
        assert collector.next_part() is not None
        collector.on_answer(Answer("refused", 1, stream=7, reason="no"))


def test_a_new_stream_numbers_its_rows_densely() -> None:
    collector, receiver = greeted(), Receiver()
    collector.on_reply(reply(*(ours(cookie=1 + index, sport=index) for index in range(500)), instance="i"), "", 1.0, "process/{}".format)
    drain(collector, receiver)
    closes = [ours(cookie=1 + index, sport=index, state="closed", close_id=1 + index) for index in range(495)]
    collector.on_reply(reply(*closes, instance="i"), "", 2.0, "process/{}".format)
    drain(collector, receiver)
    collector.on_answer(Answer("expect", 1, stream=7, expect=0))
    collector.greet(Answer("ok", 1, incarnation=2, stream=8))
    again = Receiver()
    drain(collector, again)
    assert sorted(again.rows) == [0, 1, 2, 3, 4]
    assert {(row["sport"], row["local"]) for row in again.rows.values()} == {(port, "process/14931") for port in range(495, 500)}
    collector.on_reply(reply(*(ours(cookie=1 + index, sport=index) for index in range(495, 502)), instance="i"), "", 3.0, nobody)
    drain(collector, again)
    assert sorted(again.rows) == [0, 1, 2, 3, 4, 5, 6]


def test_a_fold_row_that_is_full_stops_and_does_not_begin_anew() -> None:
    collector, receiver = begun(0)
    for number in (1, 2, 3):
        big = ours(cookie=number, close_id=number, state="closed", direction=2, monotonic_sent_bytes=2**60, monotonic_retransmits=2**31)
        collector.on_reply(reply(big, instance="i"), "", float(number), nobody)
        drain(collector, receiver)
    (fold,) = receiver.all_rows()
    assert (fold["sent"], fold["retransmits"], fold["generation"]) == (COUNTER_LIMIT, 2**32 - 1, 0)


def test_the_first_sequence_folds_nothing_since_the_aggregate_may_hold_its_rows() -> None:
    collector, receiver = greeted(rows=0), Receiver()
    collector.on_reply(reply(*closed(5, 1, direction=2), instance="i"), "", 1.0, nobody)
    drain(collector, receiver)
    assert len(receiver.all_rows()) == 5
    assert collector.status()["folded"] == 0


def test_how_the_sources_of_metadata_are_travels_with_the_status() -> None:
    collector = greeted()
    collector.on_sources({"kubelet": {"state": "failed", "reason": "x" * 10_000, "insecure_tls": True}, "node": {"state": "ok"}})
    collector.on_reply(reply(), "1:1", 1.0, nobody)
    final = unpack_part(collector.next_part() or b"").final
    assert final is not None
    kubelet = {"state": "failed", "reason": "x" * 600, "insecure_tls": True}
    assert final.status["metadata"] == {"kubelet": kubelet, "node": {"state": "ok"}}
