"""What every ConnectionSource does: one suite over a tracer's HTTP socket, a socket that writes documents, and a recording."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed
from cluster.ports import ConnectionSource, RawReply
from cluster.sources.recording import Recorder
from cluster.sources.replay import ReplaySource
from cluster.sources.tracer_socket import ProtocolName, TracerSocket
from tests.sources.peers import Peer, document, http, read_request

pytestmark = pytest.mark.timeout(60)
BODIES = [document(instance="i", reply_id="1"), document({"pid": 1}, instance="i", reply_id="2"), b'{"connections":null}']


@dataclass
class Place:
    """Where a source finds its replies, or something else."""

    source: Callable[[], ConnectionSource]
    provide: Callable[[list[bytes]], object]  # from now on these, in order
    spoil: Callable[[], object]  # from now on something that is no reply


class Socket:
    """A tracer's socket that gives prepared replies."""

    def __init__(self, path: Path, speaks_http: bool, stack: ExitStack) -> None:
        self._path, self._http, self._stack = path, speaks_http, stack
        self._replies: list[bytes] = []
        self._open = False

    def provide(self, replies: list[bytes]) -> None:
        self._replies = list(replies)
        if not self._open:
            self._open = True
            self._stack.enter_context(Peer(self._path, self._behave))

    def _behave(self, connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG002
        if self._http:
            read_request(connection)
        body = self._replies.pop(0)
        connection.sendall(http(body) if self._http else body)


def record(path: Path, bodies: list[bytes]) -> None:
    path.unlink(missing_ok=True)
    with Recorder(path) as recorder:
        for number, body in enumerate(bodies):
            recorder.append(RawReply(body, "12:34", 1_700_000_000.0 + number))


@pytest.fixture(params=["http", "document", "auto-http", "auto-document", "replay"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    path = tmp_path / "source"
    with ExitStack() as stack:
        if request.param == "replay":
            source = ReplaySource(path)
            stack.callback(source.close)
            yield Place(lambda: source, lambda bodies: record(path, bodies), lambda: path.write_bytes(b"no recording"))
            return
        server = Socket(path, "http" in request.param, stack)
        protocol: ProtocolName = "auto" if "auto" in request.param else request.param
        yield Place(
            lambda: TracerSocket(str(path), "x", protocol, 5.0), server.provide, lambda: server.provide([b"\x00\x01\x02", b"<html>"])
        )


def test_gives_each_reply_in_order_as_it_came(place: Place) -> None:
    place.provide(BODIES)
    source = place.source()
    replies = [source.poll(ack) for ack in (None, "1", "2")]
    assert [reply.body for reply in replies] == BODIES
    assert all(json.loads(reply.body) for reply in replies)


def test_says_who_answered_and_when(place: Place) -> None:
    place.provide(BODIES)
    source = place.source()
    first, second = source.poll(None), source.poll(None)
    assert first.peer == second.peer != ""
    pid, _, started = first.peer.partition(":")
    assert pid.isdigit()
    assert started.isdigit()
    assert 1_600_000_000 < first.received_at <= second.received_at


def test_absent_is_an_error_and_what_appears_later_is_found(place: Place) -> None:
    source = place.source()
    for _ in range(2):
        with pytest.raises(SourceAbsent, match=r"no such .*; "):
            source.poll(None)
    place.provide(BODIES)
    assert source.poll(None).body == BODIES[0]


def test_what_is_no_reply_is_malformed(place: Place) -> None:
    place.spoil()
    source = place.source()
    for _ in range(2):
        with pytest.raises(SourceMalformed) as caught:
            source.poll(None)
        assert isinstance(caught.value, SourceError)
        assert "source: " in str(caught.value)


def test_close_may_be_called_at_any_time_and_a_later_poll_opens_anew(place: Place) -> None:
    source = place.source()
    source.close()
    place.provide(BODIES)
    source.poll(None)
    source.close()
    source.close()
    place.provide(BODIES)
    assert source.poll(None).body == BODIES[0]
