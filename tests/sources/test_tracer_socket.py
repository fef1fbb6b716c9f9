"""The client of a tracer's socket against real peers: what it reads, what it refuses and with which words."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from pathlib import Path

import pytest

from cluster.core.errors import SourceError, SourceMalformed, SourceTimeout
from cluster.sources.tracer_socket import TracerSocket
from tests.sources.peers import (
    BODY,
    LATER,
    LIMIT,
    SOON,
    Behaviour,
    Peer,
    answers,
    chunked,
    document,
    http,
    in_pieces,
    keeps_open,
    read_request,
    repeats,
    tracer,
    writes,
)

pytestmark = pytest.mark.timeout(60)
GOOD: dict[str, Behaviour] = {
    "content length": answers(http(BODY)),
    "to the end": answers(http(BODY, length=False)),
    "chunked": answers(http(chunked(BODY[:10], BODY[10:11], BODY[11:]), b"Transfer-Encoding: chunked", length=False)),
    "chunk extensions and trailers": answers(
        http(b"%X ;name=value\r\n%s\r\n000\r\nX-Sum: 1\r\n\r\n" % (len(BODY), BODY), b"transfer-encoding:Chunked", length=False)
    ),
    "sniffed content type": answers(http(BODY, b"Content-Type: text/plain; charset=utf-8")),
    "interim answer first": answers(b"HTTP/1.1 100 Continue\r\n\r\n" + http(BODY)),
    "HTTP 1.0 with bare line feeds": answers(b"HTTP/1.0 200 OK\n\n" + BODY),
    "keeps the connection open": keeps_open(http(BODY)),
    "answers without reading": writes(http(BODY)),
    "HTTP in small pieces": in_pieces(http(BODY), 3),
    "chunks in small pieces": in_pieces(http(chunked(BODY), b"Transfer-Encoding: chunked", length=False), 2),
    "document": writes(BODY),
    "document after reading": answers(BODY),
    "document in small pieces": in_pieces(BODY, 3),
    "document with space around": writes(b"\r\n  " + BODY + b"\n\n"),
}

BAD: dict[str, tuple[Behaviour, float, type[SourceError], str]] = {
    "closes at once": (writes(b""), LATER, SourceMalformed, "an empty reply"),
    "closes after the request": (answers(b""), LATER, SourceMalformed, "an empty reply"),
    "says nothing": (keeps_open(b""), SOON, SourceTimeout, "no answer within 0.3 s; is the tracer stuck"),
    "stops in the head": (keeps_open(b"HTTP/1.1 200 OK\r\nContent-"), SOON, SourceTimeout, "only 25 bytes"),
    "stops in the body": (keeps_open(http(BODY + b" ")[:-1]), SOON, SourceTimeout, "no complete answer"),
    "trickles a document": (repeats(b'{"connections":[', b" ", 0.01), SOON, SourceTimeout, "no complete answer"),
    "trickles a body": (repeats(b"HTTP/1.1 200 OK\r\n\r\n{", b" ", 0.01), SOON, SourceTimeout, "no complete answer"),
    "trickles headers": (repeats(b"HTTP/1.1 200 OK\r\n", b"a:b\r\n", 0.01), SOON, SourceTimeout, "no complete answer"),
    "endless document": (repeats(b"{", b" " * 10_000), LATER, SourceMalformed, f"larger than {LIMIT} bytes"),
    "endless body": (repeats(b"HTTP/1.1 200 OK\r\n\r\n{", b" " * 10_000), LATER, SourceMalformed, f"larger than {LIMIT} bytes"),
    "endless chunks": (
        repeats(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 999),
        LATER,
        SourceMalformed,
        f"larger than {LIMIT} bytes",
    ),
    "endless status line": (repeats(b"HTTP/1.1 200 ", b"O" * 1000), LATER, SourceMalformed, "a line of more than"),
    "endless headers": (repeats(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 999), LATER, SourceMalformed, "bytes of HTTP headers"),
    "endless trailers": (
        repeats(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 999),
        LATER,
        SourceMalformed,
        "bytes of HTTP headers",
    ),
    "endless interim answers": (repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), LATER, SourceMalformed, "no final one"),
    "huge announced": (answers(http(BODY, b"Content-Length: 999999999999999999", length=False)), LATER, SourceMalformed, "larger than"),
    "huge chunk announced": (
        answers(http(b"fffffffffffffff\r\n{}", b"Transfer-Encoding: chunked", length=False)),
        LATER,
        SourceMalformed,
        "larger than",
    ),
    "less than announced": (
        answers(http(BODY, b"Content-Length: 5000", length=False)),
        LATER,
        SourceMalformed,
        f"truncated: closed after {len(BODY)} of 5000 announced bytes",
    ),
    "more than announced": (
        answers(http(BODY, b"Content-Length: 20", length=False)),
        LATER,
        SourceMalformed,
        "truncated: the JSON breaks off",
    ),
    "negative length": (answers(http(BODY, b"Content-Length: -1", length=False)), LATER, SourceMalformed, "no number of bytes"),
    "two lengths": (answers(http(BODY, b"Content-Length: 5")), LATER, SourceMalformed, "no number of bytes"),
    "chunk without a size": (
        answers(http(b"zz\r\n{}", b"Transfer-Encoding: chunked", length=False)),
        LATER,
        SourceMalformed,
        "size of a chunk",
    ),
    "chunk of negative size": (
        answers(http(b"-2\r\n{}", b"Transfer-Encoding: chunked", length=False)),
        LATER,
        SourceMalformed,
        "size of a chunk",
    ),
    "chunk too long": (
        answers(http(b"2\r\n{}{}\r\n", b"Transfer-Encoding: chunked", length=False)),
        LATER,
        SourceMalformed,
        "a chunk longer",
    ),
    "chunk cut short": (answers(http(b"20\r\n{}", b"Transfer-Encoding: chunked", length=False)), LATER, SourceMalformed, "truncated"),
    "no last chunk": (
        answers(http(chunked(BODY)[:-5], b"Transfer-Encoding: chunked", length=False)),
        LATER,
        SourceMalformed,
        "within a line of HTTP",
    ),
    "unknown coding": (answers(http(BODY, b"Transfer-Encoding: gzip, chunked")), LATER, SourceMalformed, "only chunked is understood"),
    "compressed body": (answers(http(gzip.compress(BODY), b"Content-Encoding: gzip")), LATER, SourceMalformed, "compressed"),
    "gzip bytes": (writes(gzip.compress(BODY)), LATER, SourceMalformed, "gzip instead of a tracer's JSON object"),
    "gzip bytes over HTTP": (answers(http(gzip.compress(BODY))), LATER, SourceMalformed, "gzip instead of a tracer's JSON object"),
    "HTML": (answers(http(b"<html>hello</html>", b"Content-Type: application/json")), LATER, SourceMalformed, "HTML or XML"),
    "a JSON array": (answers(http(b"[]")), LATER, SourceMalformed, "a JSON array"),
    "another protocol": (writes(b"SSH-2.0-OpenSSH_9.2\r\n"), LATER, SourceMalformed, "beginning b'SSH-2.0-OpenSSH"),
    "another status line": (answers(b"HTTP/2 200\r\n\r\n{}"), LATER, SourceMalformed, "instead of HTTP"),
    "a header without a colon": (answers(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n{}"), LATER, SourceMalformed, "where HTTP has a header"),
    "no body": (answers(http(b"")), LATER, SourceMalformed, "an empty reply"),
    "only space": (answers(http(b" \r\n ")), LATER, SourceMalformed, "an empty reply"),
    "truncated document": (writes(BODY[:-20]), LATER, SourceMalformed, f"the JSON breaks off after {len(BODY) - 20} bytes"),
    "reset in the document": (writes(b'{"connections":[{"pid":'), LATER, SourceMalformed, "the JSON breaks off"),
    "reset in the body": (writes(http(BODY)[:-9]), LATER, SourceMalformed, f"closed after {len(BODY) - 9} of {len(BODY)} announced bytes"),
    "reset in the head": (writes(b"HTTP/1.1 200 OK\r\nCont"), LATER, SourceMalformed, "within a line of HTTP"),
    "500 with nothing": (
        answers(http(b"", status=b"500 Internal Server Error")),
        LATER,
        SourceError,
        "HTTP 500 Internal Server Error, with an empty body",
    ),
    "404": (
        answers(http(b'{"message": "page not found"}', status=b"404 Not Found")),
        LATER,
        SourceError,
        'HTTP 404 Not Found, saying: {"message"',
    ),
    "500 that never ends": (repeats(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 99), LATER, SourceError, "HTTP 500 No, saying: xxx"),
}


@pytest.mark.parametrize("behave", GOOD.values(), ids=GOOD)
def test_reads_a_reply(tmp_path: Path, behave: Behaviour) -> None:
    with Peer(tmp_path / "t.sock", behave) as peer:
        source = tracer(peer)
        first, second = source.poll(None), source.poll(None)
    assert json.loads(first.body) == json.loads(BODY)
    assert second.body == first.body
    assert second.received_at >= first.received_at > 1_500_000_000
    assert source.status()["state"] == "ok"


@pytest.mark.parametrize(("behave", "timeout", "kind", "words"), BAD.values(), ids=BAD)
def test_refuses_a_reply(tmp_path: Path, behave: Behaviour, timeout: float, kind: type[SourceError], words: str) -> None:
    with Peer(tmp_path / "t.sock", behave) as peer:
        source = tracer(peer, timeout)
        with pytest.raises(SourceError) as caught:
            source.poll(None)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{peer.path}: ")
    assert words in str(caught.value)
    status = source.status()
    assert status["message"] == str(caught.value)
    assert (status["polls"], status["failures"]) == (1, 1)


def test_a_reply_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    body = BODY[:-1] + b" " * (LIMIT - len(BODY)) + b"}"
    for data in (body, http(body), http(body, length=False), http(chunked(body), b"Transfer-Encoding: chunked", length=False)):
        with Peer(tmp_path / "t.sock", answers(data)) as peer:
            assert len(tracer(peer).poll(None).body) == LIMIT


def test_a_large_reply_comes_whole(tmp_path: Path) -> None:
    body = document(*[{"pid": number} for number in range(500_000)])
    with Peer(tmp_path / "t.sock", answers(http(body))) as peer:
        assert TracerSocket(peer.path, "x").poll(None).body == body


def test_asks_with_its_client_id_and_ack(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def behave(connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG001
        asked.append(read_request(connection))
        connection.sendall(http(BODY))

    with Peer(tmp_path / "t.sock", behave) as peer:
        source = tracer(peer)
        source.poll(None)
        source.poll("a b&c=1\r\nX: ü")
    assert asked == [
        b"GET /connections?client_id=rayscope-node HTTP/1.1",
        b"GET /connections?client_id=rayscope-node&ack=a%20b%26c%3D1%0D%0AX%3A%20%C3%BC HTTP/1.1",
    ]


def test_a_forced_document_is_read_without_a_word(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def behave(connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG001
        connection.sendall(BODY)
        connection.shutdown(socket.SHUT_WR)
        heard.append(connection.recv(1000))

    with Peer(tmp_path / "t.sock", behave) as peer:
        assert tracer(peer, protocol="document").poll("ack").body == BODY
    assert heard == [b""]


def test_the_wrong_forced_protocol_is_said(tmp_path: Path) -> None:
    with Peer(tmp_path / "h.sock", answers(http(BODY))) as peer, pytest.raises(SourceTimeout, match=r"set tracer\.protocol to auto"):
        tracer(peer, SOON, "document").poll(None)
    with Peer(tmp_path / "d.sock", writes(BODY)) as peer, pytest.raises(SourceMalformed, match=r"set tracer\.protocol to auto"):
        tracer(peer, protocol="http").poll(None)
    with Peer(tmp_path / "n.sock", writes(b"")) as peer, pytest.raises(SourceMalformed, match="closed without an answer"):
        tracer(peer, protocol="http").poll(None)
