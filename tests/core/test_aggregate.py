"""The protocol: hello, order, refusals, durability."""

from __future__ import annotations

import math

import msgpack
import pytest

from cluster.core.aggregate import Aggregate
from cluster.core.commands import Stop, Write
from cluster.core.commit import begin
from cluster.core.events import BatchReceived, Committed, Fenced, Hello, Tick
from cluster.core.records import Flag
from cluster.core.wire import Final, Part, pack_part
from tests.core.stream import AT, Talk, empty, opened

CLOSED = int(Flag.CLOSED)


def test_hello_is_ok_only_once_it_is_durable() -> None:
    talk = Talk()
    first = talk.answer(Hello("n", 1, AT))
    assert (first.verdict, first.incarnation) == ("wait", 1 << 20)
    assert talk.answer(Hello("n", 1, AT)).incarnation == first.incarnation
    (write,) = talk.handle(Tick(AT))
    assert talk.answer(Hello("n", 1, AT)).verdict == "wait"
    talk.handle(Committed(write.commit.number, AT))
    answer = talk.answer(Hello("n", 1, AT))
    assert (answer.verdict, answer.incarnation, answer.expect) == ("ok", first.incarnation, 0)


def test_numbers_increase_and_never_repeat_across_restarts() -> None:
    talk = Talk()
    numbers = [talk.greet(stream=1), talk.greet(stream=2)]
    talk.start()
    numbers.append(talk.greet(stream=3))
    assert numbers == sorted(set(numbers))
    assert numbers[2] == 2 << 20


def test_a_batch_before_its_number_is_durable_is_not_applied() -> None:
    talk = Talk()
    talk.incarnation, talk.stream = talk.answer(Hello("n", 1, AT)).incarnation, 1
    assert talk.say(0, opened=[opened(0)]).verdict == "hello"
    assert talk.aggregate.state.rows == 0


def test_the_collector_before_is_superseded_from_the_hello_on() -> None:
    talk = Talk()
    talk.greet(stream=1)
    old = talk.part(0, opened=[opened(0)])
    talk.answer(Hello("n", 2, AT))
    assert talk.answer(BatchReceived(old, AT)).verdict == "superseded"
    assert talk.answer(Hello("n", 1, AT)).verdict == "superseded"
    assert talk.aggregate.state.rows == 0


def test_one_that_has_a_successor_begins_no_new_stream_even_after_a_restart() -> None:
    talk = Talk()
    first = talk.greet(stream=1)
    second = talk.greet(stream=100)
    talk.start()
    assert talk.answer(Hello("n", 2, AT, first)).verdict == "superseded"
    assert talk.answer(Hello("n", 101, AT, second)).verdict == "wait"
    talk.commit()
    assert talk.answer(Hello("n", 101, AT, second)).verdict == "ok", "asked again, as long as it has no other number"
    assert talk.answer(Hello("n", 7, AT)).verdict == "wait", "a new one"


def test_unknown_nodes_incarnations_and_streams_say_hello_again() -> None:
    talk = Talk()
    talk.greet()
    assert talk.say(0, node="other").verdict == "hello"
    assert talk.say(0, incarnation=talk.incarnation + 1).verdict == "hello"
    assert talk.say(0, stream=99).verdict == "hello"


def test_sequences_are_applied_whole_at_their_last_part_and_once() -> None:
    talk = Talk()
    talk.greet()
    assert talk.say(0, part=0, last=False, opened=[opened(0)]).applied == -1
    assert talk.aggregate.state.rows == 0
    assert talk.say(0, part=0, last=False, opened=[opened(0)]).verdict == "ok"
    talk.ok(0, part=1, opened=[opened(1)])
    talk.ok(0, part=1, opened=[opened(1)])
    assert talk.aggregate.state.rows == 2


def test_gaps_are_answered_with_what_is_expected() -> None:
    talk = Talk()
    talk.greet()
    assert talk.say(0, part=1).verdict == "expect"
    talk.say(0, part=0, last=False, opened=[opened(0)])
    answer = talk.say(0, part=2)
    assert (answer.verdict, answer.expect) == ("expect", 0)
    assert talk.say(0, part=1).verdict == "expect", "the parts before the gap are to be sent again"
    talk.ok(0, opened=[opened(0)])
    answer = talk.say(2)
    assert (answer.verdict, answer.expect) == ("expect", 1)


def test_durable_follows_the_commits_of_the_node() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0)])
    (write,) = talk.handle(Tick(AT))
    talk.ok(1, changed=[{"id": 0, "sent": 5}])
    assert talk.handle(Tick(AT)) == [], "one commit at a time"
    assert talk.say(0).durable == -1
    talk.handle(Committed(write.commit.number, AT))
    talk.handle(Committed(write.commit.number, AT))
    talk.handle(Committed(99, AT))
    assert talk.say(0).durable == 0
    (second,) = talk.handle(Tick(AT))
    assert second.commit.number > write.commit.number
    talk.handle(Committed(second.commit.number, AT))
    assert talk.say(1).durable == 1
    talk.commit()  # how many sequences came twice
    assert talk.handle(Tick(AT)) == [], "nothing changed"


