"""Which metadata records changed since they were said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from cluster.core.parts import RECORD_LIMIT, Metadata

Record = Mapping[str, Any]


class MetadataDiff:
    """What was said of each source's records, and what is still to be said."""

    def __init__(self) -> None:
        self.pending: dict[tuple[str, str, str], Record | None] = {}
        self._held: dict[str, dict[tuple[str, str], Record]] = {}

    def update(self, source: str, records: Mapping[tuple[str, str], Record]) -> int:
        """All that a source knows now; returns how many records were refused: too large, or nothing that can travel."""
        held = self._held.setdefault(source, {})
        fit = {key: record for key, record in records.items() if held.get(key) == record or _travels((*key, record))}
        for address, uid in held.keys() - fit.keys():
            self.pending[source, address, uid] = None
        for (address, uid), record in fit.items():
            if held.get((address, uid)) != record:
                self.pending[source, address, uid] = record
        self._held[source] = fit
        return len(records) - len(fit)

    def take(self) -> list[Metadata]:
        """What is to be said; from then on it counts as said."""
        said = [(*key, record) for key, record in self.pending.items()]
        self.pending = {}
        return said

    def again(self) -> None:
        """A new stream: all of it is to be said."""
        self.pending = {(source, *key): record for source, held in self._held.items() for key, record in held.items()}


def _travels(said: tuple[str, str, Record]) -> bool:
    try:
        return len(msgpack.packb(said)) <= RECORD_LIMIT
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
