"""The NodeCollector: one per node, pinned to it. Two loops around `cluster.core.collector`: one reads the tracer, one sends.

They are apart so that a slow or absent aggregator never keeps the tracer waiting; the pure Collector bounds what lies between them.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from typing import Any

from actors.calls import Peer
from actors.metrics import Metrics
from actors.options import AGGREGATOR, INGEST
from actors.version import code_version
from cluster.core.collector import Collector, CollectorLimits
from cluster.core.errors import RayscopeError, SourceError
from cluster.core.wire import Answer, unpack_answer
from cluster.sources.backoff import Backoff
from cluster.sources.registry import metadata_sources
from cluster.sources.tracer_socket import TracerSocket
from configs.settings import Settings

log = logging.getLogger(__name__)
IDLE = 0.05  # s between two looks for something to send


class NodeCollector:
    """Reads one node's tracer and metadata, and delivers them exactly once in effect."""

    def __init__(self, node: str, socket: str, settings: Settings) -> None:
        self.node = node
        self._settings = settings
        tracer, collector = settings.tracer, settings.collector
        limits = CollectorLimits(rows=collector.rows_limit, absent_after=collector.absent_after, zero_is=tracer.zero_is)
        self._core = Collector(node, secrets.randbits(63), limits)
        self._lock = threading.Lock()
        self._source = TracerSocket(socket, f"rayscope-{node}", tracer.protocol, tracer.timeout, tracer.reply_limit)
        self._metadata, self._processes = metadata_sources(node, collector.docker_socket, collector.proc)
        self._aggregator = Peer(AGGREGATOR, settings.aggregator.call_timeout)
        self._aggregator_number = 0
        self._stopping = threading.Event()
        self._metrics = Metrics("collector", node)
        self._threads = [
            threading.Thread(target=loop, name=loop.__name__.strip("_"), daemon=True)
            for loop in (self._poll_forever, self._send_forever, self._read_forever)
        ]
        for thread in self._threads:
            thread.start()

    def __repr__(self) -> str:
        status = self._core.status()
        return f"NodeCollector({self.node}, {status.get('rows', 0)} rows, tracer {self._source.status().get('state')})"

    def version(self) -> str:
        """The code that this actor runs."""
        return code_version()

    def status(self) -> dict[str, Any]:
        """The collector's counters and its tracer's state."""
        with self._lock:
            return {
                **self._core.status(),
                "pid": os.getpid(),
                "tracer": self._source.status(),
                "metadata": {one.name: one.status() for one in self._metadata},
            }

    def stop(self, timeout: float = 10.0) -> bool:
        """Poll a last time and deliver what is in flight; True where everything was applied."""
        self._stopping.set()
        self._threads[0].join(timeout)
        self._poll_once()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self._lock:
                if self._core.next_part() is None:
                    return True
            time.sleep(IDLE)
        return False

    def _poll_forever(self) -> None:
        backoff = Backoff(self._settings.collector.interval)
        while not self._stopping.is_set():
            started = time.monotonic()
            pause = self._settings.collector.interval if self._poll_once() else backoff.failed()
            self._stopping.wait(max(0.0, pause - (time.monotonic() - started)))

    def _poll_once(self) -> bool:
        with self._lock:
            if not self._core.wants_poll():
                return True
            ack = self._core.ack()
        try:
            reply = self._source.poll(ack)
            with self._lock:
                self._core.on_reply(reply.body, reply.peer, reply.received_at, self._processes.workload_of)
        except SourceError as error:
            log.warning("tracer not read", extra={"error": str(error)})
            with self._lock:
                self._core.on_missed(str(error), time.time())
            return False
        self._measure()
        return True

    def _send_forever(self) -> None:
        backoff = Backoff(0.2, 5.0)
        while True:
            try:
                sent = self._send_once()
                backoff.reset()
                time.sleep(0 if sent else IDLE)
            except RayscopeError as error:
                log.info("aggregator not reached, trying again", extra={"error": str(error)})
                time.sleep(backoff.failed())

    def _send_once(self) -> bool:
        """Say hello or send one part; one call is outstanding at any time. False when there was nothing to send."""
        with self._lock:
            greeted, part = self._core.greeted, self._core.next_part()
        if not greeted:
            return self._greet()
        if part is None:
            return False
        answer = self._ask("ingest", part)
        if answer is not None:
            with self._lock:
                self._core.on_answer(answer)
            self._metrics.count("sent_parts")
        self._end_if_superseded()
        return True

    def _greet(self) -> bool:
        answer = self._ask("hello", self.node, self._core.stream)
        if answer is None or answer.verdict == "wait":
            return False
        with self._lock:
            self._core.greet(answer)
        return True

    def _ask(self, method: str, *arguments: Any) -> Answer | None:
        """The aggregator's answer; None where it came from an aggregator that has a successor."""
        answer = unpack_answer(self._aggregator.call(method, *arguments, group=INGEST))
        if answer.aggregator < self._aggregator_number:
            return None
        self._aggregator_number = answer.aggregator
        return answer

    def _read_forever(self) -> None:
        while not self._stopping.is_set():
            for source in self._metadata:
                try:
                    records = source.read()
                    with self._lock:
                        self._core.on_metadata(source.name, records)
                except SourceError as error:
                    log.info("metadata not read", extra={"source": source.name, "error": str(error)})
            self._stopping.wait(self._settings.collector.metadata_interval)

    def _measure(self) -> None:
        status = self._core.status()
        self._metrics.gauge("rows", status.get("rows", 0))
        for name, key in (("missed_polls", "missed"), ("folded", "folded")):
            self._metrics.count_to(name, status.get(key, 0))

    def _end_if_superseded(self) -> None:
        """A newer collector has this node: leave at once. Ray starts this name again only if it is still the one that Ray knows."""
        if self._core.superseded:
            log.warning("another collector has this node", extra={"node": self.node})
            os._exit(1)
