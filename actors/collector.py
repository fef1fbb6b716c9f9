"""The NodeCollector: one per node, pinned to it. Loops around `cluster.core.collector`: one reads the tracer, one the metadata, one sends.

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
from actors.calls import Line
from actors.metrics import Metrics
from actors.options import AGGREGATOR, INGEST
from actors.version import STOPPED, code_version
from actors.warnings import Warnings
from cluster.core.collector import Collector, CollectorLimits
from cluster.core.errors import ActorError, ActorUnavailable, RayscopeError, SourceError
from cluster.core.wire import Answer, unpack_answer
from cluster.sources.backoff import Backoff
from cluster.sources.registry import metadata_sources
from cluster.sources.tracer_socket import TracerSocket
from configs.settings import Settings

log = logging.getLogger(__name__)
IDLE = 0.05  # s between two looks for something to send
TRACER_BACKOFF = 5.0  # s: the longest wait for a tracer that does not answer; longer would add to what is not covered
SEND_BACKOFF = (0.1, 5.0)  # s: the first and the longest wait for an aggregator that does not answer


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
        self._metadata, self._processes, self._namespaces = metadata_sources(node, collector.docker_socket, collector.proc)
        self._aggregator = Line(AGGREGATOR, settings.aggregator.call_timeout)
        self._aggregator_number = 0
        self._stopping = threading.Event()
        self._metrics = Metrics("collector", node)
        self._warnings = Warnings(log, node=node)
        self._polling = threads.start(self._poll_forever)
        threads.start(self._send_forever)
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
        while time.monotonic() < deadline:
            with self._lock:
                if self._core.greeted and self._core.next_part() is None:
                    return True
            time.sleep(IDLE)
        return False

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

    # The aggregator

    def _send_forever(self) -> None:
        backoff = Backoff(*SEND_BACKOFF, random.random)
        while True:
            try:
                pause = 0.0 if self._send_once() else IDLE
                backoff.reset()
                self._warnings.over("delivery")
            except RayscopeError as error:
                pause = backoff.failed()
                self._warnings.say("delivery", error)
            time.sleep(pause)

    def _send_once(self) -> bool:
        """Say hello or send one part; False when there was nothing to send. Raises RayscopeError where it has to be tried again later."""
        with self._lock:
            greeted, part = self._core.greeted, self._core.next_part()
        if not greeted:
            self._greet(self._ask("hello", self.node, self._core.stream, self._core.incarnation))
            return True
        if part is None:
            return False
        answer = self._ask("ingest", part)
        with self._lock:
            self._core.on_answer(answer)
        self._metrics.count("sent_parts")
        if answer.verdict == "refused":
            raise ActorError(f"the aggregator refused a part: {answer.reason}")
        return True

    def _greet(self, answer: Answer) -> None:
        if answer.verdict == "wait":
            raise ActorUnavailable("the aggregator's store has not taken this collector's number yet")
        if answer.verdict != "ok":
            raise ActorError(f"the aggregator does not take this collector ({answer.verdict}): {answer.reason}")
        with self._lock:
            self._core.greet(answer)

    def _ask(self, method: str, *arguments: Any) -> Answer:
        """The aggregator's answer; one call is outstanding at any time, also after a timeout. Raises RayscopeError."""
        answer = unpack_answer(self._aggregator.ask(method, *arguments, group=INGEST))
        if answer.aggregator < self._aggregator_number:
            self._aggregator.forget()
            raise ActorUnavailable(f"aggregator {answer.aggregator} answered, which aggregator {self._aggregator_number} has replaced")
        self._aggregator_number = answer.aggregator
        if answer.verdict == "superseded":
            threads.leave(f"another collector has node {self.node}")
        return answer

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
            self._stopping.wait(self._settings.collector.metadata_interval)

    def _measure(self) -> None:
        with self._lock:
            status = self._core.status()
        self._metrics.gauge("rows", status.get("rows", 0))
        self._metrics.gauge("kept_bytes", status["kept_bytes"])
        self._metrics.count_to("refused", sum(status["refused"].values()))
        for name, key in (("missed_polls", "missed"), ("skipped_polls", "backpressure"), ("folded", "folded")):
            self._metrics.count_to(name, status[key])
