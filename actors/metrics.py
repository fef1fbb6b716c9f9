"""Our metrics in Ray's own registry: counters as ray_rayscope_NAME_total, gauges as ray_rayscope_NAME, on every node's metrics port."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

DESCRIPTIONS = {
    "rows": "Rows held.",
    "batches": "Parts of batches received.",
    "sent_parts": "Parts of batches sent and answered.",
    "refused": "Records, or parts of batches, refused.",
    "folded": "Connections summed into fold rows.",
    "lag_seconds": "Seconds since the node whose data are the oldest was read.",
    "commit_age_seconds": "Seconds since all that was applied was durable.",
    "commit_seconds": "Seconds that the last commit took.",
    "commits": "Commits made durable.",
    "committed_rows": "Rows written by commits.",
    "missed_polls": "Polls of the tracer that failed.",
    "skipped_polls": "Polls left out because too much waited to be delivered.",
    "kept_bytes": "Bytes of batches that are not durable yet.",
    "covered_nodes": "Nodes with a collector that answers.",
    "nodes": "Nodes with our label.",
}


class Metrics:
    """The metrics of one actor. A counter appears once it is more than 0. Tags are bounded: the actor's role and its node."""

    def __init__(self, role: str, node: str = "") -> None:
        self._tags = {"role": role, "node": node}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._totals: dict[str, float] = {}

    def count(self, name: str, by: float = 1) -> None:
        """Raise a counter."""
        if name not in self._counters:
            self._counters[name] = Counter(f"rayscope_{name}", DESCRIPTIONS[name], tag_keys=tuple(self._tags))
            self._counters[name].set_default_tags(self._tags)
        if by > 0:
            self._counters[name].inc(by)

    def count_to(self, name: str, total: float) -> None:
        """Raise a counter to a total that is counted elsewhere."""
        self.count(name, total - self._totals.get(name, 0.0))
        self._totals[name] = total

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(f"rayscope_{name}", DESCRIPTIONS[name], tag_keys=tuple(self._tags))
            self._gauges[name].set_default_tags(self._tags)
        self._gauges[name].set(value)
