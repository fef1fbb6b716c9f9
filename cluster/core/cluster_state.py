"""What is known of the Kubernetes cluster rests on this: the watcher of the API server, and the nodes that Kubernetes has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cluster.core.metadata import WATCHER

NAMES_LIMIT = 1_000  # uncovered nodes that are named


def of(watcher: Mapping[str, Any], metadata: Mapping[str, Mapping[str, Any]], covered: Collection[str], now: float) -> dict[str, Any]:
    """`watcher` as completeness shows a node. `state` is waiting (nothing said yet), silent, failing (a resource is not in step) or ok;
    `resources` by name, each with `age` in s since the server was last heard; `nodes`, the number that Kubernetes knows, and of these the
    names of the `uncovered`."""
    resources = {str(name): _resource(said, now) for name, said in _mapping(watcher["status"].get("resources")).items()}
    in_step = bool(resources) and all(one.get("state") == "synced" for one in resources.values())
    state = watcher["state"] if watcher["state"] in ("waiting", "silent") else "ok" if in_step else "failing"
    names = nodes(metadata)
    return {
        "state": state,
        "age": watcher["age"],
        "resources": resources,
        "nodes": len(names),
        "uncovered": sorted(names - set(covered))[:NAMES_LIMIT],
        **{name: watcher["status"].get(name) for name in ("records", "left_out", "cut", "credentials_renewed", "metadata_refused")},
    }


def nodes(metadata: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The names of the nodes that the API server has told of."""
    said = (record for sources in metadata.values() for record in sources.get("apiserver", {}).values())
    return {str(record["name"]) for record in said if record.get("node") == WATCHER and record.get("kind") == "node" and "name" in record}


def _resource(said: Any, now: float) -> dict[str, Any]:
    values = dict(_mapping(said))
    heard = values.pop("heard_at", None)
    return {**values, "age": max(0.0, now - heard) if isinstance(heard, float) and heard else None}


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
