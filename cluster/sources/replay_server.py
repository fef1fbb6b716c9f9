"""A recording served as a tracer serves: HTTP on a unix socket, each client at its own place in it.

A reply recorded of a tracer that names no `instance` gets the recorded peer as one: over a socket the peer would be this server, and a
restart of the tracer within the recording would not be seen.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections import OrderedDict
from errno import ECONNREFUSED
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from cluster.core.errors import SourceError
from cluster.sources.recording import Recording
from cluster.sources.replay import Cursor, with_instance

CLIENTS_LIMIT = 64  # the one that asked least recently is forgotten, and begins anew
PATIENCE = 10.0  # s that a client may be silent within a request


class ReplayServer(ThreadingMixIn, UnixStreamServer):
    """Serves `recording` on the unix socket `path` (mode 0660) until `shutdown`. Raises SourceError where the path is taken."""

    daemon_threads = True

    def __init__(self, path: str, recording: Recording, speed: float | None = None, loop: bool = False) -> None:
        self._recording, self._speed, self._loop = recording, speed, loop
        self._cursors: OrderedDict[str, Cursor] = OrderedDict()
        self._lock = threading.Lock()
        self.served = 0
        self._bound = False
        Cursor(recording)  # refuses an empty recording now rather than at the first question
        make_room(path)
        try:
            super().__init__(path, _Handler)
        except OSError as error:
            raise SourceError(f"{path}: cannot serve there: {error.strerror or error}; name a path in a directory that is yours") from error

    def server_bind(self) -> None:
        """Bind, and set the mode before anybody can connect."""
        super().server_bind()
        self._bound = True
        os.chmod(str(self.server_address), 0o660)  # noqa: PTH101

    def server_close(self) -> None:
        """Stop listening, and take the socket away."""
        super().server_close()
        if self._bound:
            Path(str(self.server_address)).unlink(missing_ok=True)

    def connections(self, client: str) -> bytes:
        """The body of the next reply for this client."""
        with self._lock:
            cursor = self._cursors.pop(client, None) or Cursor(self._recording, self._speed, self._loop)
            self._cursors[client] = cursor
            if len(self._cursors) > CLIENTS_LIMIT:
                self._cursors.popitem(last=False)
            self.served += 1
            reply = cursor.next()
        return with_instance(reply, lambda found: found or reply.peer).body

    def stats(self) -> bytes:
        """The body of /debug/stats."""
        with self._lock:
            clients = {name: {"ended": cursor.ended} for name, cursor in self._cursors.items()}
        return msgspec.json.encode({"replay": {"file": self._recording.path, "replies": len(self._recording), "clients": clients}})

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away costs only itself."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server: ReplayServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        try:
            match url.path:
                case "/connections":
                    self._answer(200, self.server.connections(parse_qs(url.query).get("client_id", ["-1"])[0]))
                case "/debug/stats":
                    self._answer(200, self.server.stats())
                case "/status":
                    self._answer(200, b"")
                case _:
                    self._answer(404, b"")
        except SourceError:  # a record that cannot be read: a tracer's error, which is a 500 with nothing in it
            self._answer(500, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def make_room(path: str) -> None:
    """Remove a socket that nobody serves any more; raise SourceError for anything else at that path."""
    try:
        mode = Path(path).lstat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISSOCK(mode):
        raise SourceError(f"{path}: something else than a socket is there; name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(path) != ECONNREFUSED:
            raise SourceError(f"{path}: a tracer serves there already; end it first, or name another path")
    Path(path).unlink(missing_ok=True)
