"""The tracer: all namespaces together, what was last seen of them, and the replies that are made of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cluster.core.errors import TracerError
from cluster.tracer.closes import Client, Closes
from cluster.tracer.conntrack import FLOW, Flows
from cluster.tracer.discovery import Namespaces
from cluster.tracer.fins import unproven
from cluster.tracer.journal import Journal
from cluster.tracer.lacks import lacks
from cluster.tracer.listeners import Listeners
from cluster.tracer.namespaces import Namespace
from cluster.tracer.owners import Owners
from cluster.tracer.reply import encode, envelope
from cluster.tracer.rows import Rows, by_key, find, join, mixed, new_rows
from cluster.tracer.settle import carry_over, closed_among, is_connection, is_listener, settle_closed, settle_open
from cluster.tracer.state import Meta, State
from cluster.tracer.udp import Tracked
from cluster.tracer.vanished import Vanished

EVENT_BUFFER = 32 << 20  # bytes of each namespace's queue of destroy events
PENDING_LIMIT = 200_000  # destroyed sockets that wait for the next request
CHUNKS_AT_ONCE = 64  # of one namespace's events, before others have their turn
UNCOVERED = 16  # intervals in which no tracer ran that are told, the newest
EVENT_DELAY = 0.5  # s that the kernel may take to tell of a death


class Tracer:
    """Answers what connections there are and which have closed. Raises TracerError where the kernel does not answer."""

    def __init__(self, proc: str = "/proc", event_buffer: int = EVENT_BUFFER, socket: Path | None = None):
        self.instance = instance()
        self.journal = Journal(socket)
        self.uncovered: list[tuple[float, float]] = []  # s since 1970
        self._read_until = time.time()  # s since 1970: what died before has been read
        self.counters: Counter[str] = Counter()
        self.closes = Closes()
        self.namespaces = Namespaces(proc, event_buffer)
        self.owners = Owners(proc)
        self.tracked = Tracked()
        self.vanished = Vanished()
        self.open = new_rows(0)  # the connections last reported as open, sorted by key
        self.heard = new_rows(0)  # the listening sockets of the last dump, sorted by key
        self._pending: list[Rows] = []  # destroyed sockets since then
        self._flows = np.zeros(0, FLOW)
        self._rested = False  # events were thrown away since the last dump, for there was no client
        self._go_on()

    def close(self) -> None:
        """Let go of everything; what clients do not have yet stays in the journal."""
        if not self.closes.clients:
            self.journal.drop()
        self.journal.close()
        self.namespaces.close()

    def tick(self) -> int:
        """What is to be done a few times a second: forget clients, take in new namespaces and destroy events; how many of those came."""
        self.closes.forget(time.monotonic())
        if not self.closes.clients:
            self._rest()
            return 0
        self._refresh()
        before = self.counters["destroyed"]
        self._read_events()
        return self.counters["destroyed"] - before

    def connections(self, client_id: str, ack: str | None) -> Iterator[bytes]:
        """The reply to one request, in pieces of JSON. Raises TracerError where a namespace could not be dumped."""
        if not self.closes.clients:
            self._rest()
        is_new = client_id not in self.closes.clients
        client = self.closes.client(client_id, time.monotonic())
        self.closes.acknowledge(client, self._close_id(ack, client))
        self._refresh()
        self._look()
        if is_new:  # what this look found closed was so before the client came
            self.closes.catch_up(client)
        closed = self.closes.due(client)
        last = client.since(self.open), client.since(closed)
        client.remember(self.open)
        self._keep()
        name = self._name(client)
        more = {"instance": name, "reply_id": f"{name}.{client.told}", "uncovered": self.uncovered, "telemetry": self._telemetry()}
        return envelope(encode(self.open, last[0]), encode(closed, last[1]), self.heard, more)

    def status(self) -> dict[str, Any]:
        """What this tracer is, and what it cannot see and why."""
        spaces = sorted(self.namespaces.all)
        missing = [*lacks(self.namespaces), *self.journal.lacks()]
        return {
            "version": version("rayscope"),
            "instance": self.instance,
            "namespaces": spaces,
            "uncovered": self.uncovered,
            "journal": self.journal.status(),
            "missing": missing,
        }

    def stats(self) -> dict[str, Any]:
        """Counters since the start, each client's state, and connection tracking."""
        closes, owners = self.closes, self.owners
        telemetry = self._telemetry()
        telemetry |= {"open": len(self.open), "listeners": len(self.heard), "pending": sum(map(len, self._pending)), "closed": closes.last}
        telemetry |= {
            "closed_kept": len(closes),
            "proc_scans": owners.scans,
            "proc_scans_cut": owners.cut,
        }
        clients = {
            name: {"acked": one.acked, "told": one.told, "lost": one.lost, "registration": one.registration}
            for name, one in closes.clients.items()
        }
        entries = {str(inode): one.conntrack.entries for inode, one in self.namespaces.all.items() if one.conntrack}
        return {
            "state": {"telemetry": telemetry, "clients": clients},
            "conntrack": {"entries": entries, "available": self.namespaces.tracking},
        }

    def _telemetry(self) -> dict[str, int]:
        """The counters, from the start."""
        return {name: int(value) for name, value in self.counters.items()} | {"closed_conn_polling_lost": self.closes.lost}

    def _rest(self) -> None:
        """Nobody asks: closes are nobody's, and what is open will be found by the next dump."""
        for namespace in self.namespaces.all.values():
            namespace.discard()
        self._pending = []
        self._rested = True
        self._read_until = time.time()
        self.journal.drop()

    def _keep(self) -> None:
        """Put what a tracer after this one needs into the journal: before the reply that tells it leaves."""
        closes = self.closes
        meta = Meta(boot_id(), 0, self.instance, closes.last, closes.lost, closes.registrations, closes.kept(), self.uncovered)
        counted, vanished, events = self.tracked.counted(), self.vanished.kept(), join(self._pending)
        self.journal.write(State(meta, self.open, self.heard, closes.rows, counted, vanished, events, self._read_until))

    def _go_on(self) -> None:
        """Go on as the tracer that was here before, if it left a journal and has clients that wait: the same instance that lost the events
        of some time. What closed in it is found as after any loss of events: by what is in no dump and held by no process."""
        state = self.journal.read(boot_id())
        if state is None:
            return
        meta = state.meta
        self.closes.go_on(state.closed, meta.last, meta.lost, meta.registrations, meta.clients, time.monotonic())
        if not self.closes.clients:
            return
        self.instance, self.open, self.heard, self._pending = meta.instance, state.open, state.heard, [state.events]
        self.tracked.go_on(state.counted)
        self.vanished.go_on(state.vanished)
        for client in self.closes.clients.values():
            client.remember(self.open)
        self._refresh()
        for namespace in self.namespaces.all.values():
            namespace.lost_at = now()
        for inode in set(self.open["net_ns"].tolist()) - self.namespaces.all.keys():
            self.vanished.namespace(inode)
        self._read_until = time.time()
        since = min(state.beat - EVENT_DELAY, self._read_until)
        self.uncovered = [*meta.uncovered, (since, self._read_until)][-UNCOVERED:]
        self.counters["resumed_closes"] = len(state.closed) + len(state.events)
        self._keep()

    def _name(self, client: Client) -> str:
        """The instance that this client is told."""
        return f"{self.instance}.{client.registration}"

    def _close_id(self, ack: str | None, client: Client) -> int:
        """The close id in an ack; 0 for an ack of another instance or none of ours."""
        head, _, tail = (ack or "").rpartition(".")
        if head == self._name(client) and tail.isascii() and tail.isdecimal() and len(tail) < 20:
            return int(tail)
        self.counters["foreign_acks"] += ack is not None
        return 0

    def _refresh(self) -> None:
        """Take in new namespaces and let go of dead ones, after their last events."""
        for namespace in self.namespaces.refresh(time.monotonic(), now()):
            self._read(namespace)
            self.vanished.namespace(namespace.inode)
            self.namespaces.remove(namespace)

    def _read_events(self) -> None:
        began = time.time()
        drained = [self._read(namespace) for namespace in self.namespaces.with_events()]
        if all(drained):
            self._read_until = began
            self.journal.beat(began)

    def _read(self, namespace: Namespace) -> bool:
        """Take in a namespace's destroy events; False where more of them wait."""
        for _ in range(CHUNKS_AT_ONCE):
            rows, lost = namespace.destroyed(now())
            self.counters["event_overflows"] += lost
            if not len(rows):
                return True
            self.counters["destroyed"] += len(rows)
            if sum(map(len, self._pending)) + len(rows) > PENDING_LIMIT:
                self.counters["closed_conn_dropped"] += len(rows)
                namespace.lost_at = now()
            else:
                self._pending.append(rows)
                self.journal.append(rows)
        return False

    def _look(self) -> None:
        """Dump every namespace, and work out what is open, what has closed and whose it is."""
        self._read_events()
        rows = self._dump()
        self._read_events()
        flows = self._read_flows()
        self._own(rows)
        destroyed, self._pending = join(self._pending), []  # only now: what fails above loses none of them
        before = self.open
        heard, connected = rows[is_listener(rows)], rows[is_connection(rows)]
        listeners = Listeners(join([heard, self.heard[~find(heard["key"], self.heard["key"])[1]]]))
        self.tracked.apply(connected, before, flows)
        settle_open(connected, before, listeners)
        lingering = before[~find(connected["key"], before["key"])[1] & (not self._rested)]
        seen = by_key(join([connected, lingering]))
        closed = self._settle(self.vanished.not_late(destroyed, self.counters), seen, listeners, flows)
        still = seen[~np.isin(seen["key"], closed["key"])]
        lost = self.vanished.pick(still, connected["key"], self.namespaces.all, self.owners, now(), self.counters)
        self.closes.add(join([closed, still[lost]]))
        self.tracked.closed(closed)
        self.open, self.heard, self._rested = still[~lost], heard, False

    def _settle(self, destroyed: Rows, seen: Rows, listeners: Listeners, flows: Flows) -> Rows:
        closed = closed_among(destroyed, seen)
        left = self._left_behind(closed, seen)
        settle_closed(closed, seen, listeners, left, self.counters)
        self.tracked.apply(closed, seen, flows)
        return closed

    def _dump(self) -> Rows:
        parts = []
        for namespace in self.namespaces.all.values():
            try:
                parts.append(namespace.sockets(now()))
            except OSError as error:
                self.counters["failed_dumps"] += 1
                raise TracerError(f"network namespace {namespace.inode} could not be dumped: {error.strerror}") from error
        return by_key(join(parts))

    def _read_flows(self) -> Flows:
        if not self.namespaces.tracking:
            return self._flows
        return np.concatenate([self._flows, *(one.flows() for one in self.namespaces.all.values())])

    def _left_behind(self, closed: Rows, seen: Rows) -> Rows:
        """What sockets with an unproven FIN left in TIME_WAIT; not where the same ends were seen again since."""
        spaces = set(closed["net_ns"][unproven(closed, seen)].tolist())
        parts = []
        for inode in spaces & self.namespaces.all.keys():
            try:
                parts.append(self.namespaces.all[inode].left_behind(now()))
            except OSError:  # then the FIN stays unproven
                self.counters["failed_dumps"] += 1
        left = join(parts)
        if len(left):
            self._read_events()
            left = left[~np.isin(mixed(left), mixed(join(self._pending)))]
        return left

    def _own(self, rows: Rows) -> None:
        """Set the owners: those that were known, and those that /proc tells of the new ones."""
        known = by_key(join([self.open, self.heard]))
        carry_over(rows, known)
        nobody = np.flatnonzero((rows["pid"] == 0) & (rows["inode"] != 0))
        inodes = rows["inode"][nobody].tolist()
        likely = np.unique(rows["pid"][rows["pid"] != 0]).tolist()
        pids = self.owners.look_for(set(inodes), likely, time.monotonic())
        rows["pid"][nobody] = [pids.get(inode, 0) for inode in inodes]


def now() -> int:
    """Nanoseconds since boot, by the clock of the kernel's own tracing (CLOCK_MONOTONIC)."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def instance() -> str:
    """A name for this run of the tracer: boot, process and its start, so that no two runs share it."""
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot_id().replace('-', '')[:12]}-{os.getpid()}-{started}"
