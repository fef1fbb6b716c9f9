"""The Supervisor: keeps exactly one collector on every live Ray node that carries our label, and the singletons beside them.

It compares what is with what should be every few seconds, so it may die, and be started again, at any moment: all that it remembers is
since when a node is away. A collector whose node is away is Ray's to keep waiting, and returns with the node's label; that of a node
which stays away is removed (`collector.gone_after`), and made anew should the node return after all.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from typing import Any

import ray

from actors import threads
from actors.calls import Line, ask_all
from actors.collector import NodeCollector
from actors.deploy import end, ensure, ensure_singletons, names
from actors.metrics import Metrics
from actors.options import AGGREGATOR, COLLECTOR_GROUPS, NODE_LABEL, QUERY, collected_node, collector_name, collector_options
from actors.version import STOPPED, code_version
from actors.warnings import Warnings
from cluster.core.errors import ActorUnavailable, RayscopeError
from configs.settings import Settings

log = logging.getLogger(__name__)
PERIOD = 2.0  # s between two comparisons
ANSWER = 5.0  # s that all collectors together may take to say that they live


def live_nodes() -> list[str]:
    """The names of the live Ray nodes that carry our label, each once."""
    return sorted({node["Labels"][NODE_LABEL] for node in ray.nodes() if node["Alive"] and NODE_LABEL in node["Labels"]})


class Supervisor:
    """Level-triggered: one pass makes everything right or says what is not."""

    def __init__(self, store_path: str, socket: str, settings: Settings) -> None:
        self._store_path, self._socket, self._settings = store_path, socket, settings
        self._lines: dict[str, Line] = {}  # node -> the line to its collector, with at most one question outstanding
        self._away: dict[str, float] = {}  # node without a live Ray node, which has a collector -> monotonic time when that was first seen
        self._made: set[str] = set()  # nodes whose collector this supervisor made: of one code, ours or a newer on the disk
        self._nodes: dict[str, str] = {}  # node -> "" or what is wrong with its collector
        self._aggregator = Line(AGGREGATOR)
        self._stopping = threading.Event()
        self._metrics = Metrics("supervisor")
        self._warnings = Warnings(log)
        self._thread = threads.start(self._supervise)

    def __repr__(self) -> str:
        return f"Supervisor(every {PERIOD:g} s)"

    def version(self) -> str:
        """The code that this actor runs; STOPPED once it was told to stop, so that whoever attaches later replaces it."""
        return STOPPED if self._stopping.is_set() else code_version()

    def status(self) -> dict[str, Any]:
        """Nodes with our label, live or away but not gone, and what keeps each from being covered ("" where nothing does)."""
        return {"pid": os.getpid(), "nodes": dict(self._nodes)}

    def stop(self, timeout: float = 15.0) -> bool:
        """Create nothing any more, and let every collector deliver what is in flight; True where all did."""
        deadline = time.monotonic() + timeout
        self._stopping.set()
        self._thread.join(timeout)
        lines = {node: Line(collector_name(node)) for node in live_nodes()}
        left = max(1.0, deadline - time.monotonic())
        answers = ask_all(lines, "stop", 0.8 * left, group=QUERY, timeout=left)
        for node, answer in answers.items():
            if answer is not True:
                log.warning("collector did not deliver everything: %s", answer, extra={"node": node})
        return all(answer is True for answer in answers.values())

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            try:
                self._reconcile()
                self._warnings.over("reconcile")
            except Exception as error:  # the loop that restarts everything else must not end
                self._warnings.say("reconcile", error)
            self._stopping.wait(PERIOD)

    def _reconcile(self) -> None:
        ensure_singletons(self._store_path, self._settings)
        existing, live = set(names()), live_nodes()
        self._lines = {node: self._lines.get(node) or Line(collector_name(node)) for node in live}
        for node, line in self._lines.items():
            if line.name not in existing:
                ensure(NodeCollector, collector_options(node), COLLECTOR_GROUPS, (node, self._socket, self._settings))
                self._made.add(node)
        away = self._wait_for(existing - set(map(collector_name, live)))
        answers = ask_all(self._lines, "status", group=QUERY, timeout=ANSWER)
        self._nodes = {node: self._problem(node, answer) for node, answer in answers.items()} | away
        self._metrics.gauge("nodes", len(self._nodes))
        self._metrics.gauge("covered_nodes", sum(not problem for problem in self._nodes.values()))
        with suppress(ActorUnavailable):  # being restarted: told again at the next comparison
            self._aggregator.ask("present", sorted(self._nodes), group=QUERY, timeout=ANSWER)

    def _wait_for(self, absent: set[str]) -> dict[str, str]:
        """What to say of each node that is away; the collector of one that is gone ends. `absent`: actors that no live node has."""
        now, limit = time.monotonic(), self._settings.collector.gone_after
        self._away = {node: self._away.get(node, now) for node in map(collected_node, absent) if node}
        for node, since in list(self._away.items()):
            if now - since >= limit:
                end(collector_name(node))
                log.info("away for %g s: its collector is removed until it returns", limit, extra={"node": node})
                del self._away[node]
        return dict.fromkeys(self._away, f"away: no live Ray node has its label; its collector waits {limit:g} s for it")

    def _problem(self, node: str, answer: Any) -> str:
        """What is wrong with a collector; one of other code is ended, and made again at the next comparison."""
        if isinstance(answer, RayscopeError):
            self._warnings.say(f"collector of {node}", answer)
            return str(answer)
        self._warnings.over(f"collector of {node}")
        if answer["version"] != code_version():
            return self._replace(node, answer["version"])
        return "" if answer["tracer"]["state"] == "ok" else str(answer["tracer"]["message"])

    def _replace(self, node: str, version: str) -> str:
        """End a collector of other code, once: one that we made ourselves runs what is on the disk now, and would do so again."""
        if node in self._made:
            return f"its code is {version}, the supervisor's {code_version()}: the files changed since `up` began, start it again"
        end(collector_name(node))
        return f"its code is {version}, ours {code_version()}: being replaced"
