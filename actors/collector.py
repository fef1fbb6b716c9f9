"""The NodeCollector: one per node, pinned to it. Loops around `cluster.core.collector`: one reads the tracer, one the metadata, one sends
(`actors/delivery.py`).

They are apart so that a slow or absent aggregator never keeps the tracer waiting; the pure Collector bounds what lies between them.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import threading
import time
from typing import Any

from actors import threads
from actors.delivery import IDLE, Delivery
from actors.metrics import Metrics
from actors.version import STOPPED, code_version
from actors.warnings import Warnings
from cluster.core.collector import Collector, CollectorLimits
from cluster.core.errors import SourceError
from cluster.sources.backoff import Backoff
from cluster.sources.registry import metadata_sources
from cluster.sources.tracer_socket import TracerSocket
from configs.settings import Settings

log = logging.getLogger(__name__)
TRACER_BACKOFF = 5.0  # s: the longest wait for a tracer that does not answer; longer would add to what is not covered


class NodeCollector:
    """Reads one node's tracer and metadata, and delivers them exactly once in effect."""

    def __init__(self, node: str, socket: str, settings: Settings) -> None:
        self.node = node
        self.socket = socket
        self._settings = settings
        tracer, collector = settings.tracer, settings.collector
        limits = CollectorLimits(rows=collector.rows_limit, absent_after=collector.absent_after, zero_is=tracer.zero_is)
        self._core = Collector(node, secrets.randbits(63), limits)
        self._lock = threading.Lock()  # the core
        self._source = TracerSocket(socket, f"{settings.ray.namespace}-{node}", tracer.protocol, tracer.timeout, tracer.reply_limit)
        sources = metadata_sources(node, collector.docker_socket, collector.proc, settings.kubelet)
        self._metadata, self._processes, self._namespaces = sources
        self._stopping = threading.Event()
        self._metrics = Metrics("collector", node)
        self._warnings = Warnings(log, node=node)
        self._polling = threads.start(self._poll_forever)
        self._delivery = Delivery(self._core, self._lock, settings.aggregator.call_timeout, self._metrics, self._warnings)
        threads.start(self._read_forever)

    def __repr__(self) -> str:
        return f"NodeCollector({self.node}, {self.socket})"

    def version(self) -> str:
        """The code that this actor runs; STOPPED once it was told to stop, so that whoever attaches later replaces it."""
        return STOPPED if self._stopping.is_set() else code_version()

    def status(self) -> dict[str, Any]:
        """The collector's counters and its tracer's state."""
        with self._lock:
            counters = self._core.status()
        return {
            **counters,
            "pid": os.getpid(),
            "version": self.version(),
            "tracer": self._source.status(),
            "metadata": {one.name: one.status() for one in self._metadata},
        }

    def stop(self, timeout: float = 10.0) -> bool:
        """Poll a last time and deliver what is in flight; True where everything was applied."""
        deadline = time.monotonic() + timeout
        self._stopping.set()
        self._polling.join(timeout / 2)
        self._source.close()  # a tracer that does not answer is not waited for
        self._polling.join(timeout / 4)
        if not self._polling.is_alive():
            self._poll_once()
        return self._delivery.drained(deadline)

    # The tracer

    def _poll_forever(self) -> None:
        interval = self._settings.collector.interval
        backoff = Backoff(interval, max(interval, TRACER_BACKOFF), random.random)
        while not self._stopping.is_set():
            started = time.monotonic()
            if not self._core.incarnation:  # nothing may be polled before the first hello is answered
                pause = IDLE
            elif self._poll_once():
                pause = interval
                backoff.reset()
            else:
                pause = backoff.failed()
            self._stopping.wait(max(0.0, pause - (time.monotonic() - started)))

    def _poll_once(self) -> bool:
        """Ask the tracer, unless too much waits to be delivered. False where it gave no usable reply."""
        with self._lock:
            if not self._core.wants_poll():
                return True
            ack = self._core.ack()
        try:
            reply = self._source.poll(ack)
            with self._lock:
                owners = self._processes.workload_of, self._namespaces.workload_of
                self._core.on_reply(reply.body, reply.peer, reply.received_at, *owners)
        except SourceError as error:
            with self._lock:
                self._core.on_missed(str(error), time.time())
            self._warnings.say("tracer", error)
            return False
        self._warnings.over("tracer")
        self._measure()
        return True

    # Everything else

    def _read_forever(self) -> None:
        while not self._stopping.is_set():
            for source in self._metadata:
                try:
                    records = source.read()
                except SourceError as error:
                    self._warnings.say(f"metadata {source.name}", error)
                else:
                    self._warnings.over(f"metadata {source.name}")
                    with self._lock:
                        self._core.on_metadata(source.name, records)
            with self._lock:
                self._core.on_sources({source.name: source.status() for source in self._metadata})
            self._stopping.wait(self._settings.collector.metadata_interval)

    def _measure(self) -> None:
        with self._lock:
            status = self._core.status()
        self._metrics.gauge("rows", status.get("rows", 0))
        self._metrics.gauge("kept_bytes", status["kept_bytes"])
        self._metrics.count_to("refused", sum(status["refused"].values()))
        for name, key in (("missed_polls", "missed"), ("skipped_polls", "backpressure"), ("folded", "folded")):
            self._metrics.count_to(name, status[key])
