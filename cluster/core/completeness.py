"""What an answer rests on: who is covered, what was missed, refused, folded or stayed unknown, and how old the data are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from cluster.core import cluster_state
from cluster.core.checkpoint import SEEN_AT, NodeState
from cluster.core.edges import TOTAL_LIMIT, has_traffic
from cluster.core.ends import UNATTRIBUTED
from cluster.core.metadata import WATCHER
from cluster.core.records import COUNTER_LIMIT, Flag
from cluster.core.snapshot import Snapshot

SILENT_AFTER = 15.0  # s without a word; a collector says something every 5 s
SUMS = ("missed", "backpressure", "duplicates", "late")


def status(snapshot: Snapshot, now: float, present: Collection[str] | None = None) -> dict[str, Any]:
    """`nodes` one by one, and over all of them: nodes_covered, rows, edges, missed, refused, folded, unattributed, saturated, ambiguous,
    uncovered, oldest_age (s, None where nothing was ever seen) and the aggregate's counters. A silent node that is none of those `present`
    is gone, and its age no lag (None: who is present is not known). `kubernetes` is who watches the API server, apart from the nodes
    (cluster_state.py), None where nobody ever did."""
    machines = [node for node in snapshot.nodes if node.node != WATCHER]
    nodes = [_node(node, now, gone=present is not None and node.node not in present) for node in machines]
    ages = [node["age"] for node in nodes if node["age"] is not None and node["state"] != "gone"]
    said = [node.status for node in snapshot.nodes]
    names = [(edge.client, edge.server) for edge in snapshot.edges.values()]
    return {
        "nodes": nodes,
        "kubernetes": _kubernetes(snapshot, [node["node"] for node in nodes if node["state"] == "ok"], now),
        "nodes_covered": sum(node["state"] == "ok" for node in nodes),
        "rows": sum(map(len, snapshot.tables)),
        "open": sum(int((table.columns["flags"] & Flag.CLOSED == 0).sum()) for table in snapshot.tables),
        "edges": sum(has_traffic(edge) for edge in snapshot.edges.values()),
        **{name: sum(_number(one.get(name)) for one in said) for name in SUMS},
        "unattributed": _unattributed(snapshot),
        "refused": snapshot.counters.get("refused", 0) + sum(_refused(one) for one in said),
        "folded": snapshot.counters.get("folded", 0) + sum(_number(one.get("folded")) for one in said),
        "saturated": _saturated(snapshot),
        "ambiguous": sum(any(name.startswith("ambiguous/") for name in pair) for pair in names),
        "unattributed_edges": sum(UNATTRIBUTED in pair for pair in names),
        "uncovered": [[node["node"], *interval] for node in nodes for interval in node["uncovered"]],
        "oldest_age": max(ages, default=None),
        "counters": dict(snapshot.counters),
        "fence": snapshot.fence,
    }


def _saturated(snapshot: Snapshot) -> int:
    """How many edges and rows have a sum that reached its limit, and means "at least so much"."""
    edges = sum(any(value >= TOTAL_LIMIT for view in edge.views for value in view) for edge in snapshot.edges.values())
    bases = [table.columns.get(f"base_{name}") for table in snapshot.tables for name in ("sent", "recv")]
    return edges + sum(int(np.count_nonzero(column >= COUNTER_LIMIT)) for column in bases if column is not None)


def _unattributed(snapshot: Snapshot) -> int:
    """How many rows, open and closed, have a local end without a workload."""
    unknown = np.array([not text for text in snapshot.texts], np.bool_)
    return sum(int(np.count_nonzero(unknown[table.columns["local"]])) for table in snapshot.tables)


def _kubernetes(snapshot: Snapshot, covered: list[str], now: float) -> dict[str, Any] | None:
    watchers = [_node(node, now, gone=False) for node in snapshot.nodes if node.node == WATCHER]
    return cluster_state.of(watchers[0], snapshot.metadata, covered, now) if watchers else None


def _node(node: NodeState, now: float, *, gone: bool) -> dict[str, Any]:
    seen, since = node.status.get(SEEN_AT), node.status.get("uncovered_since")
    age = max(0.0, now - seen) if isinstance(seen, float) else None
    told = node.status.get("uncovered")
    uncovered = [list(interval) for interval in (told if isinstance(told, list | tuple) else ()) if isinstance(interval, list | tuple)]
    quiet = age is None or age > SILENT_AFTER
    return {
        "node": node.node,
        "state": ("gone" if gone else "waiting" if age is None else "silent") if quiet else "uncovered" if since else "ok",
        "age": age,
        "incarnation": node.incarnation,
        "applied": node.applied,
        "uncovered": uncovered,
        "uncovered_since": since,
        "status": dict(node.status),
    }


def _number(value: Any) -> int:
    """A counter of a collector, 0 for what is none."""
    return value if isinstance(value, int) else 0


def _refused(said: Mapping[str, Any]) -> int:
    by_reason = said.get("refused")
    return sum(map(_number, by_reason.values())) if isinstance(by_reason, Mapping) else _number(by_reason)
