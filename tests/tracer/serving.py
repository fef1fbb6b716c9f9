"""A tracer of our own in a process, and a client of its socket."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE = 15.0  # s for anything that must come

Row = dict[str, Any]


class UnixHTTP(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float = DEADLINE):
        super().__init__("tracer", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Served:
    """`rayscope tracer` in its own process."""

    def __init__(self, path: Path, *options: str, prefix: tuple[str, ...] = ()):
        self.path = path
        command = [*prefix, sys.executable, "-m", "cluster", "tracer", "--socket", str(path), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.words = ""

    def __enter__(self) -> Served:
        assert self.process.stderr is not None
        if select.select([self.process.stderr], [], [], DEADLINE)[0]:
            self.words = self.process.stderr.readline()
        assert "tracing" in self.words, self.words
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def get(self, target: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        connection = UnixHTTP(self.path)
        connection.request("GET", target)
        response = connection.getresponse()
        try:
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def reply(self, client_id: str = "t", ack: str | None = None) -> dict[str, Any]:
        """One reply to /connections."""
        status, body = self.get(f"/connections?client_id={client_id}" + (f"&ack={ack}" if ack else ""))
        assert status == 200, body
        assert isinstance(body, dict)
        return body

    def telemetry(self) -> dict[str, int]:
        """The counters of /debug/stats."""
        telemetry = self.get("/debug/stats")[1]["state"]["telemetry"]
        assert isinstance(telemetry, dict)
        return telemetry

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """A client that acknowledges, and remembers all rows that it was told."""

    def __init__(self, served: Served, client_id: str = "t"):
        self.served, self.client_id = served, client_id
        self.closed: dict[int, Row] = {}  # close_id -> row
        self._cookies: set[int] = set()
        self.open: list[Row] = []
        self.listeners: list[Row] = []
        self.ack = ""
        self.poll()

    def poll(self) -> None:
        reply = self.served.reply(self.client_id, self.ack or None)
        self.ack = reply["reply_id"]
        self.open = [row for row in reply["connections"] if row["state"] == "open"]
        self.listeners = reply["listeners"]
        for row in reply["connections"]:
            if row["state"] == "closed":
                assert row["close_id"] not in self.closed, "a close told again though it was acknowledged"
                assert row["cookie"] not in self._cookies, "a socket that closed twice"
                self._cookies.add(row["cookie"])
                self.closed[row["close_id"]] = row

    def until(self, is_met: Callable[[], object], what: str = "") -> None:
        """Poll until something is true."""
        deadline = time.monotonic() + DEADLINE
        while not is_met():
            assert time.monotonic() < deadline, what or "it did not come"
            time.sleep(0.02)
            self.poll()

    def end(self, local: tuple[str, int], remote: tuple[str, int]) -> Row:
        """The one open row with these ends."""
        (row,) = find(self.open, local, remote)
        return row

    def ended(self, local: tuple[str, int], remote: tuple[str, int]) -> Row:
        """The one closed row with these ends, when it comes."""
        self.until(lambda: find(self.closed.values(), local, remote), f"no close of {local} {remote}")
        (row,) = find(self.closed.values(), local, remote)
        return row


def find(rows: Any, local: tuple[str, int], remote: tuple[str, int]) -> list[Row]:
    """Rows with these ends."""
    return [row for row in rows if ends(row) == (*local[:2], *remote[:2])]


def ends(row: Row) -> tuple[str, int, str, int]:
    """What tells rows of one namespace apart."""
    return row["source"], row["sport"], row["dest"], row["dport"]
