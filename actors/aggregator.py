"""The Aggregator: the one owner of transactions, metadata and edges, as an actor around `cluster.core.aggregate`.

It moves bytes and time; every decision is the state machine's. Ingest is one thread, time another, the store a third: so a store that
refuses, or takes long, stops neither ingest nor what time brings (folding, settling). A lock lets a reader copy a snapshot between two
events, so a query waits for one event at most, never for a queue of them.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from actors import threads
from actors.calls import Line
from actors.metrics import Metrics
from actors.options import INGEST, STORAGE_WRITER
from actors.version import code_version
from actors.warnings import Warnings
from cluster.core import query
from cluster.core.aggregate import Aggregate, AggregateLimits
from cluster.core.checkpoint import Commit
from cluster.core.commands import Command, Reply, Stop, Write
from cluster.core.errors import ActorUnavailable, FencedError, RayscopeError
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick
from cluster.core.service_map import Choice, service_map
from cluster.core.snapshot import Snapshot
from cluster.core.wire import pack_answer
from cluster.sources.backoff import Backoff
from configs.settings import Settings

log = logging.getLogger(__name__)
RETRY = (1.0, 5.0)  # s: the first and the longest wait between two tries at the store
SNAPSHOT_AGES = (0.1, 1.0)  # s that a copy serves readers, at least and at most
COPIES_SHARE = 0.05  # of the time may be spent on copies, between these ages
WRITE_TIMEOUT = 60.0  # s that the writer is waited for before that is said; the commit is then waited for again
T = TypeVar("T")


class Aggregator:
    """Applies events one by one; commits what changed; answers queries from copies."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._writer = Line(STORAGE_WRITER, max(WRITE_TIMEOUT, settings.aggregator.call_timeout))  # the writing thread's
        self._aggregate: Aggregate | None = None
        self._lock = threading.Lock()  # the aggregate
        self._copying = threading.Lock()  # one reader copies, the others wait for its copy
        self._snapshot: tuple[float, Snapshot] | None = None  # monotonic time until which it serves
        self._wake = threading.Event()
        self._commits: queue.SimpleQueue[tuple[float, Commit]] = queue.SimpleQueue()
        self._begun = self._written = 0  # numbers of commits: the last one begun, the last one durable
        self._durable = threading.Condition()
        self._durable_since = -1.0  # monotonic: whatever was applied before is durable
        self._committed_at = time.time()
        self._refusal: RayscopeError | None = None  # why the store does not take what it is given
        self._present: frozenset[str] | None = None  # nodes that are there, or away for a while; None: not told yet
        self._metrics = Metrics("aggregator")
        self._warnings = Warnings(log)
        threads.start(self._write_forever)

    def __repr__(self) -> str:
        return f"Aggregator(commits every {self._settings.store.commit_interval:g} s)"

    def version(self) -> str:
        """The code that this actor runs."""
        return code_version()

    def ready(self) -> bool:
        """Whether the store is open. Raises the store's own error while it does not open."""
        if self._aggregate is None and self._refusal is not None:
            raise self._refusal
        return self._aggregate is not None

    def hello(self, node: str, stream: int, incarnation: int = 0) -> bytes:
        """Number a collector, which had the number `incarnation` before (0: none); the packed Answer."""
        answer = self._answer(Hello(node, stream, time.time(), incarnation))
        self._wake.set()  # the number is answered once it is durable
        return answer

    def ingest(self, part: bytes) -> bytes:
        """Apply one part of a batch; the packed Answer."""
        self._metrics.count("batches")
        return self._answer(BatchReceived(part, time.time()))

    def transactions(self, where: query.Filter, sort: str, limit: int | None) -> list[dict[str, Any]]:
        """Transactions as `cluster.core.query` gives them."""
        return query.transactions(self._read(), where, sort, limit)

    def metadata(self, address: str | None = None) -> dict[str, Any]:
        """Metadata records by address."""
        return query.metadata(self._read(), address)

    def service_map(self, choice: Choice) -> dict[str, Any]:
        """The map as `cluster.core.service_map` gives it."""
        return service_map(self._read(), choice, time.time())

    def status(self) -> dict[str, Any]:
        """Completeness, and how far the store is."""
        found = query.status(self._read(), time.time(), self._present)
        age = round(time.time() - self._committed_at, 3)
        return {**found, "pid": os.getpid(), "commit_age": age, "store_error": str(self._refusal or "")}

    def present(self, nodes: list[str]) -> None:
        """The nodes that the supervisor knows: a silent one that is none of them is gone."""
        self._present = frozenset(nodes)

    def flush(self, timeout: float = 30.0) -> bool:
        """Commit what is applied now; True once it is durable."""
        asked = time.monotonic()
        if self._aggregate is None:
            return False
        with self._durable:
            while self._durable_since < asked and time.monotonic() - asked < timeout:
                self._wake.set()
                self._durable.wait(0.1)
            return self._durable_since >= asked

    # Events

    def _require(self) -> Aggregate:
        if self._aggregate is None:
            raise ActorUnavailable(f"the aggregator waits for the store: {self._refusal or 'opening'}")
        return self._aggregate

    def _read(self) -> Snapshot:
        """A copy that is fresh enough; of many rows, whose copy takes long, one may be older."""
        aggregate = self._require()
        with self._copying:
            began = time.monotonic()
            if self._snapshot is None or began > self._snapshot[0]:
                with self._lock:
                    made = aggregate.snapshot()
                took = time.monotonic() - began
                self._snapshot = (began + min(max(SNAPSHOT_AGES[0], took / COPIES_SHARE), SNAPSHOT_AGES[1]), made)
            return self._snapshot[1]

    def _handle(self, event: Event) -> list[Command]:
        aggregate = self._require()
        with self._lock:
            commands = aggregate.handle(event)
        for command in commands:
            if isinstance(command, Stop):
                threads.leave(command.reason)
        return commands

    def _answer(self, event: Event) -> bytes:
        replies = [command.answer for command in self._handle(event) if isinstance(command, Reply)]
        return pack_answer(replies[0])

    # Time

    def _tick_forever(self) -> None:
        while True:
            self._wake.wait(self._settings.store.commit_interval)
            self._wake.clear()
            self._tick()
            try:
                self._measure()
                self._warnings.over("metrics")
            except Exception as error:  # metrics are not worth an aggregator
                self._warnings.say("metrics", error)

    def _tick(self) -> None:
        began, idle = time.monotonic(), self._begun == self._written
        writes = [command.commit for command in self._handle(Tick(time.time())) if isinstance(command, Write)]
        for commit in writes:
            self._begun = commit.number
            self._commits.put((began, commit))
        if idle and not writes:
            self._is_durable(began)

    def _measure(self) -> None:
        status = query.status(self._read(), time.time(), self._present)
        self._metrics.gauge("rows", status["rows"])
        self._metrics.count_to("refused", status["counters"].get("refused", 0))
        self._metrics.count_to("folded", status["counters"].get("folded", 0))
        self._metrics.gauge("lag_seconds", status["oldest_age"] or 0.0)
        self._metrics.gauge("commit_age_seconds", time.time() - self._committed_at)

    # The store

    def _write_forever(self) -> None:
        checkpoint = self._persist(partial(self._writer.ask, "open", group=INGEST))
        limits = AggregateLimits(self._settings.aggregator.rows_limit, self._settings.aggregator.externals_limit)
        self._aggregate = Aggregate(checkpoint, limits)
        log.info("store open", extra={"fence": checkpoint.fence, "rows": len(checkpoint.rows)})
        threads.start(self._tick_forever)
        while True:
            began, commit = self._commits.get()
            self._persist(partial(self._writer.ask, "commit", commit, group=INGEST))
            self._handle(Committed(commit.number, time.time()))
            self._written = commit.number
            self._is_durable(began)

    def _is_durable(self, since: float) -> None:
        self._committed_at = time.time()
        with self._durable:
            self._durable_since = since
            self._durable.notify_all()

    def _persist(self, attempt: Callable[[], T]) -> T:
        """Try until the store takes it: a commit is idempotent, so one whose outcome is unknown is tried again."""
        backoff = Backoff(*RETRY, random.random)
        while True:
            try:
                done = attempt()
            except FencedError as error:
                threads.leave(str(error))
            except RayscopeError as error:
                self._refusal = error
                self._warnings.say("store", error)
                time.sleep(backoff.failed())
            else:
                self._refusal = None
                self._warnings.over("store")
                return done
