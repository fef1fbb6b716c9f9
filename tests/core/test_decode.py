from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.addresses import Addresses
from cluster.core.decode import COLUMNS, EXAMPLES, EXCERPT, Reply, decode
from cluster.core.errors import SourceMalformed
from cluster.core.records import COUNTER_LIMIT, Direction, Flag, format_address
from tests.core.replies import EXAMPLE, record, reply, without


def read(body: bytes, zero_is: str = "new") -> Reply:
    return decode(body, Addresses(), zero_is)


def rows(body: bytes) -> list[dict[str, Any]]:
    """The rows, addresses written out, in order of their ports and pids."""
    addresses = Addresses()
    columns = {name: column.tolist() for name, column in decode(body, addresses).columns.items()}
    for end in ("source", "dest"):
        columns[end] = [format_address(addresses.packed[number].tobytes()) for number in columns[end]]
    listed = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return sorted(listed, key=lambda each: (each["sport"], each["pid"], each["sent"]))


def row(body: bytes) -> dict[str, Any]:
    (only,) = rows(body)
    return only


def test_the_users_example() -> None:
    assert row(reply(EXAMPLE)) == {
        "protocol": 1,
        "source": "172.17.0.2",
        "dest": "172.17.0.5",
        "sport": 41515,
        "dport": 53,
        "pid": 14931,
        "net_ns": 4026532528,
        "cookie": 0,
        "direction": Direction.OUTGOING,
        "flags": 0,
        "sent": 3079,
        "recv": 5849,
        "retransmits": 0,
        "last_update": 11457291007926789,
        "close_id": 0,
    }


def test_columns_have_their_types_also_when_empty() -> None:
    for body in (reply(EXAMPLE), reply(), reply(record(pid="x"))):
        assert {name: column.dtype.type for name, column in read(body).columns.items()} == COLUMNS


@pytest.mark.parametrize("body", [b'{"connections":null}', b'{"connections":[]}', b' {"connections" : [ ] , "more":1}\n'])
def test_nothing_seen_yet(body: bytes) -> None:
    decoded = read(body)
    assert len(decoded) == 0
    assert not decoded.refused.reasons
    assert not decoded.tells_closes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"7",
        b"not json",
        b"<html></html>",
        b'{"connections":{}}',
        b'{"connections":7}',
        b'{"connection":[]}',
        reply(EXAMPLE)[:-1],
        reply(EXAMPLE)[:-40],
        reply(EXAMPLE) + b"}",
        reply(EXAMPLE) + reply(EXAMPLE),
        b'{"connections":[' + json.dumps(EXAMPLE).encode() + b"}]}",  # the brace too many of the user's document
        b'{"connections":[{"pid":1,}]}',
        b'{"connections":[NaN]}',
        b'{"connections":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b'{"connections":[],"instance":7}',
        b'{"connections":[],"instance":"' + b"x" * 1000 + b'"}',
        b'\xff\xfe{"connections":[]}',
        b"\x00" * 100,
    ],
)
def test_what_is_no_tracers_reply(body: bytes) -> None:
    with pytest.raises(SourceMalformed, match="not a tracer's reply"):
        read(body)


