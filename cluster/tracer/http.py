"""The little of HTTP that the tracer speaks: GET requests with a query, one to a connection, answered in JSON. Source: RFC 9112."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from cluster.core.errors import TracerError
from cluster.tracer.closes import TooManyClients
from cluster.tracer.tracer import Tracer

HEAD_LIMIT = 8_192  # bytes of a request's head
CLIENT_ID_LIMIT = 128
FIELDS_LIMIT = 20
NOBODY = "-1"  # the client_id of those who name none
CONNECTIONS = "/connections"
END = b"\r\n\r\n"

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked."""

    path: str
    query: dict[str, str]

    @property
    def client_id(self) -> str:
        """Who asks."""
        return self.query.get("client_id", NOBODY)


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered: a status and pieces of JSON."""

    status: int
    pieces: list[bytes]

    def packed(self) -> list[bytes]:
        """Head and body."""
        head = f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\nContent-Type: application/json\r\n"
        head += "Allow: GET\r\n" if self.status == 405 else ""
        head += f"Content-Length: {sum(map(len, self.pieces))}\r\nConnection: close\r\n\r\n"
        return [head.encode(), *self.pieces]


def refusal(status: int, reason: str) -> Response:
    """An answer that says why there is none."""
    return Response(status, [json.dumps({"error": reason}).encode()])


def is_whole(raw: bytes) -> bool:
    """Whether a request's head has come, or as much as is read of one."""
    return END in raw or len(raw) > HEAD_LIMIT


def parse(raw: bytes) -> Request | Response:
    """A request, or the refusal that it gets."""
    head, end, _ = raw.partition(END)
    if len(head) > HEAD_LIMIT:
        return refusal(431, f"a request's head has at most {HEAD_LIMIT} bytes")
    words = head.split(b"\r\n")[0].decode("latin-1").split(" ")
    if not end or len(words) != 3 or not words[2].startswith("HTTP/1."):
        return refusal(400, "expected a request such as: GET /connections?client_id=NAME HTTP/1.1")
    try:
        target = urlsplit(words[1])
        query = {name: values[-1] for name, values in parse_qs(target.query, max_num_fields=FIELDS_LIMIT).items()}
    except ValueError as error:
        return refusal(400, f"the path cannot be read: {error}")
    if target.path not in ROUTES:
        return refusal(404, f"no such path; there are {', '.join(ROUTES)}")
    if words[0] != "GET":
        return refusal(405, "only GET is served")
    request = Request(target.path, query)
    if len(request.client_id) > CLIENT_ID_LIMIT:
        return refusal(400, f"a client_id has at most {CLIENT_ID_LIMIT} characters")
    return request


def respond(tracer: Tracer, request: Request) -> Response:
    """The answer to a request."""
    try:
        return Response(200, list(ROUTES[request.path](tracer, request)))
    except TooManyClients as error:
        return refusal(503, str(error))
    except TracerError as error:
        return refusal(500, str(error))


def connections(tracer: Tracer, request: Request) -> Iterable[bytes]:
    """GET /connections."""
    return tracer.connections(request.client_id, request.query.get("ack"))


def status(tracer: Tracer, _: Request) -> Iterable[bytes]:
    """GET /status."""
    return [json.dumps(tracer.status()).encode()]


def stats(tracer: Tracer, _: Request) -> Iterable[bytes]:
    """GET /debug/stats."""
    return [json.dumps(tracer.stats()).encode()]


ROUTES: dict[str, Callable[[Tracer, Request], Iterable[bytes]]] = {
    CONNECTIONS: connections,
    "/status": status,
    "/debug/stats": stats,
}
