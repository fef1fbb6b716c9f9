"""Delivery: the loop that brings what a pure Collector has to say to the aggregator, until it is there.

Whoever has something to say (a node's collector, the watcher of the API server) owns the Collector and its lock; this owns the line.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from actors import threads
from actors.calls import Line
from actors.metrics import Metrics
from actors.options import AGGREGATOR, INGEST
from actors.warnings import Warnings
from cluster.core.collector import Collector
from cluster.core.errors import ActorError, ActorUnavailable, RayscopeError
from cluster.core.wire import Answer, unpack_answer
from cluster.sources.backoff import Backoff

IDLE = 0.05  # s between two looks for something to send
BACKOFF = (0.1, 5.0)  # s: the first and the longest wait for an aggregator that does not answer


class Delivery:
    """Says hello and sends part after part, one call outstanding, in a thread of its own from the start on.

    Where another collector has taken the name, the process ends.
    """

    def __init__(self, core: Collector, lock: threading.Lock, timeout: float, metrics: Metrics, warnings: Warnings) -> None:
        self._core = core
        self._lock = lock
        self._aggregator = Line(AGGREGATOR, timeout)
        self._aggregator_number = 0
        self._metrics = metrics
        self._warnings = warnings
        threads.start(self._send_forever)

    def drained(self, deadline: float) -> bool:
        """Wait until all that was said is applied; False where it was not at `deadline` (of time.monotonic)."""
        while time.monotonic() < deadline:
            with self._lock:
                if self._core.greeted and self._core.next_part() is None:
                    return True
            time.sleep(IDLE)
        return False

    def _send_forever(self) -> None:
        backoff = Backoff(*BACKOFF, random.random)
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
            self._greet(self._ask("hello", self._core.node, self._core.stream, self._core.incarnation))
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
            threads.leave(f"another collector has node {self._core.node}")
        return answer
