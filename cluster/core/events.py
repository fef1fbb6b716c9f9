"""What happens to the aggregate: the inputs of its state machine. Times are the aggregator's clock, s since 1970."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hello:
    """A collector asks for its number."""

    node: str
    stream: int  # the collector's own number, 63 random bits
    at: float
    incarnation: int = 0  # the number that it was given before, 0 for none: a new stream of one that has a successor is not begun


@dataclass(frozen=True, slots=True)
class BatchReceived:
    """A part of a sequence, as `wire.pack_part` made it."""

    raw: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Committed:
    """The store has taken the commit of that number."""

    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Fenced:
    """The store belongs to a newer aggregator."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: settle, fold and commit what is due."""

    at: float


Event = Hello | BatchReceived | Committed | Fenced | Tick