HOSTILE: list[tuple[str, Any]] = [
    ("not a record", 7),
    ("not a record", None),
    ("not a record", "x"),
    ("not a record", []),
    ("pid missing", {}),
    ("pid missing", record(pid=None)),
    ("pid", record(pid=-1)),
    ("pid", record(pid=2**32)),
    ("pid", record(pid=1.5)),
    ("pid", record(pid="14931")),
    ("pid", record(pid=True)),
    ("pid", record(pid=[14931])),
    ("type", record(type=2)),
    ("type", record(type="tcp")),
    ("net_ns", record(net_ns=2**32)),
    ("net_ns missing", without("net_ns")),
    ("sport", record(sport=65536)),
    ("dport", record(dport=-1)),
    ("sport missing", without("sport")),
    ("source", record(source="")),
    ("source", record(source="172.17.0.256")),
    ("source", record(source="localhost")),
    ("source", record(source="1" * 10_000)),
    ("source", record(source=2886795266)),
    ("source missing", without("source")),
    ("dest", record(dest="fd00:::1")),
    ("dest", record(dest={"a": {"b": [1, 2, {"c": None}]}})),
    ("dest missing", record(dest=None)),
    ("family", record(source="fd00::1", dest="fd00::2")),
    ("family", record(family=2)),
    ("family", record(family=-1)),
    ("direction", record(direction=-1)),
    ("direction", record(direction="in")),
    ("monotonic_sent_bytes", record(monotonic_sent_bytes=-1)),
    ("monotonic_sent_bytes", record(monotonic_sent_bytes=2**64)),
    ("monotonic_sent_bytes", record(monotonic_sent_bytes=10**400)),
    ("monotonic_sent_bytes", record(monotonic_sent_bytes=0.5)),
    ("monotonic_sent_bytes", record(monotonic_sent_bytes=COUNTER_LIMIT + 1)),
    ("monotonic_recv_bytes", record(monotonic_recv_bytes=2**64 - 1)),
    ("monotonic_sent_bytes missing", without("monotonic_sent_bytes")),
    ("monotonic_recv_bytes", record(monotonic_recv_bytes="5849")),
    ("monotonic_recv_bytes missing", record(monotonic_recv_bytes=None)),
    ("monotonic_retransmits", record(monotonic_retransmits=2**32)),
    ("last_update_epoch", record(last_update_epoch=2**64)),
    ("cookie", record(cookie=2**64)),
    ("cookie", record(cookie=-1)),
    ("state", record(state="half")),
    ("bytes", record(bytes=5)),
    ("recv_exact", record(recv_exact="yes")),
    ("close_id", record(state="closed")),
]


@pytest.mark.parametrize(("reason", "bad"), HOSTILE, ids=[f"{index} {reason}" for index, (reason, _) in enumerate(HOSTILE)])
def test_a_bad_record_costs_only_itself(reason: str, bad: Any) -> None:
    decoded = read(reply(record(sport=1), bad, record(sport=2)))
    assert decoded.columns["sport"].tolist() == [1, 2]
    assert dict(decoded.refused.reasons) == {reason: 1}
    assert decoded.refused.examples[0].startswith(f"{reason}: ")


GOOD: list[tuple[str, dict[str, Any], Any]] = [
    ("pid", record(pid=2**32 - 1), 2**32 - 1),
    ("sent", record(monotonic_sent_bytes=COUNTER_LIMIT), COUNTER_LIMIT),
    ("cookie", record(cookie=2**64 - 1), 2**64 - 1),
    ("cookie", record(cookie=None), 0),
    ("flags", record(state=None, recv_exact=None, bytes=None, close_id=None), 0),
    ("flags", record(recv_exact=False, bytes="unknown"), Flag.RECV_INEXACT | Flag.BYTES_UNKNOWN),
    ("flags", record(state="closed", close_id=9), Flag.CLOSED),
    ("close_id", record(state="closed", close_id=9), 9),
    ("retransmits", without("monotonic_retransmits"), 0),
    ("last_update", record(last_update_epoch=None), 0),
    ("direction", record(direction=200), Direction.UNSPECIFIED),
    ("direction", without("direction"), Direction.UNSPECIFIED),
    ("source", record(source="::ffff:10.0.0.1", family=1), "10.0.0.1"),
    ("source", record(source="::ffff:10.0.0.1"), "10.0.0.1"),
    ("source", without("family") | {"source": "FD00:0::1"}, "fd00::1"),
    ("dest", record(dest="fd00::2", source="fd00::1", family=1), "fd00::2"),
    ("dport", record(unknown={"deep": [[{}]]}, conntrack={"repl_src_ip": "10.9.9.9", "repl_src_port": 1}, dport=1), 1),
    ("dport", record(conntrack=None), 53),
]


