"""Where a question is answered: by the aggregator while `up` runs, else from the store; the answer says which.

The aggregator holds what goes on now; connections that closed a while ago have left it and are in the store alone. So a live question about
transactions first lets the aggregator commit, and then reads the store, which has both.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from cluster.core import query
from cluster.core.errors import ActorUnavailable, RayscopeError
from cluster.core.snapshot import Snapshot
from cluster.stores.sqlite import read_only
from configs import paths
from configs.settings import Settings

FLUSH = 5.0  # s that a question waits for a commit


class Reader(Protocol):
    """Answers questions; the answers are those of cluster.core.query."""

    origin: str  # for people: where the answers come from

    def transactions(self, where: query.Filter, sort: str, limit: int | None) -> list[dict[str, Any]]:
        """Transactions that match. Raises RayscopeError."""

    def metadata(self, address: str | None) -> dict[str, Any]:
        """Metadata by address. Raises RayscopeError."""

    def status(self) -> dict[str, Any]:
        """Completeness. Raises RayscopeError."""


class StoreReader:
    """Reads the store as the last commit left it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.origin = f"from the store {path}: rayscope does not run here"

    def transactions(self, where: query.Filter, sort: str, limit: int | None) -> list[dict[str, Any]]:
        """As Reader; rows last seen before `where.since` are not even read."""
        return query.transactions(Snapshot.of(read_only(self._path, since=where.since or 0.0)), where, sort, limit)

    def metadata(self, address: str | None) -> dict[str, Any]:
        """As Reader."""
        return query.metadata(self._snapshot(), address)

    def status(self) -> dict[str, Any]:
        """As Reader; the ages count from now."""
        return query.status(self._snapshot(), time.time())

    def _snapshot(self) -> Snapshot:
        return Snapshot.of(read_only(self._path, history=False))


class LiveReader:
    """Asks the actors of a rayscope that runs. Raises ActorError where no Ray answers."""

    def __init__(self, address: str, store: Path | None, settings: Settings, runtime: Path) -> None:
        from actors import session

        logging.disable(logging.INFO)  # Ray's client says where it connects; `origin` says it for people
        session.connect(address, settings.ray, runtime)
        from actors.calls import Peer  # it imports Ray, whose environment is set by now
        from actors.options import AGGREGATOR, STORAGE_WRITER, SUPERVISOR

        self.origin = f"live, from the aggregator at {address}"
        self._aggregator, self._writer, self._supervisor = (
            Peer(name, settings.aggregator.call_timeout) for name in (AGGREGATOR, STORAGE_WRITER, SUPERVISOR)
        )
        self._store = StoreReader(str(store)) if store is not None and store.exists() else None

    def transactions(self, where: query.Filter, sort: str, limit: int | None) -> list[dict[str, Any]]:
        """As Reader."""
        if self._store is not None and self._flushed():
            return self._store.transactions(where, sort, limit)
        found: list[dict[str, Any]] = self._aggregator.call("transactions", where, sort, limit, group="query")
        return found

    def metadata(self, address: str | None) -> dict[str, Any]:
        """As Reader."""
        found: dict[str, Any] = self._aggregator.call("metadata", address, group="query")
        return found

    def status(self) -> dict[str, Any]:
        """As Reader, and what the supervisor and the storage writer say of themselves."""
        found: dict[str, Any] = self._aggregator.call("status", group="query")
        for name, peer in (("supervisor", self._supervisor), ("store", self._writer)):
            with suppress(ActorUnavailable):  # being restarted: its part is missing for a moment
                found[name] = peer.call("status", group="query")
        return found

    def _flushed(self) -> bool:
        """Whether all that is applied is in the store now."""
        with suppress(ActorUnavailable):
            return bool(self._aggregator.call("flush", FLUSH, group="query"))
        return False


def running(runtime: Path) -> dict[str, Any] | None:
    """What `up` wrote of itself, where it still runs."""
    try:
        found: dict[str, Any] = json.loads((runtime / "up.json").read_text())
        os.kill(found["pid"], 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def reader(settings: Settings) -> Reader:
    """The reader that fits: live, or the store. Raises RayscopeError where there is neither."""
    runtime = paths.runtime_place(os.environ)
    live = running(runtime)
    if live is not None:
        return LiveReader(live["address"], Path(live["store"]), settings, runtime)
    if settings.ray.address:
        return LiveReader(settings.ray.address, None, settings, runtime)
    path = paths.store_path(os.environ, settings)
    if not path.exists():
        raise RayscopeError(f"nothing to read: rayscope does not run here, and there is no store at {path}; start it with `rayscope up`")
    return StoreReader(str(path))
