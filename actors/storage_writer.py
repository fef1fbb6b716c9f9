"""The StorageWriter: the one process that has the store open. It commits what it is given, and compares fences inside the transaction."""

from __future__ import annotations

import os
import time
from typing import Any

from actors.metrics import Metrics
from actors.version import code_version
from cluster.core.checkpoint import Checkpoint, Commit
from cluster.ports import Store
from cluster.stores.sqlite import SqliteStore


class StorageWriter:
    """Owns a store. Its errors travel to the caller as they are, and leave the store as it was."""

    def __init__(self, path: str, retention: float, size_limit: int) -> None:
        self.path = path
        self._store: Store = SqliteStore(path, retention=retention, size_limit=size_limit)
        self._commits = 0
        self._seconds = 0.0
        self._metrics = Metrics("storage_writer")

    def __repr__(self) -> str:
        return f"StorageWriter({self.path})"

    def version(self) -> str:
        """The code that this actor runs."""
        return code_version()

    def open(self) -> Checkpoint:
        """Raise the fence and return what recovery needs. Raises StoreError."""
        return self._store.open()

    def commit(self, commit: Commit) -> None:
        """One transaction. Raises FencedError, StoreError."""
        started = time.monotonic()
        self._store.commit(commit)
        self._seconds = time.monotonic() - started
        self._commits += 1
        self._metrics.count("commits")
        self._metrics.count("committed_rows", len(commit.rows) + len(commit.changed.get("uid", ())))
        self._metrics.gauge("commit_seconds", self._seconds)

    def status(self) -> dict[str, Any]:
        """Where the store is and what its last commit took."""
        return {"pid": os.getpid(), "path": self.path, "commits": self._commits, "last_commit_seconds": round(self._seconds, 4)}

    def stop(self) -> None:
        """Close the store: everything committed stays."""
        self._store.close()
