"""The tracer: all namespaces together, what was last seen of them, and the replies that are made of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.errors import TracerError
from cluster.tracer import namespaces as ns
from cluster.tracer.closes import Client, Closes
from cluster.tracer.listeners import Listeners
from cluster.tracer.namespaces import Namespace
from cluster.tracer.owners import Owners
from cluster.tracer.reply import encode, envelope
from cluster.tracer.rows import Rows, find, join, new_rows
from cluster.tracer.settle import COUNTERS, is_connection, is_listener, settle_closed, settle_open

EVENT_BUFFER = 32 << 20  # bytes of each namespace's queue of destroy events
PENDING_LIMIT = 200_000  # destroyed sockets that wait for the next request


class Tracer:
    """Answers what connections there are and which have closed. Raises TracerError where the kernel does not answer."""

    def __init__(self, event_buffer: int = EVENT_BUFFER):
        self.event_buffer = event_buffer
        self.counters: Counter[str] = Counter()
        self.closes = Closes()
        self.owners = Owners()
        self.instance = instance()
        self.namespaces: dict[int, Namespace] = {}
        self._home = os.open(ns.OWN, os.O_RDONLY | os.O_CLOEXEC)
        self._pending: list[Rows] = []
        self._waiting = 0
        self.open = new_rows(0)  # the last dump's connections, sorted by key
        self.listeners = Listeners(new_rows(0))
        try:
            own = os.fstat(self._home).st_ino
            self.namespaces[own] = Namespace(own, event_buffer)
        except OSError as error:
            raise TracerError(f"this kernel gives no socket diagnostics over netlink: {error.strerror}") from error

    def close(self) -> None:
        """Let go of everything."""
        for namespace in self.namespaces.values():
            namespace.close()
        os.close(self._home)

    def read_events(self) -> None:
        """Take in the destroy events that have come."""
        for namespace in self.namespaces.values():
            self._read(namespace)

    def _read(self, namespace: Namespace) -> None:
        while True:
            rows, lost = namespace.destroyed(now())
            self.counters["lost_events"] += lost
            if not len(rows):
                return
            self.counters["destroyed"] += len(rows)
            if not self.closes.clients:
                continue
            if self._waiting + len(rows) > PENDING_LIMIT:
                self.counters["closed_dropped"] += len(rows)
                continue
            self._pending.append(rows)
            self._waiting += len(rows)

    def connections(self, client_id: str, ack: str | None) -> Iterator[bytes]:
        """The reply to one request, in pieces of JSON. Raises TracerError where a namespace could not be dumped."""
        client = self.closes.client(client_id, time.monotonic())
        self.closes.acknowledge(client, self._close_id(ack))
        self._look()
        closed = self.closes.due(client)
        last = (since(self.open, client), since(closed, client))
        client.keys, client.counters = self.open["key"].copy(), self.open[list(COUNTERS)].copy()
        reply_id = f"{self.instance}.{client.told}"
        return envelope(encode(self.open, last[0]), encode(closed, last[1]), self.listeners.rows, self.instance, reply_id)

    def _close_id(self, ack: str | None) -> int:
        head, _, tail = (ack or "").rpartition(".")
        return int(tail) if head == self.instance and tail.isdecimal() and len(tail) < 20 else 0

    def _look(self) -> None:
        """Dump every namespace, and work out what is open, what has closed and whose it is."""
        self.read_events()
        rows = self._dump()
        self.read_events()
        rows.sort(order="key")
        heard, connected = rows[is_listener(rows)], rows[is_connection(rows)]
        before = self.open
        self._own(heard)
        self.listeners = Listeners(heard)
        settle_open(connected, before, self.listeners)
        self._own(connected)
        pending, self._pending, self._waiting = join(self._pending), [], 0
        # A socket that this dump saw and that died since: its last counters are those of the event, its owner the dump's.
        both = join([before[~find(connected["key"], before["key"])[1]], connected])
        both.sort(order="key")
        closed = settle_closed(pending, both, self.listeners, {}, self.counters)
        self.closes.add(closed)
        self.open = connected[~np.isin(connected["key"], closed["key"])]

    def _dump(self) -> Rows:
        parts = []
        for namespace in self.namespaces.values():
            try:
                parts.append(namespace.sockets(now()))
            except OSError as error:
                self.counters["failed_dumps"] += 1
                raise TracerError(f"network namespace {namespace.inode} could not be dumped: {error.strerror}") from error
        return join(parts)

    def _own(self, rows: Rows) -> None:
        nobody = (rows["pid"] == 0) & (rows["inode"] != 0)
        inodes = rows["inode"].tolist()
        pids = self.owners.of([inode for inode in inodes if inode], time.monotonic()) if nobody.any() else {}
        for place in np.flatnonzero(nobody).tolist():
            rows["pid"][place] = pids.get(inodes[place], 0)

    def status(self) -> dict[str, Any]:
        """What this tracer is and what it lacks."""
        return {"instance": self.instance, "namespaces": sorted(self.namespaces), "missing": []}

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and each client's state."""
        return {"state": {"telemetry": dict(self.counters)}}


def since(rows: Rows, client: Client) -> list[NDArray[np.uint64]]:
    """How much sent, received and retransmits grew since the client's last reply."""
    places, known = find(client.keys, rows["key"])
    grown = []
    for name in COUNTERS:
        column = rows[name].astype(np.uint64)
        column[known] -= np.minimum(client.counters[name][places[known]], column[known]).astype(np.uint64)
        grown.append(column)
    return grown


def now() -> int:
    """Nanoseconds since boot, the clock of the kernel's own tracing (CLOCK_MONOTONIC)."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def instance() -> str:
    """A name for this run of the tracer: boot, process and its start, so that no two runs share it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot}-{os.getpid()}-{started}"
