"""The Aggregator: the one owner of transactions, metadata and edges, as an actor around `cluster.core.aggregate`.

It moves bytes and time; every decision is the state machine's. Ingest is one thread; a lock lets a reader copy a snapshot between two
events, so a query waits for one event at most, never for a queue of them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from cluster.core.aggregate import Aggregate, AggregateLimits
from cluster.core.snapshot import Snapshot

from actors.calls import Peer
from actors.metrics import Metrics
from actors.options import INGEST, STORAGE_WRITER
from actors.version import code_version
from cluster.core import query
from cluster.core.checkpoint import Commit
from cluster.core.commands import Command, Reply, Stop, Write
from cluster.core.errors import ActorUnavailable, FencedError, RayscopeError, StoreError
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick
from cluster.core.wire import pack_answer
from configs.settings import Settings

log = logging.getLogger(__name__)
RETRY = 1.0  # s between two tries at the store
SNAPSHOT_AGE = 1.0  # s that a copy serves readers
T = TypeVar("T")


class Aggregator:
    """Applies events one by one; commits what changed; answers queries from copies."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._writer = Peer(STORAGE_WRITER, timeout=max(60.0, settings.aggregator.call_timeout))
        self._aggregate: Aggregate | None = None
        self._lock = threading.Lock()  # the aggregate
        self._commit_lock = threading.Lock()  # one commit at a time
        self._wake = threading.Event()
        self._snapshot: tuple[float, Snapshot] | None = None
        self._committed_at = time.time()
        self._store_error = ""
        self._metrics = Metrics("aggregator")
        threading.Thread(target=self._run, name="commit", daemon=True).start()

    def __repr__(self) -> str:
        aggregate = self._aggregate
        return f"Aggregator({aggregate})" if aggregate else f"Aggregator(waiting for the store: {self._store_error or 'opening'})"

    def version(self) -> str:
        """The code that this actor runs."""
        return code_version()

    def hello(self, node: str, stream: int) -> bytes:
        """Number a collector; the packed Answer."""
        answer = self._answer(Hello(node, stream, time.time()))
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

    def status(self) -> dict[str, Any]:
        """Completeness, and how far the store is."""
        found = query.status(self._read(), time.time())
        return {**found, "pid": os.getpid(), "commit_age": round(time.time() - self._committed_at, 3), "store_error": self._store_error}

    def flush(self, timeout: float = 30.0) -> bool:
        """Commit what is applied; True once it is durable."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._commit_once(deadline):
                return True
        return False

    def _require(self) -> Aggregate:
        if self._aggregate is None:
            raise ActorUnavailable(f"the aggregator waits for the store: {self._store_error or 'opening'}")
        return self._aggregate

    def _read(self) -> Snapshot:
        made = self._snapshot
        if made is None or time.monotonic() - made[0] > SNAPSHOT_AGE:
            aggregate = self._require()
            with self._lock:
                made = self._snapshot = (time.monotonic(), aggregate.snapshot())
        return made[1]

    def _handle(self, event: Event) -> list[Command]:
        aggregate = self._require()
        with self._lock:
            commands = aggregate.handle(event)
        for command in commands:
            if isinstance(command, Stop):
                self._end(command.reason)
        return commands

    def _answer(self, event: Event) -> bytes:
        replies = [command.answer for command in self._handle(event) if isinstance(command, Reply)]
        return pack_answer(replies[0])

    def _run(self) -> None:
        checkpoint = self._persist(lambda: self._writer.call("open", group=INGEST), None)
        limits = AggregateLimits(self._settings.aggregator.rows_limit, self._settings.aggregator.externals_limit)
        with self._lock:
            self._aggregate = Aggregate(checkpoint, limits)
        log.info("store open", extra={"fence": checkpoint.fence, "rows": len(checkpoint.rows)})
        while True:
            self._wake.wait(self._settings.store.commit_interval)
            self._wake.clear()
            self._commit_once(None)
            self._measure()

    def _commit_once(self, deadline: float | None) -> bool:
        """Commit what changed, if anything did; True once nothing is left."""
        with self._commit_lock:
            writes = [command.commit for command in self._handle(Tick(time.time())) if isinstance(command, Write)]
            for commit in writes:
                self._write(commit, deadline)
                self._handle(Committed(commit.number, time.time()))
                self._committed_at = time.time()
            return not writes

    def _write(self, commit: Commit, deadline: float | None) -> None:
        self._persist(lambda: self._writer.call("commit", commit, group=INGEST), deadline)

    def _persist(self, attempt: Callable[[], T], deadline: float | None) -> T:
        """Try until the store takes it: a commit is idempotent, so an unknown outcome is tried again."""
        while True:
            try:
                done = attempt()
                self._store_error = ""
                return done
            except FencedError as error:
                self._end(str(error))
            except (StoreError, ActorUnavailable, RayscopeError) as error:
                if str(error) != self._store_error:
                    log.warning("the store did not take it, trying again", extra={"error": str(error)})
                self._store_error = str(error)
            if deadline is not None and time.monotonic() > deadline:
                raise ActorUnavailable(f"not committed in time: {self._store_error}")
            time.sleep(RETRY)

    def _measure(self) -> None:
        status = query.status(self._read(), time.time())
        self._metrics.gauge("rows", status["rows"])
        self._metrics.count_to("refused", status["refused"])
        self._metrics.count_to("folded", status["folded"])
        self._metrics.gauge("lag_seconds", status["oldest_age"] or 0.0)
        self._metrics.gauge("commit_age_seconds", time.time() - self._committed_at)

    def _end(self, reason: str) -> None:
        """Leave at once and without a goodbye to Ray: a fenced aggregator has a successor, whose name an orderly exit could take away."""
        log.error("this aggregator is superseded and ends", extra={"reason": reason})
        os._exit(1)
