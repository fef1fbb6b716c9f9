"""The tracer at a unix socket, as a ConnectionSource.

Two kinds of tracer are known: one that speaks HTTP, and one that writes the JSON document to whoever connects and closes. "auto" tells
them apart without waiting: it sends the HTTP request at once. A server of HTTP answers it; a writer of documents never looks at it, and its
bytes reach us all the same (its close then looks like a reset, which ends a stream like any close). So neither waits for the other.

A tracer keeps the connections that closed for each `client_id`, and forgets them when that id has asked (or acked): so the id must be the
same for a node's collector at every start, and nobody else's.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from errno import EACCES, ECONNREFUSED, EPERM
from typing import Any, Literal
from urllib.parse import quote

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout
from cluster.ports import RawReply
from cluster.sources.unix_http import read_answer, read_to_end, request
from cluster.sources.unix_stream import Stream

SPEAKS_HTTP = b"HTTP/"
SHOWN = 40  # bytes of a strange reply that are shown
REMEDY = "start one (`rayscope tracer --socket PATH`), or set tracer.socket to the path of the one that runs"

ProtocolName = Literal["auto", "http", "document"]


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source does."""

    state: str  # "new" (not polled yet), "ok", "absent", "refused", "denied", "timeout", "malformed" or "failed"
    message: str = ""  # of the last error, while it is not ok
    since: float = 0.0  # s since 1970 when this state began; 0 while new
    polls: int = 0
    failures: int = 0  # of these polls


class TracerSocket:
    """A tracer's socket. Every poll is a connection of its own, so a tracer that was started again is simply found.

    `timeout` is seconds for one whole reply, `reply_limit` bytes of its body.
    """

    def __init__(
        self, path: str, client_id: str, protocol: ProtocolName = "auto", timeout: float = 10.0, reply_limit: int = 256_000_000
    ) -> None:
        self._path = path
        self._client_id = client_id
        self._protocol = protocol
        self._timeout = timeout
        self._limit = reply_limit
        self._state = SourceState("new")
        self._in_use: socket.socket | None = None
        self._closes = 0

    def poll(self, ack: str | None) -> RawReply:
        """One reply, unread but for its first and last byte.

        Raises SourceAbsent (no socket, nobody listens, a plain file or a directory), SourceTimeout, SourceMalformed (not its protocol,
        truncated, too large, not a JSON object), SourceError (not permitted, or an HTTP error).
        """
        try:
            reply = self._read(ack)
        except SourceError as error:
            self._note(state_of(error), str(error))
            raise
        self._note("ok", "")
        return reply

    def close(self) -> None:
        """Cut short a poll that another thread is in: it raises SourceError. Otherwise nothing is held between two polls."""
        self._closes += 1
        connection = self._in_use
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def status(self) -> dict[str, Any]:
        """SourceState as a map."""
        return asdict(self._state)

    def _read(self, ack: str | None) -> RawReply:
        closes = self._closes
        with Stream(self._path, self._timeout, REMEDY) as stream:
            self._in_use = stream.socket
            if self._closes != closes:
                raise SourceError(f"{self._path}: closed by us while connecting")
            try:
                body = self._converse(stream, ack)
            except SourceTimeout as error:
                raise SourceTimeout(f"{error}; {self._patience(stream.received)}") from error
            finally:
                self._in_use = None
        check_document(body, self._path)
        return RawReply(body, stream.peer, time.time())

    def _converse(self, stream: Stream, ack: str | None) -> bytes:
        target = self._target(ack)
        if self._protocol != "document":
            stream.send(request(target))
            if _answers_http(stream):
                return read_answer(stream, target, self._limit)
            if self._protocol == "http":
                raise SourceMalformed(f"{self._path}: {_no_http(stream)}")
        body = bytearray()
        read_to_end(stream, body, self._limit)
        return bytes(body)

    def _target(self, ack: str | None) -> str:
        """`ack` is for our own tracer; others pass over it."""
        acked = "" if ack is None else f"&ack={quote(ack, safe='')}"
        return f"/connections?client_id={quote(self._client_id, safe='')}{acked}"

    def _patience(self, received: int) -> str:
        if self._protocol == "document" and not received:
            return "if this tracer speaks HTTP, set tracer.protocol to auto"
        return "is the tracer stuck? If its replies take longer, raise tracer.timeout"

    def _note(self, state: str, message: str) -> None:
        old = self._state
        since = old.since if old.state == state else time.time()
        self._state = SourceState(state, message, since, old.polls + 1, old.failures + (state != "ok"))


def _answers_http(stream: Stream) -> bool:
    """Whether the reply begins as HTTP does; reads no more than it takes to tell."""
    while SPEAKS_HTTP.startswith(stream.buffer) and len(stream.buffer) < len(SPEAKS_HTTP) and stream.fill():
        pass
    return stream.buffer.startswith(SPEAKS_HTTP)


def _no_http(stream: Stream) -> str:
    if not stream.buffer:
        return "closed without an answer; did the tracer die?"
    return f"answered {bytes(stream.buffer[:SHOWN])!r} instead of HTTP; if it just writes the document, set tracer.protocol to auto"


def check_document(body: bytes, path: str) -> None:
    """Refuse, with what it is, a body that cannot be a tracer's JSON object; the inside is the decoder's. Raises SourceMalformed."""
    start = body.lstrip(b" \t\r\n")[:SHOWN] if body[:1].isspace() else body[:SHOWN]
    if not start:
        raise SourceMalformed(f"{path}: an empty reply; is this a tracer's socket?")
    if not start.startswith(b"{"):
        raise SourceMalformed(f"{path}: {_kind(start)} instead of a tracer's JSON object, beginning {start!r}; is this a tracer's socket?")
    if not body[-SHOWN:].rstrip().endswith((b"}", b"]")):
        raise SourceMalformed(f"{path}: truncated: the JSON breaks off after {len(body)} bytes, at {body[-SHOWN:]!r}; did the tracer die?")


def _kind(start: bytes) -> str:
    kinds = {b"<": "HTML or XML", b"\x1f\x8b": "gzip", b"[": "a JSON array", b"HTTP/": "HTTP (set tracer.protocol to auto)"}
    return next((kind for mark, kind in kinds.items() if start.startswith(mark)), "something else")


def state_of(error: SourceError) -> str:
    """The word for it in SourceState."""
    code = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    if code == ECONNREFUSED:
        return "refused"
    if code in (EACCES, EPERM):
        return "denied"
    kinds = ((SourceAbsent, "absent"), (SourceTimeout, "timeout"), (SourceMalformed, "malformed"))
    return next((word for kind, word in kinds if isinstance(error, kind)), "failed")
