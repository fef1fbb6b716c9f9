"""Finding messages and attributes: fast paths and slow ones agree, on any layout."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.errors import TracerError
from cluster.tracer.messages import HEADER, attributes, attributes_apart, find_starts, message
from cluster.tracer.netlink import NETLINK_SOCK_DIAG, NLM_F_DUMP, NLM_F_REQUEST, Netlink
from cluster.tracer.sockdiag import SOCK_DIAG_BY_FAMILY

sizes = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=8)
layouts = st.lists(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 13)), max_size=5), min_size=1, max_size=12)


def padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)


@settings(database=None, deadline=None)
@given(sizes)
def test_messages_are_found_whatever_their_lengths(runs: list[tuple[int, int]]) -> None:
    pieces = [padded(message(20, 0, b"\xff" * size)) for size, times in runs for _ in range(times)]
    wanted = np.cumsum([0] + [len(piece) // 4 for piece in pieces])
    words = np.frombuffer(b"".join(pieces), np.uint32)
    assert find_starts(words, 0, len(words)).tolist() == wanted[:-1].tolist()


def test_a_message_shorter_than_its_header_is_refused() -> None:
    words = np.frombuffer(message(20, 0, b"") + HEADER.pack(3, 20, 0, 0, 0), np.uint32)
    with pytest.raises(TracerError, match="shorter than its header"):
        find_starts(words, 0, len(words))


@settings(database=None, deadline=None)
@given(layouts, st.integers(1, 3))
def test_attributes_are_found_whatever_their_layout(messages: list[list[tuple[int, int]]], times: int) -> None:
    raw, begins, finishes, wanted = bytearray(8), [], [], []
    for layout in [layout for layout in messages for _ in range(times)]:
        begins.append(len(raw) // 4)
        found: dict[int, int] = {}
        for kind, size in layout:
            found[kind] = len(raw) // 4
            raw += padded(struct.pack("=HH", 4 + size, kind | 0x8000) + b"\x01" * size)
        finishes.append(len(raw) // 4)
        wanted.append([found.get(kind, 0) for kind in (1, 2, 3)])
    words = np.frombuffer(bytes(raw), np.uint32)
    at, end = np.array(begins), np.array(finishes)
    for way in (attributes, attributes_apart):
        assert np.array(way(words, at, end, (1, 2, 3))).T.tolist() == wanted


def test_attributes_of_one_layout_with_a_kind_twice_take_the_last() -> None:
    one = struct.pack("=HHI", 8, 1, 5) * 2
    words = np.frombuffer(one * 3, np.uint32)
    at = np.array([0, 4, 8])
    assert attributes(words, at, at + 4, (1,))[0].tolist() == [2, 6, 10]


def test_the_kernels_refusal_is_an_error_and_what_is_left_of_another_request_is_not_taken() -> None:
    link = Netlink(NETLINK_SOCK_DIAG)
    request = struct.Struct("=BBBBI48s")
    try:
        with pytest.raises(FileNotFoundError):
            list(link.dump(SOCK_DIAG_BY_FAMILY, request.pack(socket.AF_INET, 77, 0, 0, 0xFFF, bytes(48))))
        nothing = request.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0, bytes(48))
        link.socket.send(message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, nothing, sequence=12_345))
        with socket.create_server(("127.0.0.1", 0)):
            chunks = link.dump(SOCK_DIAG_BY_FAMILY, request.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFF, bytes(48)))
            assert sum(len(chunk.starts) for chunk in chunks) > 0
    finally:
        link.close()
