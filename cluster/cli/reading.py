"""Where a question is answered: by the aggregator while `up` runs, else from the store; the answer says which."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Protocol

from cluster.core import query
from cluster.core.errors import RayscopeError
from cluster.core.snapshot import Snapshot
from configs import paths
from configs.settings import Settings


class Reader(Protocol):
    """Answers questions."""

    origin: str  # for people: where the answers come from

    def transactions(self, where: query.Filter, sort: str, limit: int | None) -> list[dict[str, Any]]:
        """As cluster.core.query."""

    def metadata(self, address: str | None) -> dict[str, Any]:
        """As cluster.core.query."""

    def status(self) -> dict[str, Any]:
        """As cluster.core.query."""


class LiveReader:
    """Asks the aggregator of a running `up`. Raises RayscopeError where it does not answer."""

    def __init__(self, address: str, settings: Settings, runtime: Path) -> None:
        from actors import session

        session.connect(address, settings.ray, runtime)
        from actors.calls import Peer  # it imports Ray, whose environment is set by now
        from actors.options import AGGREGATOR

        self.origin = "live"
        self._peer = Peer(AGGREGATOR, settings.aggregator.call_timeout)

    def transactions(self, where: query.Filter, sort: str, limit: int | None) -> list[dict[str, Any]]:
        """As cluster.core.query."""
        found: list[dict[str, Any]] = self._ask("transactions", where, sort, limit)
        return found

    def metadata(self, address: str | None) -> dict[str, Any]:
        """As cluster.core.query."""
        found: dict[str, Any] = self._ask("metadata", address)
        return found

    def status(self) -> dict[str, Any]:
        """As cluster.core.query."""
        found: dict[str, Any] = self._ask("status")
        return found

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._peer.call(method, *arguments, group="query")


class StoreReader:
    """Reads the store as the last commit left it."""

    def __init__(self, path: str) -> None:
        from cluster.stores.sqlite import read_only

        self.origin = f"from the store {path}"
        self._snapshot = Snapshot.of(read_only(path))

    def transactions(self, where: query.Filter, sort: str, limit: int | None) -> list[dict[str, Any]]:
        """As cluster.core.query."""
        return query.transactions(self._snapshot, where, sort, limit)

    def metadata(self, address: str | None) -> dict[str, Any]:
        """As cluster.core.query."""
        return query.metadata(self._snapshot, address)

    def status(self) -> dict[str, Any]:
        """As cluster.core.query."""
        return query.status(self._snapshot, time.time())


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
    runtime = paths.runtime_dir(os.environ)
    live = running(runtime)
    address = settings.ray.address or (live["address"] if live else None)
    if address:
        return LiveReader(address, settings, runtime)
    path = paths.store_path(os.environ, settings)
    if not path.exists():
        raise RayscopeError(f"nothing to read: rayscope does not run here and there is no store at {path}; start it with `rayscope up`")
    return StoreReader(str(path))
