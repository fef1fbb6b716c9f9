"""HTTP/1.1 GET over a unix socket: for tracers and for Docker.

Bodies may have a Content-Length, be chunked, or end where the connection ends. Nothing the peer announces is believed beyond what it
sends: the size is counted as it comes, one deadline covers the whole reply, and Content-Type is not looked at.
"""

from __future__ import annotations

import re
from contextlib import suppress

from cluster.core.errors import SourceError, SourceMalformed
from cluster.sources.unix_stream import Stream

HEAD_LIMIT = 65_536  # bytes of a status line with its headers, and of the trailers
LINE_LIMIT = 16_384
INTERIM_LIMIT = 8  # answers like "100 Continue" before the real one
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: (.*))?")
CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")
LENGTH = re.compile(rb"[0-9]{1,18}")
EXCERPT = 300  # bytes of an error's body that are shown

Headers = dict[bytes, list[bytes]]


def get(path: str, target: str, timeout: float, limit: int, remedy: str = "is the service behind it running?") -> bytes:
    """The body of a 200 answer to GET `target` at the unix socket `path`.

    `timeout` is seconds for all of it, `limit` bytes of the body. Raises SourceAbsent (no socket, or nobody listens; the message ends with
    `remedy`), SourceTimeout, SourceMalformed (not HTTP, truncated, too large), or SourceError (not permitted, another status than 200).
    """
    with Stream(path, timeout, remedy) as stream:
        stream.send(request(target))
        return read_answer(stream, target, limit)


def request(target: str) -> bytes:
    """The bytes of the request; `target` is percent-encoded ASCII."""
    lines = (f"GET {target} HTTP/1.1", "Host: localhost", "User-Agent: rayscope", "Accept-Encoding: identity", "Connection: close", "", "")
    return "\r\n".join(lines).encode("ascii")


def read_answer(stream: Stream, target: str, limit: int) -> bytes:
    """The body of the answer that comes on `stream`; raises like `get`."""
    status, reason, headers = read_head(stream)
    if status != 200:
        raise SourceError(f"{stream.path}: GET {target}: HTTP {status} {reason}".rstrip() + f", {excerpt(stream, headers)}")
    if any(value.lower() not in (b"", b"identity") for value in headers.get(b"content-encoding", ())):
        raise SourceMalformed(f"{stream.path}: GET {target}: the body is compressed, though only plain was asked for")
    return read_body(stream, headers, limit)


def read_head(stream: Stream) -> tuple[int, str, Headers]:
    """Status, reason and headers of the final answer. Raises SourceMalformed."""
    for _ in range(INTERIM_LIMIT):
        line = stream.line(LINE_LIMIT)
        found = STATUS_LINE.fullmatch(line)
        if found is None:
            raise SourceMalformed(f"{stream.path}: answered {line[:40]!r} instead of HTTP")
        headers = _read_headers(stream)
        if int(found[1]) >= 200:
            return int(found[1]), (found[2] or b"").decode("latin-1")[:EXCERPT], headers
    raise SourceMalformed(f"{stream.path}: {INTERIM_LIMIT} interim answers and no final one")


def _read_headers(stream: Stream) -> Headers:
    headers: Headers = {}
    left = HEAD_LIMIT
    while line := stream.line(LINE_LIMIT):
        left -= len(line) + 2
        if left < 0:
            raise SourceMalformed(f"{stream.path}: more than {HEAD_LIMIT} bytes of HTTP headers")
        name, colon, value = line.partition(b":")
        if not colon:
            raise SourceMalformed(f"{stream.path}: {line[:40]!r} where HTTP has a header")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    return headers


def read_body(stream: Stream, headers: Headers, limit: int) -> bytes:
    """The body that these headers announce. Raises SourceMalformed beyond `limit` bytes and where it is cut."""
    body = bytearray()
    if codings := headers.get(b"transfer-encoding"):
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise SourceMalformed(f"{stream.path}: Transfer-Encoding {codings[0][:40]!r}: only chunked is understood")
        _read_chunks(stream, body, limit)
    elif lengths := headers.get(b"content-length"):
        if len(set(lengths)) != 1 or not LENGTH.fullmatch(lengths[0]):
            raise SourceMalformed(f"{stream.path}: Content-Length {b', '.join(lengths)[:40]!r} is no number of bytes")
        _read_exactly(stream, body, int(lengths[0]), limit)
    else:
        read_to_end(stream, body, limit)
    return bytes(body)


def _read_chunks(stream: Stream, body: bytearray, limit: int) -> None:
    while True:
        line = stream.line(LINE_LIMIT)
        found = CHUNK_LINE.fullmatch(line)
        if found is None:
            raise SourceMalformed(f"{stream.path}: {line[:40]!r} where HTTP has the size of a chunk, after {len(body)} bytes of body")
        size = int(found[1], 16)
        if not size:
            _read_headers(stream)  # trailers
            return
        _read_exactly(stream, body, size, limit)
        if stream.line(LINE_LIMIT):
            raise SourceMalformed(f"{stream.path}: a chunk longer than its size, after {len(body)} bytes of body")


def _read_exactly(stream: Stream, body: bytearray, size: int, limit: int) -> None:
    wanted = len(body) + size
    if wanted > limit:
        raise too_large(stream, limit)
    while len(body) < wanted:
        piece = stream.some(wanted - len(body))
        if not piece:
            raise SourceMalformed(f"{stream.path}: truncated: closed after {len(body)} of {wanted} announced bytes")
        body += piece


def read_to_end(stream: Stream, body: bytearray, limit: int) -> None:
    """Add all that comes until the peer closes. Raises SourceMalformed beyond `limit` bytes."""
    while piece := stream.some(limit - len(body) + 1):
        body += piece
        if len(body) > limit:
            raise too_large(stream, limit)


def too_large(stream: Stream, limit: int) -> SourceMalformed:
    """The error for a reply beyond its limit."""
    return SourceMalformed(
        f"{stream.path}: the reply is larger than {limit} bytes, the most that is read of one; "
        "raise its limit if it is meant (of a tracer: tracer.reply_limit, of a kubelet: kubelet.reply_limit)"
    )


def excerpt(stream: Stream, headers: Headers) -> str:
    """What a refusal says of itself, as far as it says it in time."""
    body = bytearray()
    with suppress(SourceError):
        _read_body_start(stream, headers, body)
    text = " ".join(bytes(body[:EXCERPT]).decode("utf-8", "replace").split())
    return f"saying: {text}" if text else "with an empty body"


def _read_body_start(stream: Stream, headers: Headers, body: bytearray) -> None:
    if b"transfer-encoding" in headers:
        _read_chunks(stream, body, EXCERPT)
    elif (length := headers.get(b"content-length", [b""])[0]) and LENGTH.fullmatch(length):
        _read_exactly(stream, body, min(int(length), EXCERPT), EXCERPT)
    else:
        read_to_end(stream, body, EXCERPT)
