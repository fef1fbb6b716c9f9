"""HTTP/1.1 on the unix socket, and the loop that everything runs in: one thread, nothing in it waits for a client."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

from cluster.core.errors import TracerError
from cluster.tracer.tracer import Tracer

REQUEST_LIMIT = 8_192  # bytes of a request's head
CLIENT_ID_LIMIT = 128
CONNECTIONS_LIMIT = 16
REQUEST_SECONDS = 5.0  # a request must have come by then
REPLY_SECONDS = 30.0  # and its reply gone
PIECE = 262_144  # bytes written at one time
TICK = 1.0

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 431: "Request Header Fields Too Large"}
REASONS |= {500: "Internal Server Error", 503: "Service Unavailable"}


class Exchange:
    """One client's request and its reply."""

    def __init__(self, sock: socket.socket, now: float):
        self.socket = sock
        self.deadline = now + REQUEST_SECONDS
        self.request = b""
        self.reply: list[memoryview] = []

    def take(self) -> bool:
        """Read what has come; True once the head is whole or will never be."""
        try:
            got = self.socket.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return False
        self.request += got
        return b"\r\n\r\n" in self.request or len(self.request) > REQUEST_LIMIT or not got

    def answer(self, status: int, pieces: list[bytes], now: float) -> None:
        """Queue a reply."""
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {sum(map(len, pieces))}\r\nConnection: close\r\n\r\n"
        self.reply = [memoryview(piece) for piece in [head.encode(), *pieces]]
        self.deadline = now + REPLY_SECONDS

    def give(self) -> bool:
        """Write what the client takes now; True once all is written."""
        while self.reply:
            try:
                sent = self.socket.send(self.reply[0][:PIECE])
            except BlockingIOError:
                return False
            self.reply[0] = self.reply[0][sent:]
            if not self.reply[0]:
                self.reply.pop(0)
        return True


class Server:
    """Serves a tracer on a listening socket until it is told to stop."""

    def __init__(self, tracer: Tracer, listener: socket.socket):
        self.tracer = tracer
        self.listener = listener
        self.listener.setblocking(False)
        self.exchanges: dict[socket.socket, Exchange] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self._accept)
        self._watched: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Go on for ever; the signal handlers end it by raising SystemExit."""
        while True:
            self._watch_events()
            for key, _ in self.selector.select(TICK):
                call: Callable[[socket.socket], None] = key.data
                call(key.fileobj)  # type: ignore[arg-type]
            self._expire(time.monotonic())

    def _watch_events(self) -> None:
        for inode, namespace in self.tracer.namespaces.items():
            if inode not in self._watched:
                self._watched[inode] = namespace.events.socket
                self.selector.register(namespace.events.socket, selectors.EVENT_READ, self._events)

    def _events(self, _: socket.socket) -> None:
        self.tracer.read_events()

    def _accept(self, _: socket.socket) -> None:
        try:
            sock, _address = self.listener.accept()
        except OSError:
            return
        if len(self.exchanges) >= CONNECTIONS_LIMIT:
            sock.close()
            return
        sock.setblocking(False)
        self.exchanges[sock] = Exchange(sock, time.monotonic())
        self.selector.register(sock, selectors.EVENT_READ, self._request)

    def _request(self, sock: socket.socket) -> None:
        exchange = self.exchanges[sock]
        try:
            if not exchange.take():
                return
        except OSError:
            self._drop(sock)
            return
        status, pieces = respond(self.tracer, exchange.request)
        exchange.answer(status, pieces, time.monotonic())
        self.selector.modify(sock, selectors.EVENT_WRITE, self._write)
        self._write(sock)

    def _write(self, sock: socket.socket) -> None:
        try:
            done = self.exchanges[sock].give()
        except OSError:
            done = True
        if done:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self.selector.unregister(sock)
        del self.exchanges[sock]
        sock.close()

    def _expire(self, now: float) -> None:
        for sock in [sock for sock, exchange in self.exchanges.items() if now > exchange.deadline]:
            self._drop(sock)


def respond(tracer: Tracer, request: bytes) -> tuple[int, list[bytes]]:
    """Status and body for the head of a request."""
    head, whole, _ = request.partition(b"\r\n\r\n")
    if not whole:
        return (431 if len(head) > REQUEST_LIMIT else 400), [problem("the request has no end")]
    words = head.split(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return 400, [problem("expected: GET PATH HTTP/1.1")]
    try:
        target = urlsplit(words[1])
        query = {name: values[-1] for name, values in parse_qs(target.query, max_num_fields=20).items()}
    except ValueError as error:
        return 400, [problem(str(error))]
    if target.path not in ROUTES:
        return 404, [problem(f"no such path; there are {', '.join(ROUTES)}")]
    if words[0] != "GET":
        return 405, [problem("only GET is served")]
    try:
        return 200, list(ROUTES[target.path](tracer, query))
    except TracerError as error:
        return 500, [problem(str(error))]


def connections(tracer: Tracer, query: dict[str, str]) -> Iterator[bytes]:
    """GET /connections."""
    client_id = query.get("client_id", "-1")[:CLIENT_ID_LIMIT]
    return tracer.connections(client_id, query.get("ack"))


def status(tracer: Tracer, _: dict[str, str]) -> list[bytes]:
    """GET /status."""
    return [json.dumps(tracer.status()).encode()]


def stats(tracer: Tracer, _: dict[str, str]) -> list[bytes]:
    """GET /debug/stats."""
    return [json.dumps(tracer.stats()).encode()]


def problem(reason: str) -> bytes:
    """The body of a refusal."""
    return json.dumps({"error": reason}).encode()


ROUTES: dict[str, Callable[[Tracer, dict[str, str]], Iterator[bytes] | list[bytes]]] = {
    "/connections": connections,
    "/status": status,
    "/debug/stats": stats,
}
