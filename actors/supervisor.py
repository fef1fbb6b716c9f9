"""The Supervisor: keeps exactly one collector on every live Ray node that carries our label, and the singletons beside them.

It compares what is with what should be every few seconds, and never remembers: so it may die, and be started again, at any moment.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import ray

from actors.calls import Peer
from actors.collector import NodeCollector
from actors.deploy import ensure, ensure_singletons
from actors.metrics import Metrics
from actors.options import COLLECTOR_GROUPS, NODE_LABEL, QUERY, collector_name, collector_options
from actors.version import code_version
from cluster.core.errors import RayscopeError
from configs.settings import Settings

log = logging.getLogger(__name__)
PERIOD = 2.0  # s between two comparisons
ANSWER = 5.0  # s that a collector may take to say that it lives


def live_nodes() -> list[str]:
    """The names of the live Ray nodes that carry our label, each once."""
    return sorted({node["Labels"][NODE_LABEL] for node in ray.nodes() if node["Alive"] and NODE_LABEL in node["Labels"]})


class Supervisor:
    """Level-triggered: one pass makes everything right or says what is not."""

    def __init__(self, store_path: str, socket: str, settings: Settings) -> None:
        self._store_path, self._socket, self._settings = store_path, socket, settings
        self._nodes: dict[str, str] = {}  # node -> "" or what is wrong with its collector
        self._stopping = threading.Event()
        self._metrics = Metrics("supervisor")
        self._thread = threading.Thread(target=self._run, name="supervise", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        covered = sum(not problem for problem in self._nodes.values())
        return f"Supervisor({covered}/{len(self._nodes)} nodes covered)"

    def version(self) -> str:
        """The code that this actor runs."""
        return code_version()

    def status(self) -> dict[str, Any]:
        """Nodes with our label, and what keeps each from being covered ("" where nothing does)."""
        return {"pid": os.getpid(), "nodes": dict(self._nodes)}

    def stop(self, timeout: float = 15.0) -> bool:
        """Create nothing any more, and let every collector deliver what is in flight; True where all did."""
        self._stopping.set()
        self._thread.join(timeout)
        stopped = [self._stop_collector(node, timeout) for node in live_nodes()]
        return all(stopped)

    def _stop_collector(self, node: str, timeout: float) -> bool:
        try:
            return bool(Peer(collector_name(node)).call("stop", timeout / 2, group=QUERY, timeout=timeout))
        except RayscopeError as error:
            log.warning("collector did not stop in order", extra={"node": node, "error": str(error)})
            return False

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._reconcile()
            except Exception:  # the loop that restarts everything else must not end
                log.exception("reconcile failed, trying again")
            self._stopping.wait(PERIOD)

    def _reconcile(self) -> None:
        ensure_singletons(self._store_path, self._settings)
        nodes = {node: self._cover(node) for node in live_nodes()}
        for node, problem in nodes.items():
            if problem != self._nodes.get(node, ""):
                log.log(logging.WARNING if problem else logging.INFO, "coverage", extra={"node": node, "problem": problem})
        self._nodes = nodes
        self._metrics.gauge("nodes", len(nodes))
        self._metrics.gauge("covered_nodes", sum(not problem for problem in nodes.values()))

    def _cover(self, node: str) -> str:
        try:
            ensure(NodeCollector, collector_options(node), COLLECTOR_GROUPS, (node, self._socket, self._settings))
            status = Peer(collector_name(node), ANSWER).call("status", group=QUERY)
        except RayscopeError as error:
            return str(error)
        return "" if status["tracer"]["state"] == "ok" else str(status["tracer"]["message"])
