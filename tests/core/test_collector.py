from __future__ import annotations

from typing import Any

import pytest

from cluster.core.collector import Collector
from cluster.core.errors import SourceMalformed
from cluster.core.records import Flag
from cluster.core.wire import Answer
from tests.core.receiver import Receiver, Scene, drain, nobody
from tests.core.replies import EXAMPLE, ours, record, reply


def test_bytes_that_become_known_are_known_at_once() -> None:
    scene = Scene()
    scene.poll(ours(type=1, bytes="unknown", monotonic_sent_bytes=0, monotonic_recv_bytes=0))
    assert scene.only["flags"] == Flag.BYTES_UNKNOWN
    scene.poll(ours(type=1, monotonic_sent_bytes=70, monotonic_recv_bytes=0))
    assert (scene.only["flags"], scene.only["sent"]) == (0, 70)
    assert scene.poll(ours(type=1, monotonic_sent_bytes=70, monotonic_recv_bytes=0)) == 0


def test_a_connection_opens_grows_and_is_not_said_again_while_it_rests() -> None:
    scene = Scene()
    scene.poll(record(monotonic_sent_bytes=10))
    assert (scene.only["sent"], scene.only["source"], scene.only["dest"], scene.only["dport"]) == (10, "172.17.0.2", "172.17.0.5", 53)
    assert scene.poll(record(monotonic_sent_bytes=10), record(sport=1)) == 1
    assert scene.poll(record(monotonic_sent_bytes=30, last_update_epoch=99), record(sport=1)) == 1
    assert scene.poll(record(monotonic_sent_bytes=30), record(sport=1)) == 0
    assert {row["sent"] for row in scene.receiver.open_rows()} == {30, EXAMPLE["monotonic_sent_bytes"]}
    assert scene.receiver.rows[0]["last_update"] == 99


def test_the_first_good_poll_is_said_even_when_it_is_empty() -> None:
    scene = Scene()
    assert scene.poll() == 1
    assert scene.receiver.applied == 0


def test_the_status_alone_is_said_every_few_seconds() -> None:
    scene = Scene()
    assert [scene.poll(EXAMPLE) for _ in range(12)] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert scene.receiver.finals[-1].status["polls"] == 11


@pytest.mark.parametrize("lower", ["monotonic_sent_bytes", "monotonic_recv_bytes", "monotonic_retransmits"])
def test_any_decrease_begins_a_generation_of_all_three(lower: str) -> None:
    scene = Scene()
    before = {"monotonic_sent_bytes": 100, "monotonic_recv_bytes": 200, "monotonic_retransmits": 3}
    scene.poll(record(**before))
    scene.poll(record(**{**before, lower: 1}))
    assert scene.only["generation"] == 1
    assert scene.only["base"] == [100, 200, 3]


def test_another_instance_begins_a_generation_of_rows_without_a_cookie_only() -> None:
    scene = Scene()
    scene.poll(record(monotonic_sent_bytes=100), record(monotonic_sent_bytes=50, cookie=9), peer="1:1")
    scene.poll(record(monotonic_sent_bytes=120), record(monotonic_sent_bytes=60, cookie=9), peer="2:2")
    assert [(row["base"][0], row["sent"]) for row in scene.receiver.all_rows()] == [(100, 120), (0, 60)]


def test_a_row_that_was_absent_when_the_instance_changed_begins_a_generation_when_it_is_back() -> None:
    scene = Scene()
    scene.poll(record(monotonic_sent_bytes=100), peer="1:1")
    scene.poll(peer="2:2")
    scene.poll(record(monotonic_sent_bytes=120), peer="2:2")
    assert (scene.only["base"][0], scene.only["sent"]) == (100, 120)


def test_a_byte_that_may_be_a_fin_waits_until_it_is_settled() -> None:
    scene = Scene()
    for recv, exact, said in (
        (2000, True, 2000),
        (2001, False, 2000),
        (2001, False, 2000),
        (2000, True, 2000),
        (2001, True, 2001),
        (2500, False, 2499),
        (2499, True, 2499),
    ):
        scene.poll(ours(monotonic_recv_bytes=recv, recv_exact=exact), instance="i")
        assert scene.only["recv"] == said
    scene.poll(ours(monotonic_recv_bytes=2501, recv_exact=False, state="closed", close_id=1), instance="i")
    assert (scene.only["generation"], scene.only["recv"]) == (0, 2501)
    assert scene.only["flags"] == Flag.CLOSED | Flag.RECV_INEXACT


