"""Records read along their shape are what the ordinary decoder reads of them, whatever they hold."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core import decode as module
from cluster.core.addresses import Addresses
from cluster.core.alike import read_alike
from cluster.core.errors import SourceMalformed
from tests.core.replies import EXAMPLE, Record, record, reply
from tests.core.test_decode import rows

NUMBERS = [0, 1, 9, 10, 9_999_999, 10_000_000, 99_999_999, 100_000_000, 10**15, 10**16 - 1, 10**16, 10**19 - 1, 10**19, 2**63, 2**64 - 1]


def plainly(body: bytes, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(module, "ALIKE_FROM", 1 << 60)
        return outcome(body)


def outcome(body: bytes) -> Any:
    addresses = Addresses()
    try:
        reply = module.decode(body, addresses)
    except SourceMalformed:
        return "malformed"
    return rows(body), dict(reply.refused.reasons), reply.instance, reply.tells_closes, len(reply.listeners["sport"])


def left(body: bytes) -> int:
    """How many records were not read along a shape."""
    alike = read_alike(body, Addresses())
    assert alike is not None
    return alike.left


def filler(count: int = 40) -> list[Record]:
    chance = random.Random(count)
    return [
        record(sport=index, pid=chance.choice(NUMBERS[:8]), monotonic_sent_bytes=chance.choice(NUMBERS), dest=f"10.0.0.{index}")
        for index in range(count)
    ]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["monotonic_sent_bytes", "last_update_epoch", "last_sent_bytes", "pid"])
def test_numbers_of_every_length(number: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = reply(*filler(), record(sport=50_000, **{name: number}), EXAMPLE)
    assert outcome(body) == plainly(body, monkeypatch)
    if number < 10**19 and (name != "pid" or number < 2**32):
        assert left(body) <= 1 + sum(each["monotonic_sent_bytes"] >= 10**19 for each in filler()) + 2


def test_almost_all_of_a_real_reply_is_read_along_few_shapes() -> None:
    plain = [record(sport=index, conntrack=None) for index in range(2_000)]
    translated = [each | {"conntrack": {"repl_src_ip": "10.1.2.3", "repl_src_port": each["sport"]}} for each in plain]
    ours = [
        each | {"cookie": each["sport"], "state": state, "close_id": 1 + each["sport"]} for each in plain for state in ("open", "closed")
    ]
    assert left(reply(*plain, *translated, *ours, instance="i", listeners=[{"net_ns": 1, "type": 0, "source": "::", "sport": 1}])) < 10


@pytest.mark.parametrize("place", [0, 999, 1_000, 1_999])
def test_one_odd_record_does_not_keep_the_others_from_being_read_together(place: int) -> None:
    records = [record(sport=index) for index in range(2_000)]
    records[place] = {"pid": -1}
    assert left(reply(*records)) < 6  # those at the very end are left, too


ODD_RECORDS: list[tuple[str, bytes]] = [
    ("a space", b'{"pid": 1}'),
    ("a number with a zero before it", b"01"),
    ("a negative number", b"-1"),
    ("a float", b"1.5"),
    ("an exponent", b"1e3"),
    ("a text", b'"1"'),
    ("null", b"null"),
    ("true", b"true"),
    ("an object", b'{"a":1}'),
    ("an array of objects", b'[{"a":1},{"b":2}]'),
    ("a text with a brace", b'"},{"'),
    ("a text with the array's head", b'"\\"connections\\":[{"'),
    ("an escape", b'"\\u0031"'),
    ("a wrong escape", b'"\\q"'),
    ("a control character", b'"\x01"'),
    ("a NUL", b'"\x00"'),
    ("bytes that are no text", b'"\xff"'),
    ("a long text", b'"' + b"x" * 100 + b'"'),
    ("an address and a NUL", b'"10.0.0.7\x00"'),
    ("an address and a byte that is no text", b'"10.0.0.7\xff"'),
    ("an address and an escape", b'"10.0.0.7\\n"'),
    ("an address and a tab", b'"10.0.0.7\t"'),
    ("an address with a zone", b'"fe80::1%eth0"'),
    ("an address with an odd zone", b'"fe80::1%\x01\\n"'),
    ("an address of 63 bytes", b'"fe80::1%' + b"x" * 55 + b'"'),
    ("a text of 64 bytes", b'"fe80::1%' + b"x" * 56 + b'"'),
    ("nothing", b""),
    ("two values", b"1,2"),
    ("a second key", b'1,"pid":2'),
    ("the end of the array", b"1}]}"),
]


@pytest.mark.parametrize("where", ["pid", "source", "conntrack", "last_sent_bytes", "state"])
@pytest.mark.parametrize("place", [0, 20, 39])
@pytest.mark.parametrize("odd", [odd for _, odd in ODD_RECORDS], ids=[what for what, _ in ODD_RECORDS])
def test_odd_values_are_read_as_the_ordinary_decoder_reads_them(
    where: str, place: int, odd: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = filler()
    records[place] = records[place] | {where: "ODD"}
    body = reply(*records).replace(b'"ODD"', odd)
    assert outcome(body) == plainly(body, monkeypatch)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body + b"}",
        lambda body: body[:-1],
        lambda body: body[: len(body) // 2],
        lambda body: body.replace(b"},{", b"}{", 1),
        lambda body: body.replace(b"},{", b"},,{", 1),
        lambda body: body.replace(b"},{", b"}, {"),
        lambda body: body.replace(b'"connections":[', b'"connections": ['),
        lambda body: b'{"x":' + body + b"}",
        lambda body: body[:-1] + b',"connections":[]}',
        lambda body: body[:-1] + b',"connections":null}',
        lambda body: b'{"connections":[],' + body[1:],
        lambda body: body[:-2] + b"],[]}",
        lambda body: body[:-2] + b',{"pid":1}]}',
        lambda body: b'{"listeners":[{"net_ns":1,"type":0,"source":"::","sport":2}],"instance":"i",' + body[1:],
        lambda body: body[:-1] + b',"listeners":[{"net_ns":1,"type":0,"source":"::","sport":2},{"net_ns":2}],"instance":"i"}',
    ],
    ids=range(15),
)
def test_documents_laid_out_otherwise(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = change(reply(*filler()))
    assert outcome(body) == plainly(body, monkeypatch)


value = st.one_of(
    st.integers(-2, 2**65),
    st.sampled_from(NUMBERS),
    st.none(),
    st.booleans(),
    st.text(max_size=50),
    st.ip_addresses().map(str),
    st.dictionaries(st.sampled_from(["pid", "x"]), st.integers(0, 9), max_size=2),
)


@given(
    changes=st.lists(st.tuples(st.integers(0, 39), st.sampled_from([*EXAMPLE, "cookie", "state", "conntrack"]), value), max_size=6),
    spoil=st.none() | st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=2)),
)
@settings(deadline=None, max_examples=200)
def test_both_ways_agree(changes: list[tuple[int, str, Any]], spoil: tuple[int, bytes] | None) -> None:
    records = filler()
    for index, name, changed in changes:
        records[index] = records[index] | {name: changed}
    body = json.dumps({"connections": records}, separators=(",", ":"), ensure_ascii=False).encode()
    if spoil is not None:
        body = body[: spoil[0]] + spoil[1] + body[spoil[0] + len(spoil[1]) :]
    with pytest.MonkeyPatch.context() as patch:
        assert outcome(body) == plainly(body, patch)
