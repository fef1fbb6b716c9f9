"""Real TCP traffic on loopback whose bytes are counted by the sockets' own program: what every test of totals compares with."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

CHUNK = 65_536
HOST = "127.0.0.1"


def seed_key(local: tuple[str, int], remote: tuple[str, int]) -> str:
    """The key of a transaction as seen from the local end."""
    return f"{local[0]}-{remote[0]}-{local[1]}-{remote[1]}"


@dataclass
class Truth:
    """True bytes: seed key -> [sent, received], from the view of the local end."""

    bytes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    connections: Counter[str] = field(default_factory=Counter)  # how many there were of each key: the kernel takes a port again

    def add(self, local: tuple[str, int], remote: tuple[str, int], sent: int, received: int) -> None:
        """Count what one end of a connection sent and received."""
        total = self.bytes[seed_key(local, remote)]
        total[0] += sent
        total[1] += received


class Sink:
    """A server that reads everything and answers with as many bytes as the request's first four say."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Accept nothing any more."""
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection:
            while head := read_exactly(connection, 8):
                asked, answered = int.from_bytes(head[:4]), int.from_bytes(head[4:])
                read_exactly(connection, asked - 8)
                connection.sendall(bytes(answered))


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or b"" where the peer has closed."""
    parts = []
    while count > 0:
        part = connection.recv(min(count, CHUNK))
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class Client:
    """One connection to a Sink that counts, for both ends, what passes."""

    def __init__(self, sink: Sink, truth: Truth) -> None:
        self.socket = socket.create_connection((HOST, sink.port))
        self.truth = truth
        self.local, self.remote = self.socket.getsockname(), self.socket.getpeername()
        truth.connections.update(self.keys)

    def ask(self, sent: int, received: int) -> None:
        """Send `sent` bytes (8 at least) and wait for `received`."""
        self.socket.sendall(sent.to_bytes(4) + received.to_bytes(4) + bytes(sent - 8))
        read_exactly(self.socket, received)
        self.truth.add(self.local, self.remote, sent, received)
        self.truth.add(self.remote, self.local, received, sent)

    @property
    def keys(self) -> tuple[str, str]:
        """The seed keys of this end and of the other."""
        return seed_key(self.local, self.remote), seed_key(self.remote, self.local)

    def close(self) -> None:
        """An orderly close."""
        self.socket.close()


@contextmanager
def connections(count: int) -> Iterator[tuple[Sink, Truth, list[Client]]]:
    """So many open connections to one server, closed at the end."""
    sink, truth = Sink(), Truth()
    with ExitStack() as stack:
        stack.callback(sink.close)
        clients = []
        for _ in range(count):
            clients.append(Client(sink, truth))
            stack.callback(clients[-1].close)
        yield sink, truth, clients


class Traffic:
    """Connections that open, talk and close at random in a thread of their own, until stopped."""

    def __init__(self, seed: int, rate: float = 200.0) -> None:
        self.truth = Truth()
        self._random = random.Random(seed)
        self._sink = Sink()
        self._pause = 1.0 / rate
        self._stopping = threading.Event()
        self._open: list[Client] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        """The server's port: one end of every connection."""
        return self._sink.port

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for client in self._open:
            client.close()
        self._sink.close()

    def stop(self) -> None:
        """No more bytes; what is open stays open."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            self._step()

    def _step(self) -> None:
        if len(self._open) < 5 or (len(self._open) < 50 and self._random.random() < 0.4):
            self._open.append(Client(self._sink, self.truth))
        client = self._random.choice(self._open)
        client.ask(self._random.randint(8, 20_000), self._random.randint(0, 20_000))
        if self._random.random() < 0.35:
            self._open.remove(client)
            client.close()
