"""SQLite's errors, told to a person: what was wrong, where, and what to do."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.core.errors import StoreBusy, StoreError, StoreUnusable

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
INTACT = "What was stored before is intact."


def damaged(path: Path, detail: object) -> StoreUnusable:
    """The file is not, or no longer, a readable store."""
    return StoreUnusable(
        f"{path}: the store is damaged ({detail}). Nothing was changed in it. Move it away and start again for an empty one; "
        f"`sqlite3 {path} .recover | sqlite3 NEW` saves what can be read of it."
    )


def unwritable(path: Path, detail: object) -> StoreUnusable:
    """The file or its directory does not let this user in."""
    return StoreUnusable(
        f"{path}: the store cannot be opened or written ({detail}). Make the file and its directory writable for this user, "
        f"or choose another place: store.path. {INTACT}"
    )


def full(path: Path, detail: object) -> StoreUnusable:
    """No room."""
    return StoreUnusable(
        f"{path}: no room to write ({detail}). Free space on its file system, or raise the limit on file sizes; "
        f"the next commit then works. {INTACT}"
    )


def translate(path: Path, error: sqlite3.Error) -> StoreError:
    """The error of ours for one of SQLite's."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return full(path, error)
        case sqlite3.SQLITE_IOERR:
            return StoreUnusable(
                f"{path}: the store cannot be read or written ({error}: {error.sqlite_errorname}). "
                f"Look for a full or failing disk (df, dmesg) and a limit on file sizes (ulimit -f). {INTACT}"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, error)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return unwritable(path, error)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(
                f"{path}: another program holds a lock on the store ({error}). End its transaction, such as one of a sqlite3 shell."
            )
    return StoreError(f"{path}: {type(error).__name__}: {error}. {INTACT}")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise StoreUnusable where what is read is not of its type."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Raise StoreError and its kinds instead of what SQLite and the file system raise."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(path, error) from error
    except OSError as error:
        raise full(path, error) if error.errno in NO_ROOM else unwritable(path, error) from error
