"""Opening the file of a store: what is refused, what is made, and how SQLite is set up."""

from __future__ import annotations

import errno
import os
import sqlite3
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from cluster.core.errors import StoreUnusable
from cluster.stores import place
from cluster.stores.faults import damaged
from cluster.stores.schema import OLDEST_SQLITE, VERSION

BUSY_TIMEOUT = 5.0  # s that a lock of another program, such as a sqlite3 shell, is waited for
CHECKED_SIZE = 256_000_000  # bytes: a file up to this is checked whole when it is opened, about a second
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "journal_size_limit = 67108864",  # bytes: the log is cut back to this after a large commit
    "cache_size = -32000",  # KiB
)


def open_writer(path: Path) -> sqlite3.Connection:
    """The one writer, of a new store where there is none. The caller holds the lock. Raises StoreUnusable, sqlite3.Error, OSError."""
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


def open_reader(path: Path) -> sqlite3.Connection:
    """A reader, which changes nothing. Raises StoreUnusable, sqlite3.Error, OSError."""
    if not place.exists(path):
        raise StoreUnusable(f"{path}: there is no store. `rayscope up` makes one; store.path says where it is.")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    database = _connect_reader(path)
    try:
        place.check_application(path, database.execute("PRAGMA application_id").fetchone()[0])
        _check_version(database, path)
    except BaseException:
        database.close()
        raise
    return database


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


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(str(path))}?mode={options}"


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
