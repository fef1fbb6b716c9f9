"""The wire format: what is packed comes back, and nothing hostile gets through."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.errors import WireError
from cluster.core.wire import (
    PART_LIMIT,
    SECTIONS,
    Answer,
    Final,
    Part,
    narrow,
    pack_answer,
    pack_body,
    pack_part,
    unpack_answer,
    unpack_part,
    widen,
)

U64 = 2**64 - 1


@given(st.lists(st.integers(0, U64)))
def test_columns_come_back(values: list[int]) -> None:
    column = np.array(values, np.uint64)
    packed = msgpack.unpackb(msgpack.packb(narrow(column)))
    assert widen(packed, np.uint64, "x").tolist() == values


@pytest.mark.parametrize(
    ("values", "width"),
    [([], 1), ([0, 255], 1), ([256], 2), ([10**15, 10**15 + 9], 1), ([10**15, 10**15 + 10**9], 4), ([0, U64], 8), ([U64, U64 - 1], 1)],
)
def test_columns_are_narrow(values: list[int], width: int) -> None:
    kind, raw, _ = narrow(np.array(values, np.uint64))
    assert int(kind[1]) == width or values == [256]
    assert len(raw) <= width * len(values)


@pytest.mark.parametrize(
    "packed",
    [
        None,
        [],
        ["u1", b"a"],
        ["u3", b"abc", 0],
        ["i8", bytes(8), 0],
        ["u2", b"abc", 0],
        ["u8", bytes(8), 0],
        ["u1", b"\xff", 2**16 - 1],
        ["u1", b"a", -1],
        ["u1", "a", 0],
    ],
)
def test_bad_columns_are_refused(packed: Any) -> None:
    with pytest.raises(WireError, match="column x"):
        widen(packed, np.uint16, "x")


def full(**more: Any) -> Part:
    sections = {name: {column: np.arange(2).astype(kind) for column, kind in schema.items()} for name, schema in SECTIONS.items()}
    whole = {
        "addresses": bytes(32),
        "texts": ("", "a"),
        "sections": sections,
        "metadata": (("docker", "10.0.0.1", "u", {"a": 1}), ("docker", "10.0.0.1", "v", None)),
        "final": Final(1.5, {"rows": 1}, ("i", 3), 0.5),
    }
    return Part("n", 1, 2**63 - 1, 3, 4, True, **{**whole, **more})


def test_a_part_comes_back() -> None:
    part, back = full(), unpack_part(pack_part(full()))
    for name in ("node", "incarnation", "stream", "sequence", "part", "last", "addresses", "texts", "metadata", "final"):
        assert getattr(back, name) == getattr(part, name)
    for name, columns in part.sections.items():
        for column, values in columns.items():
            assert back.sections[name][column].tolist() == values.tolist()
            assert back.sections[name][column].dtype == SECTIONS[name][column]


def repacked(head: dict[str, Any] | None = None, body: dict[str, Any] | None = None) -> bytes:
    """A good part with some fields replaced."""
    whole = msgpack.unpackb(pack_part(full()))
    whole["body"] = msgpack.packb({**msgpack.unpackb(pack_body(full())), **(body or {})})
    return bytes(msgpack.packb({**whole, **(head or {})}))


@pytest.mark.parametrize(
    ("head", "body", "what"),
    [
        ({"v": 3}, {}, "version 3"),
        ({"node": None, "stream": -1}, {}, "stream"),
        ({"stream": 2**63}, {}, "stream"),
        ({"sequence": "1"}, {}, "sequence"),
        ({"part": 1.5}, {}, "part"),
        ({"body": 5}, {}, "part"),
        ({"body": b"\xc1"}, {}, "part"),
        ({}, {"addresses": 10**15}, "part"),
        ({}, {"addresses": b"abc"}, "addresses"),
        ({}, {"texts": 5}, "part"),
        ({}, {"opened": []}, "opened"),
        ({}, {"closed": {"id": ["u1", b"ab", 0], "flags": ["u1", b"a", 0]}}, "different lengths"),
        ({}, {"closed": {"id": ["u1", b"ab", 0]}}, "closed.flags"),
        ({}, {"metadata": [["docker"]]}, "part"),
        ({}, {"final": None}, "final: missing"),
        ({}, {"final": {"at": 1}}, "final"),
        ({}, {"final": {"at": 1.0, "status": {}, "closed_through": ["i", -1], "offset": 0.0, "continues": None}}, "closed_through"),
        ({}, {"texts": [""]}, "local: index 1 of 1"),
        ({}, {"addresses": bytes(16)}, "index 1 of 1"),
    ],
)
def test_bad_parts_are_refused(head: dict[str, Any], body: dict[str, Any], what: str) -> None:
    assert unpack_part(repacked())
    with pytest.raises(WireError, match=what):
        unpack_part(repacked(head, body))


@given(st.binary(max_size=300))
def test_noise_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        unpack_part(raw)
    with pytest.raises(WireError):
        unpack_answer(raw)


def test_a_message_that_is_too_large_is_not_read() -> None:
    with pytest.raises(WireError, match="at most"):
        unpack_part(bytes(1_000_000))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(WireError):
        unpack_part(b"\x91" * 50_000)


def test_an_answer_comes_back() -> None:
    answer = Answer("expect", 3, 1 << 20, 2**63 - 1, 4, 3, 5, ("i", 9), "why")
    assert unpack_answer(pack_answer(answer)) == answer
    with pytest.raises(WireError, match="another version"):
        unpack_answer(msgpack.packb({"v": 0}))


def test_a_part_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(WireError, match="90001 bytes; at most 90000 are read"):
        unpack_part(bytes(PART_LIMIT + 1))