@pytest.mark.parametrize(("column", "good", "value"), GOOD, ids=[f"{index} {name}" for index, (name, _, _) in enumerate(GOOD)])
@pytest.mark.parametrize("beside", ["nothing", "a bad record"])
def test_what_is_accepted_is_the_same_on_both_paths(column: str, good: dict[str, Any], value: Any, beside: str) -> None:
    assert row(reply(good) if beside == "nothing" else reply({"pid": "bad"}, good))[column] == value


def test_one_address_has_one_number() -> None:
    decoded = read(reply(record(source="::ffff:10.0.0.1", dest="10.0.0.1"), record(source="fd00::1", dest="fd00:0:0::1", family=1)))
    assert decoded.columns["source"].tolist() == decoded.columns["dest"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("said", "zero_is", "read_as"),
    [
        ([0, 1, 2], "new", [1, 2, 3]),  # a 0: the older numbering
        ([1, 2, 3], "old", [1, 2, 3]),  # a 3: the newer
        ([0, 1, 2, 3], "old", [0, 1, 2, 3]),
        ([0, 4], "old", [0, 4]),
        ([1, 2], "new", [1, 2]),  # neither: the setting
        ([1, 2], "old", [2, 3]),
        ([0, 9], "new", [1, 0]),
    ],
)
def test_both_numberings_of_direction(said: list[int], zero_is: str, read_as: list[int]) -> None:
    body = reply(*(record(sport=index, direction=direction) for index, direction in enumerate(said)))
    assert read(body, zero_is).columns["direction"].tolist() == read_as


def test_our_own_tracer_uses_the_newer_numbering() -> None:
    assert read(reply(record(direction=0), record(direction=1), instance="i")).columns["direction"].tolist() == [0, 1]


def test_a_missing_direction_does_not_choose_the_numbering() -> None:
    assert read(reply(without("direction"), record(direction=1))).columns["direction"].tolist() == [0, 1]


def test_what_our_own_tracer_adds() -> None:
    listener = {"net_ns": 1, "type": 0, "source": "0.0.0.0", "sport": 80, "pid": 7, "more": 1}
    bad = [{"net_ns": 1}, 7, {**listener, "source": "nowhere"}]
    telemetry = {"dropped": 3, "name": "x", "rate": 0.5, "negative": -1, "flag": True}
    decoded = read(reply(instance="i", reply_id="9", listeners=[listener, *bad], telemetry=telemetry))
    assert (decoded.instance, decoded.reply_id, decoded.tells_closes) == ("i", "9", True)
    assert {name: column.tolist() for name, column in decoded.listeners.items()} == {
        "net_ns": [1],
        "protocol": [0],
        "source": [0],
        "sport": [80],
        "pid": [7],
    }
    assert decoded.telemetry == {"dropped": 3}
    assert dict(decoded.refused.reasons) == {"listener type missing": 1, "listener not a record": 1, "listener source": 1}


def test_a_row_with_state_tells_closes_without_an_instance() -> None:
    assert read(reply(EXAMPLE, record(sport=1, state="open"))).tells_closes


@pytest.mark.parametrize("count", [1, 100], ids=["few", "many alike"])
@pytest.mark.parametrize("end", ["source", "dest"])
def test_the_text_that_is_no_address_is_said(end: str, count: int) -> None:
    others = [record(sport=port) for port in range(count)]
    for text, said in (("localhost", '"localhost"'), ("a\n", '"a\\n"'), ("1" * 10_000, '"111')):
        decoded = read(reply(*others, record(**{end: text})))
        (example,) = decoded.refused.examples
        assert example.startswith(f"{end}: {said}")
        assert "4294967295" not in example
        assert (dict(decoded.refused.reasons), len(decoded)) == ({end: 1}, count)