def test_another_pid_is_another_row_without_a_cookie_and_an_attribute_with_one() -> None:
    scene = Scene()
    scene.poll(record(pid=1), record(pid=2), ours(pid=0))
    assert len(scene.receiver.all_rows()) == 3
    scene.owners[3] = "unit/ssh.service"
    scene.poll(record(pid=1), record(pid=2), ours(pid=3))
    assert len(scene.receiver.all_rows()) == 3
    assert scene.receiver.rows[2]["pid"] == 3
    assert scene.receiver.rows[2]["local"] == "unit/ssh.service"


@pytest.mark.parametrize(
    "fields",
    [{"net_ns": 1}, {"type": 0}, {"source": "10.0.0.9"}, {"dest": "10.0.0.9"}, {"sport": 1}, {"dport": 1}, {"pid": 1}, {"cookie": 1}],
    ids=lambda fields: next(iter(fields)),
)
def test_what_tells_rows_apart(fields: dict[str, Any]) -> None:
    scene = Scene()
    scene.poll(EXAMPLE, record(**fields))
    assert len(scene.receiver.open_rows()) == 2


def test_of_two_records_of_one_row_the_greater_counts() -> None:
    scene = Scene()
    scene.poll(record(monotonic_sent_bytes=10), record(monotonic_sent_bytes=900), record(monotonic_sent_bytes=20))
    assert scene.only["sent"] == 900
    scene.poll(record(monotonic_sent_bytes=25))  # it was a reuse between two polls: nothing is lost
    assert (scene.only["base"][0], scene.only["sent"]) == (900, 25)
    assert scene.collector.status()["duplicates"] == 2


def test_a_record_open_and_closed_in_one_reply_is_closed() -> None:
    scene = Scene()
    scene.poll(ours(monotonic_sent_bytes=10, state="closed", close_id=1), ours(monotonic_sent_bytes=10), instance="i")
    assert scene.only["flags"] == Flag.CLOSED


def test_absence_closes_only_after_a_while_and_a_row_that_is_back_goes_on() -> None:
    scene = Scene(absent_after=3.0)
    scene.poll(record(monotonic_sent_bytes=10))
    scene.poll(after=60.0)  # the first reply that lacks it
    scene.poll()
    scene.poll(record(monotonic_sent_bytes=30))
    assert (scene.only["flags"], scene.only["sent"], scene.only["generation"]) == (0, 30, 0)
    for _ in range(3):
        scene.poll()
    assert scene.only["flags"] == 0
    scene.poll()
    assert scene.only["flags"] == Flag.CLOSED
    scene.poll(record(monotonic_sent_bytes=7))  # another connection
    assert sorted(row["sent"] for row in scene.receiver.all_rows()) == [7, 30]


def test_absence_from_our_own_tracers_reply_closes_nothing() -> None:
    scene = Scene(absent_after=3.0)
    scene.poll(ours(), instance="i")
    scene.poll(after=1_000.0, instance="i")
    scene.poll(after=1_000.0, instance="i")
    assert scene.only["flags"] == 0


def test_absence_from_the_first_reply_of_another_instance_closes() -> None:
    scene = Scene()
    scene.poll(ours(cookie=1), ours(cookie=2), instance="i")
    scene.poll(ours(cookie=2), ours(cookie=3), instance="j")
    assert [row["flags"] & Flag.CLOSED for row in scene.receiver.all_rows()] == [1, 0, 0]
    ((since, until, reason),) = scene.collector.status()["uncovered"]
    assert (since, until) == (1_001.0, 1_002.0)
    assert "another tracer instance" in reason


def test_a_close_is_counted_once_though_it_is_repeated_until_acknowledged() -> None:
    scene = Scene()
    scene.poll(ours(), instance="i", reply_id="1")
    closed = ours(monotonic_sent_bytes=4_000, state="closed", close_id=1, recv_exact=False)
    scene.poll(closed, instance="i", reply_id="2", durable=False)
    assert scene.collector.ack() == "1"
    for number in range(3, 6):
        scene.poll(closed, instance="i", reply_id=str(number))
    assert (scene.only["sent"], scene.only["flags"]) == (4_000, Flag.CLOSED | Flag.RECV_INEXACT)
    assert scene.receiver.finals[-1].closed_through == ("i", 1)


