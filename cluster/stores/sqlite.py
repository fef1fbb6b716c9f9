"""The SQLite store: one file that recovery rests on and that a person can read with the sqlite3 shell.

Promise: when `commit` returns, the commit survives the death of this process and of the machine (write-ahead log, synchronous = FULL: the
log is flushed to the disk at each commit; a disk that lies about flushing is beyond us). When it raises, nothing of the commit is there.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from cluster.core.checkpoint import Checkpoint, Commit
from cluster.core.errors import FencedError, StoreError, StoreUnusable
from cluster.stores import place
from cluster.stores.faults import damaged, readable, told
from cluster.stores.folding import BATCH, Limits, retain
from cluster.stores.lock import WriterLock
from cluster.stores.schema import OLDEST_SQLITE, VERSION
from cluster.stores.tables import EVERY, LIVE, read, read_meta, write, write_meta

RETENTION = 604_800.0  # s
SIZE_LIMIT = 2_000_000_000  # bytes
BUSY_TIMEOUT = 5.0  # s that a lock of another program, such as a sqlite3 shell, is waited for
CHECKED_SIZE = 256_000_000  # bytes: a file up to this is checked whole when it is opened, about a second
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "journal_size_limit = 67108864",  # bytes: the log is cut back to this after a large commit
    "cache_size = -32000",  # KiB
)


class SqliteStore:
    """A Store in one file. Closed rows older than `retention` seconds, or beyond `size_limit` bytes of file, are summed into fold rows."""

    def __init__(self, path: str | Path, retention: float = RETENTION, size_limit: int = SIZE_LIMIT) -> None:
        self.path = Path(os.path.realpath(path))  # one name, one lock
        self._limits = Limits(retention, size_limit)
        self._lock = WriterLock(self.path)
        self._database: sqlite3.Connection | None = None
        self._calls = threading.Lock()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    def open(self) -> Checkpoint:
        """Raise the fence and return the rows that have a slot, and all else. Opening again while open hands over to the next aggregator.

        Raises StoreBusy where another rayscope has it, StoreUnusable for a file that this release cannot use.
        """
        with self._calls, told(self.path):
            if self._database is not None:
                return _take_over(self._database, self.path)
            self._database = self._connect()
            try:
                return _take_over(self._database, self.path)
            except BaseException:
                self._release()
                raise

    def commit(self, commit: Commit) -> None:
        """Apply one commit in one transaction; one that is applied already changes nothing. Raises FencedError, StoreError."""
        with self._calls, told(self.path):
            if self._database is None:
                raise StoreError(f"{self.path}: the store is not open")
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
            return _open_file(self.path)
        except BaseException:
            self._lock.release()
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
        if not place.exists(path):
            raise StoreUnusable(f"{path}: there is no store. `rayscope up` makes one; store.path says where it is.")
        database = _connect_reader(path)
        try:
            place.check_application(path, database.execute("PRAGMA application_id").fetchone()[0])
            _check_version(database, path)
            return _read(database, path, f"{EVERY if history else LIVE} AND coalesce(last_seen >= ?, TRUE)", since)
        finally:
            database.close()


def _open_file(path: Path) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old: rayscope needs {'.'.join(map(str, OLDEST_SQLITE))} or newer")
    if place.exists(path):
        place.check_header(path)
    else:
        place.refuse_leftovers(path)
        place.create(path, f"rayscope {version('rayscope')}")
    database = sqlite3.connect(_uri(path, "rw"), uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT)
    try:
        _check_version(database, path)
        for pragma in PRAGMAS:
            database.execute(f"PRAGMA {pragma}").fetchall()
        _check_pages(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(str(path))}?mode={options}"


def _connect_reader(path: Path) -> sqlite3.Connection:
    """A reader; on a medium that cannot be written, where no log is left, one that looks at the file alone."""
    database = sqlite3.connect(_uri(path, "ro"), uri=True, isolation_level=None, timeout=BUSY_TIMEOUT)
    try:
        database.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as error:
        log = path.with_name(path.name + "-wal")
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or (log.exists() and log.stat().st_size):
            database.close()
            raise
        database.close()
        return sqlite3.connect(_uri(path, "ro&immutable=1"), uri=True, isolation_level=None)
    return database


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    found = database.execute("PRAGMA user_version").fetchone()[0]
    if found != VERSION:
        raise StoreUnusable(
            f"{path}: the store has schema version {found}, this release reads version {VERSION}. "
            f"Use the release that made it, or move the file away to start an empty one."
        )


def _check_pages(database: sqlite3.Connection, path: Path) -> None:
    """Look for damage before anything is written. In a large file this would take long: there damage shows where it is met."""
    if path.stat().st_size > CHECKED_SIZE:
        return
    problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise damaged(path, problem)


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