@pytest.mark.parametrize(("reason", "fields"), [("family", {"family": 2}), ("close_id", {"state": "closed"})])
def test_a_record_refused_for_another_reason_is_said_with_its_addresses(reason: str, fields: dict[str, Any]) -> None:
    (example,) = read(reply(record(sport=1), record(source="10.7.7.7", **fields))).refused.examples
    assert example.startswith(f"{reason}: ")
    assert '"source":"10.7.7.7","dest":"172.17.0.5"' in example


def test_only_the_first_refused_are_kept_and_they_are_cut() -> None:
    refused = read(reply(*[record(pid="x" * 5_000)] * 50)).refused
    assert dict(refused.reasons) == {"pid": 50}
    assert len(refused.examples) == EXAMPLES
    assert all(len(example) <= EXCERPT + 20 for example in refused.examples)


def test_reasons_are_a_fixed_set_whatever_the_fields_are_called() -> None:
    refused = read(reply(*({f"field{index}": index} for index in range(50)))).refused
    assert dict(refused.reasons) == {"pid missing": 50}


def test_bytes_that_are_no_text() -> None:
    decoded = read(reply(record(source="XX"), record(sport=2)).replace(b"XX", b"\xff\xfe"))
    assert decoded.columns["sport"].tolist() == [2]


def test_a_large_document_is_read_like_a_small_one() -> None:
    records = [record(sport=index % 65536, pid=index, dest=f"10.0.{index // 250 % 250}.{index % 250}") for index in range(5_000)]
    assert rows(reply(*records)) == rows(reply({"pid": "bad"}, *records))
    assert read(reply(*records)).columns["pid"].tolist() == list(range(5_000))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*EXAMPLE, "state", "cookie", "x"]), inner, max_size=4),
    max_leaves=8,
)
spoilt = st.builds(lambda name, value: record(**{name: value}), st.sampled_from([*EXAMPLE, "state", "cookie", "close_id", "bytes"]), junk)


def is_good(value: Any) -> bool:
    return isinstance(value, dict) and value.get("pid") == 99


@given(
    records=st.lists(
        st.tuples(st.just("bad"), (junk | spoilt).filter(lambda value: not is_good(value)))
        | st.tuples(st.just("good"), st.integers(0, COUNTER_LIMIT)),
        max_size=8,
    ),
    head=junk,
)
@settings(deadline=None)
def test_good_records_survive_among_whatever(records: list[tuple[str, Any]], head: Any) -> None:
    body = json.dumps(
        {"connections": [record(pid=99, monotonic_sent_bytes=value) if kind == "good" else value for kind, value in records], "x": head}
    ).encode()
    decoded = read(body)
    good = decoded.columns["sent"][decoded.columns["pid"] == 99].tolist()
    assert good == [value for kind, value in records if kind == "good"]
    assert len(decoded) + decoded.refused.reasons.total() == len(records)


@given(
    document=junk
    | st.fixed_dictionaries({"connections": junk}, optional={"instance": junk, "listeners": junk, "telemetry": junk, "reply_id": junk})
)
@settings(deadline=None)
def test_any_json_is_read_or_refused(document: Any) -> None:
    try:
        decoded = read(json.dumps(document).encode())
    except SourceMalformed:
        return
    assert len(decoded) + decoded.refused.reasons.total() >= len(document["connections"] or [])


@given(cut=st.integers(0, 400), put=st.binary(max_size=3))
@settings(deadline=None)
def test_spoilt_bytes_are_read_or_refused(cut: int, put: bytes) -> None:
    whole = reply(EXAMPLE, record(sport=1))
    body = whole[:cut] + put + whole[cut + len(put) :]
    try:
        assert len(read(body)) <= 2
    except SourceMalformed:
        assert not a_tracers_reply(body)


def a_tracers_reply(body: bytes) -> bool:
    """What the standard library says of it."""
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and isinstance(document.get("connections", 7), list | None)
