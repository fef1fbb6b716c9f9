"""Ray's options and names, all of them; no other file knows any.

Why these: zero-CPU actors, since they wait more than they compute; `max_restarts=-1`, so that whatever dies comes back; no task retries,
since a retried call ran twice and out of order (the batches' own numbers repair a lost call); detached, since a child dies with its
creator otherwise; placed by labels of our own, since a pin on Ray's node id leaves an actor dead for ever once that node has died.
"""

from __future__ import annotations

from typing import Any

AGGREGATOR = "aggregator"
STORAGE_WRITER = "storage-writer"
SUPERVISOR = "supervisor"
CLUSTER_WATCHER = "cluster-watcher"  # only where there is a Kubernetes API server

NODE_LABEL = "k8s-node"  # on every Ray node: the Kubernetes node (or host) that it runs on
ROLE_LABEL = "rayscope-role"  # "head" where the singletons live

INGEST = "ingest"  # one thread: events are applied serially
QUERY = "query"  # readers have their own threads and never queue behind ingest

SINGLETON: dict[str, Any] = {
    "num_cpus": 0,
    "max_restarts": -1,
    "max_task_retries": 0,
    "lifetime": "detached",
    "label_selector": {ROLE_LABEL: "head"},
}

GROUPS: dict[str, dict[str, int]] = {
    AGGREGATOR: {INGEST: 1, QUERY: 4},
    STORAGE_WRITER: {INGEST: 1, QUERY: 2},
    SUPERVISOR: {QUERY: 2},
}
COLLECTOR_GROUPS = {QUERY: 2}
WATCHER_GROUPS = {QUERY: 2}

# Read by Ray when its processes start. Niceness: workers run at 15 otherwise and starve beside what they watch. Self check: a raylet whose
# head was replaced by a new one notices that at this check alone, after up to 60 s otherwise, and logs 500 lines a second until then.
RAY_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_events_max_num_task_in_gcs": "10000",
    "RAY_raylet_liveness_self_check_interval_ms": "5000",
}


def collector_name(node: str) -> str:
    """The name of the collector of a node."""
    return f"collector:{node}"


def collected_node(name: str) -> str:
    """The node whose collector has this name; "" for the name of another actor."""
    prefix = collector_name("")
    return name.removeprefix(prefix) if name.startswith(prefix) else ""


def collector_options(node: str) -> dict[str, Any]:
    """A collector's options: pinned to its node by our label, so it waits for the node and returns with it."""
    return {**SINGLETON, "name": collector_name(node), "label_selector": {NODE_LABEL: node}}


def singleton_options(name: str) -> dict[str, Any]:
    """The options of one of the named singletons."""
    return {**SINGLETON, "name": name}
