"""A network that fails on demand: a TCP proxy on loopback, before the API server.

Modes: pass; drop (connections are cut, new ones refused by closing them), hole (nothing passes, nobody is told), slow (each chunk waits).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from types import TracebackType

CHUNK = 65_536


class Proxy:
    """Use as a context; `mode` may change at any time."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.mode = "pass"
        self.delay = 0.05  # s, in mode slow
        self.limit = 0  # bytes that the server may still say on a connection before it is cut; 0: any number
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def cut(self) -> None:
        """Reset every connection there is."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Cut, and let none through from now on."""
        self.mode = "drop"
        self.cut()

    def _accept(self) -> None:
        self._listener.settimeout(0.05)
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self.mode == "drop":
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                client.close()
                continue
            thread = threading.Thread(target=self._relay, args=(client, server))
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with self._lock:
            self._pairs.add((client, server))
        try:
            self._pump(client, server)
        except OSError:
            pass
        finally:
            with self._lock:
                self._pairs.discard((client, server))
            client.close()
            server.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        said = 0
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while not self._ended.is_set():
                if self.mode == "hole":  # what was sent meanwhile is lost with the connection, which is never told
                    time.sleep(0.01)
                    continue
                for key, _ in ready.select(0.05):
                    end: socket.socket = key.fileobj  # type: ignore[assignment]
                    chunk = end.recv(CHUNK)
                    if not chunk or self.mode == "drop":
                        return
                    if self.mode == "slow":
                        time.sleep(self.delay)
                    said += len(chunk) if end is server else 0
                    if self.limit and said > self.limit:
                        key.data.sendall(chunk[: len(chunk) // 2])  # in the middle of a line, and of a TLS record
                        return
                    key.data.sendall(chunk)
