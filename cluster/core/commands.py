"""What the aggregate wants done: the outputs of its state machine."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.core.checkpoint import Commit
from cluster.core.wire import Answer


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the collector whose hello or part this was."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Write:
    """Commit this to the store, as often as it takes, then say `Committed`. Never a second one before that."""

    commit: Commit


@dataclass(frozen=True, slots=True)
class Stop:
    """End this aggregator: it has a successor."""

    reason: str


Command = Reply | Write | Stop
