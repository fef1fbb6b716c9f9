"""Whatever bytes a peer sends, in whatever pieces, a poll ends by its deadline with a reply or a SourceError."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.errors import SourceError
from cluster.ports import RawReply
from cluster.sources.tracer_socket import ProtocolName, TracerSocket
from cluster.sources.unix_http import get
from tests.sources.peers import Peer, chunked, http

pytestmark = pytest.mark.timeout(60)
BODY = b'{"connections":null}'
FRAGMENTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 500 \r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/",
        b"Content-Length: 20\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n",
        b"\n",
        b"14\r\n",
        b"0\r\n",
        b":",
        BODY,
        http(BODY),
        http(chunked(BODY), b"Transfer-Encoding: chunked", length=False),
        b"{",
        b"}",
        b"\x00",
        b"\xff" * 100,
        b" " * 70_000,
    ]
)
REPLIES = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=40)), max_size=8)


class Script:
    """A peer that sends the pieces it was told last, then closes or goes silent."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closes = True

    def behave(self, connection: socket.socket, stopped: threading.Event) -> None:
        pieces, closes = self.pieces, self.closes
        for piece in pieces:
            connection.sendall(piece)
        if not closes:
            with suppress(OSError):
                while connection.recv(65_536) and not stopped.is_set():  # until the other side gives up
                    pass


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, script: Script) -> Iterator[str]:
    with Peer(Path(tmp_path_factory.mktemp("peer")) / "t.sock", script.behave) as peer:
        yield peer.path


@settings(max_examples=200, deadline=None)
@given(pieces=REPLIES, closes=st.integers(0, 3), protocol=st.sampled_from(["auto", "http", "document"]))
def test_a_tracer_never_costs_more_than_a_source_error(
    path: str, script: Script, pieces: list[bytes], closes: int, protocol: ProtocolName
) -> None:
    script.pieces, script.closes = pieces, closes > 0
    source = TracerSocket(path, "x", protocol, timeout=0.05, reply_limit=60_000)
    reply: RawReply | None = None
    with suppress(SourceError):
        reply = source.poll(None)
    status = source.status()
    if reply is None:
        assert status["state"] in ("timeout", "malformed", "failed")
        assert status["message"].startswith(path)
    else:
        assert status["state"] == "ok"
        assert b"{" in reply.body
        assert len(reply.body) <= 60_000


@settings(max_examples=100, deadline=None)
@given(pieces=REPLIES, closes=st.integers(0, 3))
def test_get_never_costs_more_than_a_source_error(path: str, script: Script, pieces: list[bytes], closes: int) -> None:
    script.pieces, script.closes = pieces, closes > 0
    with suppress(SourceError):
        assert len(get(path, "/info", 0.05, 60_000)) <= 60_000
