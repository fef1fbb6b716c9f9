"""What a node's data rest on: polls, what was missed, refused or folded, and the intervals in which nobody looked."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from cluster.core.decode import Reply

EVERY = 5.0  # s between two sequences that say nothing but this
INTERVALS = 64  # uncovered intervals that are told, the newest
NOTES = 5  # lines for the log, the newest
REASON_LIMIT = 200


class NodeStatus:
    """Counters since the collector began, and the state of its last poll."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._told: list[tuple[float, float]] = []  # intervals that the tracer named at the last good poll
        self._uncovered: deque[tuple[float, float, str]] = deque(maxlen=INTERVALS)
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._now: dict[str, Any] = {}
        self._good_at: float | None = None
        self._first_at = 0.0  # of the first good poll
        self._gap: tuple[float, str] | None = None  # since when polls fail, and why
        self._said_at: float | None = None

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._counts[name] += by

    def note(self, line: str) -> None:
        """Keep a line for people."""
        self._notes.append(line[: 2 * REASON_LIMIT])

    def missed(self, reason: str, at: float) -> None:
        """A poll failed."""
        self._counts["missed"] += 1
        if self._gap is None:
            self._gap = (at if self._good_at is None else self._good_at, reason[:REASON_LIMIT])

    def polled(self, reply: Reply, at: float, *, another: bool) -> None:
        """A poll was good; `another`: of another tracer instance than the last good one.

        Polls that fail while the tracer is replaced cost nothing where it names the interval itself, since it has kept all else.
        """
        self._counts["polls"] += 1
        if self._good_at is None:
            self._first_at = at
        named = [interval for interval in reply.uncovered if interval not in self._told]
        self._told = reply.uncovered
        if another and self._good_at is not None:
            self._uncovered.append((self._good_at, at, "another tracer instance answered: what closed before it began is not known"))
        elif named:
            self._uncovered.extend((*interval, "the tracer was started again: what closed meanwhile is not known") for interval in named)
        elif self._gap is not None:
            self._uncovered.append((self._gap[0], at, self._gap[1]))
        self._gap, self._good_at = None, at
        self._refused.update(reply.refused.reasons)
        for example in reply.refused.examples:
            self.note(f"refused {example}")
        self._now["connections"] = len(reply)
        if reply.telemetry:
            self._now["tracer"] = reply.telemetry

    def forgotten(self, start: float, end: float) -> None:
        """What ended between the two, and was said, is known to nobody any more."""
        self._uncovered.append((max(self._first_at, start), end, "the store was put back to an older state: what had ended since is lost"))

    def rows(self, held: int, unattributed: int) -> None:
        """How many rows are held, and how many open ones have no owner."""
        self._now.update(rows=held, unattributed=unattributed)

    def tell(self, further: Mapping[str, Any]) -> None:
        """More that is to be said of the state right now."""
        self._now.update(further)

    def due(self, at: float) -> bool:
        """Whether it is time to say this even if nothing else is to be said."""
        return self._said_at is None or not 0 <= at - self._said_at < EVERY

    def said(self, at: float) -> None:
        """It goes out now."""
        self._said_at = at

    def as_map(self) -> dict[str, Any]:
        """All of it as plain values, for the wire and for people."""
        gap = None if self._gap is None else list(self._gap)
        counts = {name: self._counts[name] for name in ("polls", "missed", "folded", "backpressure", "duplicates", "late")}
        return {
            **counts,
            **self._counts,
            **self._now,
            "refused": dict(self._refused),
            "uncovered": [list(interval) for interval in self._uncovered],
            "uncovered_since": gap,
            "notes": list(self._notes),
        }