def test_only_what_is_durable_is_acknowledged_and_its_slots_used_again() -> None:
    scene = Scene()
    scene.poll(ours(cookie=1), ours(cookie=2, state="closed", close_id=1), instance="i", reply_id="a", durable=False)
    assert scene.collector.ack() is None
    scene.poll(ours(cookie=1), ours(cookie=3), instance="i", reply_id="b", durable=False)
    assert sorted(scene.receiver.rows) == [0, 1, 2]
    scene.receiver.durable = 0
    scene.collector.on_answer(scene.receiver.answer(7))
    assert scene.collector.ack() == "a"
    scene.poll(ours(cookie=1), ours(cookie=3), ours(cookie=4), instance="i", reply_id="c")
    assert sorted(scene.receiver.rows) == [0, 1, 2]
    assert [row["cookie"] for row in scene.receiver.gone] == [2]


def test_another_tracer_is_not_handed_the_last_ones_reply_id() -> None:
    scene = Scene()
    scene.poll(ours(), instance="i", reply_id="a")
    assert scene.collector.ack() == "a"
    scene.poll(ours(), ours(sport=2), instance="j", reply_id="b", durable=False)
    assert scene.collector.ack() is None


def test_a_new_collector_skips_closes_that_were_applied_before_it() -> None:
    collector, receiver = Collector("node", 7), Receiver()
    collector.greet(Answer("ok", 1, incarnation=1, stream=7, closed_through=("i", 5)))
    closes = [ours(cookie=number, state="closed", close_id=number) for number in (4, 5, 6)]
    collector.on_reply(reply(*closes, instance="i"), "", 1.0, nobody)
    drain(collector, receiver)
    assert [row["cookie"] for row in receiver.all_rows()] == [6]


def test_close_ids_of_another_instance_are_others() -> None:
    collector, receiver = Collector("node", 7), Receiver()
    collector.greet(Answer("ok", 1, incarnation=1, stream=7, closed_through=("i", 5)))
    collector.on_reply(reply(ours(state="closed", close_id=1), instance="j"), "", 1.0, nobody)
    drain(collector, receiver)
    assert receiver.finals[-1].closed_through == ("j", 1)
    assert len(receiver.all_rows()) == 1


def test_a_socket_that_is_closed_is_not_opened_again_by_a_late_sighting() -> None:
    scene = Scene()
    scene.poll(ours(state="closed", close_id=1), instance="i", durable=False)
    scene.poll(ours(), instance="i", durable=False)
    assert scene.only["flags"] == Flag.CLOSED
    assert scene.collector.status()["late"] == 1


def test_a_malformed_reply_changes_nothing() -> None:
    scene = Scene()
    scene.poll(EXAMPLE)
    before = scene.collector.status()
    with pytest.raises(SourceMalformed):
        scene.collector.on_reply(b'{"connections":[', "2:2", 5_000.0, nobody)
    assert scene.collector.status() == before
    assert scene.collector.next_part() is None


def test_failed_polls_are_said_and_become_an_uncovered_interval() -> None:
    scene = Scene()
    scene.collector.on_missed("nobody listens", 990.0)
    assert scene.collector.next_part() is None, "nothing may be said before the first good poll: it would close every row"
    scene.poll(EXAMPLE)
    scene.collector.on_missed("timed out", 1_010.0)
    drain(scene.collector, scene.receiver)
    assert scene.receiver.finals[-1].status["uncovered_since"] == [1_001.0, "timed out"]
    scene.at = 1_020.0
    scene.poll(EXAMPLE)
    status = scene.receiver.finals[-1].status
    assert status["uncovered"] == [[990.0, 1_001.0, "nobody listens"], [1_001.0, 1_021.0, "timed out"]]
    assert (status["uncovered_since"], status["missed"]) == (None, 2)


def test_a_refused_record_is_in_the_status() -> None:
    scene = Scene()
    scene.poll(EXAMPLE, record(sport=-1), telemetry={"dropped": 4})
    status = scene.receiver.finals[-1].status
    assert status["refused"] == {"sport": 1}
    assert status["tracer"] == {"dropped": 4}
    assert "sport" in status["notes"][0]
