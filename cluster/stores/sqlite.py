"""The SQLite store: one file that recovery rests on and that a person can read with the sqlite3 shell.

Promise: when `commit` returns, the commit survives the death of this process and of the machine (write-ahead log, synchronous = FULL: the
log is flushed to the disk at each commit; a disk that lies about flushing is beyond us). When it raises, nothing of the commit is seen.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.core.checkpoint import Checkpoint, Commit
from cluster.core.errors import FencedError, StoreError, StoreUnusable
from cluster.stores import place
from cluster.stores.faults import readable, told
from cluster.stores.folding import BATCH, Limits, retain
from cluster.stores.lock import WriterLock
from cluster.stores.opening import open_reader, open_writer
from cluster.stores.tables import EVERY, LIVE, read, read_meta, write, write_meta

RETENTION = 604_800.0  # s
SIZE_LIMIT = 2_000_000_000  # bytes


class SqliteStore:
    """A Store in one file. Closed rows older than `retention` seconds, or beyond `size_limit` bytes of file, are summed into fold rows."""

    def __init__(self, path: str | Path, retention: float = RETENTION, size_limit: int = SIZE_LIMIT) -> None:
        self.path = Path(os.path.realpath(path))  # one name, one lock
        self._limits = Limits(retention, size_limit)
        self._lock = WriterLock(self.path)
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._calls = threading.Lock()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    def open(self) -> Checkpoint:
        """Raise the fence and return the rows that have a slot, and all else. Opening again while open hands over to the next aggregator.

        Raises StoreBusy where another rayscope has it, StoreUnusable for a file that this release cannot use.
        """
        with self._calls, told(self.path):
            if self._database is not None and self._file == place.identity(self.path):
                return _take_over(self._database, self.path)
            self._release()
            self._database = self._connect()
            try:
                return _take_over(self._database, self.path)
            except BaseException:
                self._release()
                raise

    def check(self) -> None:
        """Open the store and let go of it again, its fence left alone. Raises StoreError as `open` does."""
        with self._calls, told(self.path):
            if self._database is None:
                self._database = self._connect()
                self._release()

    def commit(self, commit: Commit) -> None:
        """Apply one commit in one transaction; one that is applied already changes nothing. Raises FencedError, StoreError.

        Without an open before, the file is opened and the fence left alone: the writer was restarted, its aggregator was not.
        """
        with self._calls, told(self.path):
            if self._database is None:
                self._database = self._connect()
            if self._file != place.identity(self.path):
                raise StoreUnusable(
                    f"{self.path}: the file was removed or replaced while rayscope had it open. Put it back, or restart rayscope."
                )
            try:
                with _transaction(self._database):
                    self._apply(self._database, commit)
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                detail = f"{type(error).__name__}: {error}"
                raise StoreError(f"{self.path}: commit {commit.number} cannot be stored ({detail}); nothing of it is written") from error

    def close(self) -> None:
        """Give the file back; everything committed stays."""
        with self._calls, told(self.path):
            self._release()

    def _release(self) -> None:
        try:
            if self._database is not None:
                self._database.close()
        finally:
            self._database = None
            self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        place.make_directory(self.path)
        self._lock.acquire()
        try:
            database = open_writer(self.path)
            self._file = place.identity(self.path)
            return database
        except BaseException:
            self._lock.undo()
            raise

    def _apply(self, database: sqlite3.Connection, commit: Commit) -> None:
        meta = read_meta(database)
        if meta["fence"] != commit.fence:
            raise FencedError(
                f"{self.path}: commit {commit.number} of aggregator {commit.fence} refused: the store belongs to aggregator {meta['fence']}"
            )
        if meta["committed_fence"] == commit.fence and commit.number <= meta["committed_number"]:
            return
        write(database, commit)
        highest = int(commit.rows.columns["uid"].max()) if len(commit.rows) else 0
        folded, next_fold = retain(database, self._limits, commit.at, BATCH + 2 * len(commit.rows), meta["next_fold"])
        write_meta(
            database,
            committed_fence=commit.fence,
            committed_number=commit.number,
            committed_at=commit.at,
            next_uid=max(meta["next_uid"], highest + 1),
            next_fold=next_fold,
            folded=meta["folded"] + folded,
        )


def read_only(path: str | Path, *, history: bool = True, since: float = 0.0) -> Checkpoint:
    """What the store holds at this moment: rows last seen at `since` (s since 1970) or later; without `history` only those with a slot.

    Takes no lock that a writer feels, and raises no fence. Raises StoreUnusable, also where there is no store.
    """
    path = Path(os.path.realpath(path))
    with told(path):
        database = open_reader(path)
        try:
            return _read(database, path, f"{EVERY if history else LIVE} AND coalesce(last_seen >= ?, TRUE)", since)
        finally:
            database.close()


def _take_over(database: sqlite3.Connection, path: Path) -> Checkpoint:
    with readable(path), _transaction(database):
        write_meta(database, fence=read_meta(database)["fence"] + 1)
    return _read(database, path, LIVE)


def _read(database: sqlite3.Connection, path: Path, where: str, *arguments: float) -> Checkpoint:
    database.execute("BEGIN")
    try:
        with readable(path):
            return read(database, where, arguments)
    finally:
        if database.in_transaction:
            database.execute("COMMIT")


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            if database.in_transaction:
                database.execute("ROLLBACK")
        raise
