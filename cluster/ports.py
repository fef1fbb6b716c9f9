"""The seams: what the actors need of the outside, as small Protocols. Sources and stores implement them; tests may, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.core.checkpoint import Checkpoint, Commit


@dataclass(frozen=True, slots=True)
class RawReply:
    """One reply of a tracer, unread."""

    body: bytes
    peer: str  # who answered, such that a restart of the tracer changes it: "pid:start time", or "" where that cannot be known
    received_at: float  # s since 1970


class ConnectionSource(Protocol):
    """Something that answers "which connections are there?" with a tracer's JSON."""

    def poll(self, ack: str | None) -> RawReply:
        """One reply; `ack` is the reply_id up to which closed rows are safe with us. Raises SourceError."""

    def close(self) -> None:
        """Give back what is held; a later poll opens anew."""


MetadataRecords = Mapping[tuple[str, str], Mapping[str, Any]]  # (address, uid) -> record


class MetadataSource(Protocol):
    """Something that knows pods, containers, processes or nodes by their addresses."""

    name: str  # "proc", "docker", "node", "kubelet", "apiserver"

    def read(self) -> MetadataRecords:
        """All that it knows now. Raises SourceError."""


class Store(Protocol):
    """What recovery rests on. One writer at a time, told apart by its fence."""

    def open(self) -> Checkpoint:
        """Raise the fence by one, durably, and return it with everything a new aggregator needs. Raises StoreError."""

    def commit(self, commit: Commit) -> None:
        """Apply one commit in one transaction; the same number again changes nothing. Raises FencedError, StoreError.

        A handle that was not opened (its process was restarted) opens the store without raising the fence.
        """

    def close(self) -> None:
        """Give the store back."""


class Publisher(Protocol):
    """Shows people what a store holds. It may be slow or cut off: nothing waits for it, and it keeps nothing that the store lacks."""

    def step(self, fence: int) -> float:
        """Do what is due for the aggregator of that fence; the seconds until the next call. Raises nothing."""

    def status(self) -> dict[str, Any]:
        """How far it is, and what is wrong."""

    def close(self) -> None:
        """Let the next one begin."""