def test_a_commit_holds_what_changed_and_no_more() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0), opened(1), opened(2)])
    talk.commit()
    talk.ok(1, changed=[{"id": 1, "sent": 5}], attributed=[{"id": 2, "local": 2}])
    commit = begin(talk.aggregate.state, AT)
    assert commit is not None
    assert commit.rows.columns["slot"].tolist() == [2]
    assert [commit.rows.texts[index] for index in commit.rows.columns["local"]] == ["container/web"]
    assert commit.changed["sent"].tolist() == [5]
    assert [node.applied for node in commit.nodes] == [1]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"opened": [opened(5), opened(5)]}, "row 5 twice"),
        ({"opened": [opened(0)]}, "row 0 is open already"),
        ({"opened": [opened(4_000_000_000)]}, "number the rows densely"),
        ({"opened": [opened(3)], "changed": [{"id": 4}]}, "row 4 was never opened"),
        ({"changed": [{"id": 9}]}, "row 9 was never opened"),
        ({"changed": [{"id": 0, "sent": 11}, {"id": 0, "sent": 12}]}, "row 0 twice"),
        ({"changed": [{"id": 0, "sent": 9, "recv": 50, "generation": 3}]}, "sent of row 0 fell within one generation"),
        ({"changed": [{"id": 0, "sent": 10, "recv": 48, "generation": 3}]}, "recv of row 0 fell within one generation"),
        ({"changed": [{"id": 0, "sent": 99, "recv": 99, "generation": 2}]}, "row 0 goes back to an earlier generation"),
        ({"attributed": [{"id": 7}]}, "row 7 was never opened"),
        ({"closed": [{"id": 7, "flags": CLOSED}]}, "row 7 was never opened"),
        ({"closed": [{"id": 0}]}, "closed: a row without the flag"),
        ({"final": Final(math.nan)}, "finite"),
        ({"final": Final(AT, offset=math.inf)}, "finite"),
        ({"metadata": (("docker", "10.0.0.2", "u", "text"),)}, "expected a map or None"),
        ({"metadata": (("docker", "10.0.0.2", "u", {"workload": b"bytes"}),)}, "metadata of docker 10.0.0.2 u: Object of type bytes"),
        ({"final": Final(AT, {"tracer": msgpack.Timestamp(1, 2)})}, "final.status: Object of type Timestamp"),
    ],
)
def test_what_breaks_an_invariant_is_refused_whole(more: dict[str, object], reason: str) -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10, recv=50, generation=3), opened(1)])
    good = {"changed": [{"id": 1, "sent": 7}]} if "changed" not in more else {"attributed": [{"id": 1, "local": 2}]}
    before = state_of(talk.aggregate)
    answer = talk.say(1, **{**good, **more})
    assert answer.verdict == "refused"
    assert reason in answer.reason
    assert (answer.applied, answer.expect) == (0, 1)
    assert state_of(talk.aggregate) == before
    talk.ok(1, **good)
    assert talk.aggregate.state.counters["refused"] == 1


def test_a_recv_count_may_be_corrected_by_the_one_byte_of_a_fin() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, recv=50, remote=2)])
    talk.ok(1, changed=[{"id": 0, "recv": 49}])
    edge = talk.aggregate.state.edges.edge(1)
    assert edge.views[0][1] == 49
    assert edge.views[0][6] == 50, "an exported counter never falls"


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03", bytes(400_000), b"\x81\xa1v\x01", b"\xdf\xff\xff\xff\xff"])
def test_no_bytes_raise(raw: bytes) -> None:
    talk = Talk()
    talk.greet()
    answer = talk.answer(BatchReceived(raw, AT))
    assert answer.verdict == "refused"
    assert answer.reason


def test_every_truncation_and_every_flipped_byte_is_answered() -> None:
    talk = Talk()
    talk.greet()
    whole = talk.part(0, opened=[opened(0), opened(1)], metadata=(("docker", "10.0.0.2", "u", {"workload": "container/a"}),))
    for cut in range(0, len(whole), 7):
        assert talk.answer(BatchReceived(whole[:cut], AT)).verdict == "refused"
    for place in range(0, len(whole), 3):
        flipped = whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :]
        talk.answer(BatchReceived(flipped, AT))


def test_hostile_hellos_are_refused() -> None:
    talk = Talk()
    for hello in (
        Hello("", 1, AT),
        Hello("a\nb", 1, AT),
        Hello("\ud800", 1, AT),
        Hello("x" * 300, 1, AT),
        Hello("n", -1, AT),
        Hello("n", 1 << 63, AT),
    ):
        assert talk.answer(hello).verdict == "refused"
    assert not talk.aggregate.state.nodes


def test_a_sequence_of_too_many_parts_is_refused_and_forgotten() -> None:
    talk = Talk()
    talk.greet()
    for number in range(4_096):
        packed = pack_part(Part("n", talk.incarnation, talk.stream, 0, number, False))
        assert talk.aggregate.handle(BatchReceived(packed, AT))[0].answer.verdict == "ok"  # type: ignore[union-attr]
    packed = pack_part(Part("n", talk.incarnation, talk.stream, 0, 4_096, False))
    assert talk.answer(BatchReceived(packed, AT)).verdict == "refused"
    assert talk.aggregate.state.nodes["n"].parts == []


def test_a_fenced_aggregate_does_nothing_more() -> None:
    aggregate = Aggregate(empty())
    assert aggregate.handle(Fenced("aggregator 2 owns the store", AT)) == [Stop("aggregator 2 owns the store")]
    assert aggregate.handle(Hello("n", 1, AT)) == [Stop("aggregator 2 owns the store")]
    assert not any(isinstance(command, Write) for command in aggregate.handle(Tick(AT)))


def state_of(aggregate: Aggregate) -> object:
    """What a refused sequence must not touch."""
    snapshot = aggregate.snapshot()
    return (
        [table.columns[name].tolist() for table in snapshot.tables for name in table.columns],
        snapshot.nodes,
        dict(snapshot.edges),
        snapshot.metadata,
        {name: count for name, count in snapshot.counters.items() if name != "refused"},
    )
