"""The loop that everything runs in: one thread, in which nothing waits for a client.

Destroy events wake the loop, and then it lets a moment pass before it reads the next ones: they wait in a large buffer of the kernel, and
many are decoded as fast as one. What is read is in the journal; what is still in that buffer dies with the process.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque

from cluster.tracer.http import CONNECTIONS, HEAD_LIMIT, Response, is_whole, parse, refusal, respond
from cluster.tracer.tracer import Tracer

EXCHANGES_LIMIT = 16  # clients that are served at a time; others wait in the listening socket's queue
QUEUED_LIMIT = 256 << 20  # bytes of replies that clients have not taken yet
REQUEST_SECONDS = 3.0  # a request must have come by then
REPLY_SECONDS = 30.0  # and its reply gone
ACCEPT_PAUSE = 0.01
PIECE = 262_144  # bytes written at one time
TICK_SECONDS = 0.25  # between two looks for new namespaces and for what is overdue
BUSY_SECONDS = 0.05  # between two looks for destroy events while they come


class Exchange:
    """One client's request and the reply to it."""

    def __init__(self, sock: socket.socket, now: float):
        self.socket = sock
        self.deadline = now + REQUEST_SECONDS
        self.client_id: str | None = None  # of one that asks for connections
        self.request = b""
        self.reply: deque[memoryview] = deque()

    @property
    def queued(self) -> int:
        """Bytes that the client has not taken."""
        return sum(map(len, self.reply))

    def take(self) -> bool:
        """Read what has come; whether the request is whole, or nothing more will come. Raises OSError."""
        try:
            got = self.socket.recv(HEAD_LIMIT)
        except BlockingIOError:
            return False
        self.request += got
        return not got or is_whole(self.request)

    def answer(self, response: Response, now: float) -> None:
        """Queue the reply."""
        self.reply = deque(memoryview(piece) for piece in response.packed())
        self.deadline = now + REPLY_SECONDS

    def give(self) -> bool:
        """Write what the client takes now; whether that was all. Raises OSError."""
        while self.reply:
            try:
                sent = self.socket.send(self.reply[0][:PIECE])
            except BlockingIOError:
                return False
            self.reply[0] = self.reply[0][sent:]
            if not self.reply[0]:
                self.reply.popleft()
        return True


class Server:
    """Serves a tracer on a listening socket."""

    def __init__(self, tracer: Tracer, listener: socket.socket):
        self.tracer = tracer
        self.listener = listener
        self.exchanges: dict[socket.socket, Exchange] = {}
        self.selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ)
        self._waits = False  # for destroy events, to read them at once

    def run(self) -> None:
        """Go on for ever: signal handlers end it by raising SystemExit."""
        next_tick = 0.0
        while True:
            for key, _ in self.selector.select(max(next_tick - time.monotonic(), 0.0)):
                sock = key.fileobj
                if isinstance(sock, socket.socket):
                    self._serve(sock)
                else:
                    next_tick = 0.0
            if time.monotonic() >= next_tick:
                busy = self.tracer.tick() > 0
                self._expire(time.monotonic())
                self._wait(for_events=not busy and bool(self.tracer.closes.clients))
                next_tick = time.monotonic() + (BUSY_SECONDS if busy else TICK_SECONDS)

    def close(self) -> None:
        """Drop all clients."""
        for sock in list(self.exchanges):
            self._drop(sock)
        self.selector.close()

    def _wait(self, *, for_events: bool) -> None:
        if for_events and not self._waits:
            self.selector.register(self.tracer.namespaces.arrivals, selectors.EVENT_READ)
        if self._waits and not for_events:
            self.selector.unregister(self.tracer.namespaces.arrivals)
        self._waits = for_events

    def _serve(self, sock: socket.socket) -> None:
        if sock is self.listener:
            self._accept()
            return
        exchange = self.exchanges.get(sock)
        if exchange is None:  # dropped a moment ago
            return
        with contextlib.suppress(OSError):
            if not exchange.reply and not exchange.take():
                return
            if not exchange.reply:
                self._answer(exchange)
            if not exchange.give():
                return
        self._drop(sock)

    def _accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:  # it has gone already, or we are out of descriptors: that must be no hot loop
            time.sleep(ACCEPT_PAUSE)
            return
        sock.setblocking(False)
        self.exchanges[sock] = Exchange(sock, time.monotonic())
        self.selector.register(sock, selectors.EVENT_READ)
        if len(self.exchanges) >= EXCHANGES_LIMIT:
            self.selector.unregister(self.listener)

    def _answer(self, exchange: Exchange) -> None:
        request = parse(exchange.request)
        if isinstance(request, Response):
            response = request
        else:
            if request.path == CONNECTIONS:
                self._replace(request.client_id)
                exchange.client_id = request.client_id
            full = sum(other.queued for other in self.exchanges.values()) > QUEUED_LIMIT
            response = refusal(503, "other clients are slow to take their replies; try again") if full else respond(self.tracer, request)
        exchange.answer(response, time.monotonic())
        self.selector.modify(exchange.socket, selectors.EVENT_WRITE)

    def _replace(self, client_id: str) -> None:
        """A client that asks again has given up its earlier request."""
        for sock in [sock for sock, other in self.exchanges.items() if other.client_id == client_id]:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        full = len(self.exchanges) >= EXCHANGES_LIMIT
        del self.exchanges[sock]
        self.selector.unregister(sock)
        sock.close()
        if full:
            self.selector.register(self.listener, selectors.EVENT_READ)

    def _expire(self, now: float) -> None:
        for sock in [sock for sock, exchange in self.exchanges.items() if now > exchange.deadline]:
            self._drop(sock)
