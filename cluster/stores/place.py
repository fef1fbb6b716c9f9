"""What must be true of the place of a store before SQLite touches it. Which place that is, configs.paths knows."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from uuid import uuid4

from cluster.core.errors import StoreUnusable
from cluster.stores.faults import damaged
from cluster.stores.schema import APPLICATION_ID, META, TABLES, VERSION

MAGIC = b"SQLite format 3\0"
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
HEADER_SIZE = 100  # bytes, with application_id at 68 (sqlite.org/fileformat.html, 1.3)


def make_directory(path: Path) -> None:
    """The directory of the store, for this user alone. Raises OSError, StoreUnusable."""
    _refuse_file_as_directory(path)
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)


def exists(path: Path) -> bool:
    """Whether something is there; an empty file is nothing. Raises StoreUnusable for a directory or a stump, OSError."""
    _refuse_file_as_directory(path)
    if path.is_dir():
        raise StoreUnusable(f"{path}: is a directory. store.path names the file.")
    size = path.stat().st_size if path.exists() else 0
    if 0 < size < HEADER_SIZE:  # SQLite takes it for an empty database
        raise damaged(path, "file is not a database")
    return size > 0


def identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def check_header(path: Path) -> None:
    """Refuse a file that is not ours before SQLite touches it. Raises StoreUnusable, OSError.

    Only for a process that does not have the store open: closing the file here would drop the locks that SQLite holds on it.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
    if not header.startswith(MAGIC):
        raise damaged(path, "file is not a database")
    check_application(path, int.from_bytes(header[68:72], "big"))


def check_application(path: Path, application_id: int) -> None:
    """Refuse the database of another program. Raises StoreUnusable."""
    if application_id != APPLICATION_ID:
        raise StoreUnusable(f"{path}: a SQLite database of another program, not a store of rayscope. Choose another place: store.path.")


def _refuse_file_as_directory(path: Path) -> None:
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir():
        raise StoreUnusable(f"{path}: {there} is not a directory, so no store can be below it. Choose another place: store.path.")


def refuse_leftovers(path: Path) -> None:
    """A write-ahead log without its database may hold what was stored last, and must not be played into a new one. Raises StoreUnusable."""
    for suffix in ("-wal", "-journal"):
        left = path.with_name(path.name + suffix)
        if left.exists() and left.stat().st_size:
            raise StoreUnusable(f"{left}: left over from a store that is gone from {path}. Move it away, or put the store back beside it.")


def create(path: Path, created_by: str) -> None:
    """An empty store, there whole or not at all. The caller holds the writer's lock. Raises sqlite3.Error, OSError."""
    draft = path.with_name(path.name + ".new")
    for left in (draft, draft.with_name(draft.name + "-journal")):
        left.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
    try:
        _write_tables(draft, created_by)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_tables(draft: Path, created_by: str) -> None:
    database = sqlite3.connect(draft, isolation_level=None)
    try:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; {TABLES} COMMIT")
        database.executemany("INSERT INTO meta VALUES (?, ?)", [*META.items(), ("created_by", created_by), ("store", str(uuid4()))])
    finally:
        database.close()
