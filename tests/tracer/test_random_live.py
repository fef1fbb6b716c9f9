"""Connections that live and end in random ways while a client polls at random moments: what is told must be what was true."""

from __future__ import annotations

import random
import socket
import struct
import time
from dataclasses import dataclass, field

import pytest

from tests.tracer.serving import DEADLINE, Row, Served, Watch, find
from tests.tracer.serving import ends as ends_of

CONNECTIONS = 200
LINGER_0 = struct.pack("ii", 1, 0)
BUSY = 30  # connections that are open at a time


@dataclass
class End:
    """One end, and what it did."""

    sock: socket.socket
    local: tuple[str, int]
    remote: tuple[str, int]
    sent: int = 0
    unread: int = 0
    may_send: bool = True
    closed: bool = False
    aborted: bool = False


@dataclass
class Life:
    """A connection and its true history."""

    ends: list[End]
    reset: bool = False
    rows: list[Row] = field(default_factory=list)


def begin(server: socket.socket, number: int) -> Life:
    # An address of its own: the kernel may give a client's port again.
    client = socket.create_connection(server.getsockname(), source_address=(f"127.1.{number // 250}.{number % 250 + 1}", 0))
    near, _ = server.accept()
    for sock in (client, near):
        sock.settimeout(DEADLINE)
    here, there = client.getsockname(), client.getpeername()
    return Life([End(client, here, there), End(near, there, here)])


def step(life: Life, chance: random.Random) -> None:
    """Something that a program could do."""
    one = chance.choice([end for end in life.ends if not end.closed])
    other = next(end for end in life.ends if end is not one)
    what = chance.choice(["send", "send", "read", "half", "close", "close", "abort"])
    if what == "send" and one.may_send and not other.closed and not life.reset:
        size = chance.randrange(1, 3_000)
        one.sock.sendall(b"x" * size)
        one.sent += size
        other.unread += size
        arrived(other)
    elif what == "read" and one.unread and not life.reset:
        one.unread -= len(one.sock.recv(chance.randrange(1, one.unread + 1)))
    elif what == "half" and one.may_send and not life.reset:
        one.sock.shutdown(socket.SHUT_WR)
        one.may_send = False
    elif what == "close":
        life.reset |= one.unread > 0
        one.sock.close()
        one.closed = True
    elif what == "abort" and not life.reset:
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        one.sock.close()
        one.closed = one.aborted = life.reset = True


def arrived(end: End) -> None:
    """Wait until all that was sent to it is in its kernel queue."""
    deadline = time.monotonic() + DEADLINE
    while len(end.sock.recv(end.unread, socket.MSG_PEEK)) < end.unread:
        assert time.monotonic() < deadline


def check(end: End, other: End, row: Row) -> None:
    sent, received = row["monotonic_sent_bytes"], row["monotonic_recv_bytes"]
    if end.aborted:  # as the last dump saw it, so perhaps less than all
        assert sent <= end.sent
        assert received <= other.sent + (not row["recv_exact"])
        return
    assert sent == end.sent
    assert received - other.sent in ((0,) if row["recv_exact"] else (0, 1)), (row, other.sent)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_told_is_what_was_true(served: Served, seed: int) -> None:
    chance = random.Random(seed)
    watch = Watch(served)
    lives: list[Life] = []
    busy: list[Life] = []
    with socket.create_server(("127.0.0.1", 0), backlog=BUSY) as server:
        while len(lives) < CONNECTIONS or busy:
            if len(lives) < CONNECTIONS and len(busy) < BUSY:
                lives.append(begin(server, len(lives)))
                busy.append(lives[-1])
            step(chance.choice(busy), chance)
            busy = [life for life in busy if not all(end.closed for end in life.ends)]
            if chance.random() < 0.05:
                watch.poll()
        ends = [(one, other) for life in lives for one, other in (life.ends, life.ends[::-1])]
        # An end that was aborted before any dump saw it says nothing of itself, and is not told.
        expected = [(one, other) for one, other in ends if not one.aborted]
        wanted = {(*one.local, *one.remote) for one, _ in expected}
        watch.until(lambda: wanted <= set(map(ends_of, watch.closed.values())))
        for one, other in expected:
            (row,) = find(watch.closed.values(), one.local, one.remote)
            check(one, other, row)
        for one, other in ends:
            if one.aborted:
                for row in find(watch.closed.values(), one.local, one.remote):
                    check(one, other, row)
