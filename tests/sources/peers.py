"""Real peers on real unix sockets, kind and hostile: each is a function of one accepted connection."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.sources.tracer_socket import ProtocolName, TracerSocket

Behaviour = Callable[[socket.socket, threading.Event], None]


class Peer:
    """Listens at `path` and does `behave(connection, stopped)` with whoever connects. Use as a context."""

    def __init__(self, path: Path, behave: Behaviour) -> None:
        self.path = str(path)
        self.behave = behave
        self.accepted = threading.Event()
        self._stopped = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> Peer:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        Path(self.path).unlink(missing_ok=True)
        assert not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted.set()
            thread = threading.Thread(target=self._attend, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _attend(self, connection: socket.socket) -> None:
        with connection, suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            connection.settimeout(10)
            self.behave(connection, self._stopped)


def document(*connections: dict[str, Any], **fields: Any) -> bytes:
    """A tracer's reply."""
    return json.dumps({"connections": list(connections), **fields}).encode()


def read_request(connection: socket.socket) -> bytes:
    """The request line of one HTTP request; b"" where the peer closes before."""
    data = b""
    while b"\r\n\r\n" not in data and (piece := connection.recv(65_536)):
        data += piece
    return data.partition(b"\r\n")[0]


def http(body: bytes, *headers: bytes, status: bytes = b"200 OK", length: bool = True) -> bytes:
    """The bytes of an HTTP answer."""
    lines = [b"HTTP/1.1 " + status, *headers, *([b"Content-Length: %d" % len(body)] if length else [])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def answers(data: bytes) -> Behaviour:
    """Reads a request, writes `data`, and closes."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG001
        read_request(connection)
        connection.sendall(data)

    return behave


def writes(data: bytes) -> Behaviour:
    """Reads nothing, writes `data` and closes: what was sent to it makes the close a reset."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG001
        connection.sendall(data)

    return behave


def keeps_open(data: bytes) -> Behaviour:
    """Writes `data`, then nothing, and does not close."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(data)
        stopped.wait(30)

    return behave


def repeats(start: bytes, piece: bytes, pause: float = 0.0) -> Behaviour:
    """Writes `start`, then `piece` for ever, with a pause between."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(start)
        while not stopped.wait(pause):
            connection.sendall(piece)

    return behave


def in_pieces(data: bytes, size: int) -> Behaviour:
    """Reads a request, and writes `data` in pieces of `size` bytes, each by itself on its way."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        read_request(connection)
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])
            stopped.wait(0.001)

    return behave


@contextmanager
def unused_queue(path: Path) -> Iterator[None]:
    """A listener that accepts nobody, its queue full."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        yield


BODY = document({"pid": 7, "source": "10.0.0.1"}, {"pid": 8, "source": "10.0.0.2"})
LIMIT = 100_000
SOON = 0.3  # s, for peers that are expected to be given up
LATER = 20.0  # s, for peers that are not


def tracer(peer: Peer | Path, timeout: float = LATER, protocol: ProtocolName = "auto") -> TracerSocket:
    return TracerSocket(peer.path if isinstance(peer, Peer) else str(peer), "rayscope-node", protocol, timeout, LIMIT)
