"""The StorageWriter: the one process that has the store open. It commits what it is given, and compares fences inside the transaction.

Beside that, in a thread of its own that no commit waits for, it publishes what the store holds, where there is an API server.
"""

from __future__ import annotations

import os
import time
from typing import Any

from actors import publishing
from actors.metrics import Metrics
from actors.version import code_version
from cluster.core.checkpoint import Checkpoint, Commit
from cluster.ports import Store
from cluster.stores.sqlite import SqliteStore
from configs.settings import Settings

NOT_PUBLISHING = {"state": "off"}


class StorageWriter:
    """Owns a store. Its errors travel to the caller as they are, and leave the store as it was."""

    def __init__(self, path: str, settings: Settings) -> None:
        self.path = path
        self._store: Store = SqliteStore(path, retention=settings.store.retention, size_limit=settings.store.size_limit)
        self._commits = 0
        self._seconds = 0.0
        self._metrics = Metrics("storage_writer")
        wanted = publishing.is_wanted(settings)
        self._publishing = publishing.Publishing(publishing.make(path, settings)) if wanted else None

    def __repr__(self) -> str:
        return f"StorageWriter({self.path})"

    def version(self) -> str:
        """The code that this actor runs."""
        return code_version()

    def open(self) -> Checkpoint:
        """Raise the fence and return what recovery needs. Raises StoreError."""
        checkpoint = self._store.open()
        self._serve(checkpoint.fence)
        return checkpoint

    def commit(self, commit: Commit) -> None:
        """One transaction. Raises FencedError, StoreError."""
        started = time.monotonic()
        self._store.commit(commit)
        self._serve(commit.fence)
        self._seconds = time.monotonic() - started
        self._commits += 1
        self._metrics.count("commits")
        self._metrics.count("committed_rows", len(commit.rows) + len(commit.changed.get("uid", ())))
        self._metrics.gauge("commit_seconds", self._seconds)

    def status(self) -> dict[str, Any]:
        """Where the store is, what its last commit took, and how far the publisher is."""
        return {
            "pid": os.getpid(),
            "path": self.path,
            "commits": self._commits,
            "last_commit_seconds": round(self._seconds, 4),
            "publisher": self._publishing.status() if self._publishing else NOT_PUBLISHING,
        }

    def stop(self) -> None:
        """Close the store: everything committed stays."""
        if self._publishing:
            self._publishing.stop()
        self._store.close()

    def _serve(self, fence: int) -> None:
        """The store has just taken this fence, so this process serves its aggregator."""
        if self._publishing:
            self._publishing.serve(fence)
