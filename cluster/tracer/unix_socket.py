"""The tracer's place in the file system: a unix socket of mode 0660 that is nobody else's."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.core.errors import TracerError

MASK = 0o117  # leaves 0660
LOCK_SECONDS = 2.0
BACKLOG = 16


@contextlib.contextmanager
def listening(path: Path, group: int | None = None) -> Iterator[socket.socket]:
    """Listen at `path`; the socket file is removed at the end. Raises TracerError where the place is taken or cannot be used."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            clear(path)
            claim(sock, path, group)
        mine = identity(path)
    except OSError as error:
        sock.close()
        raise TracerError(f"cannot serve on {path}: {error.strerror or error}") from error
    except TracerError:
        sock.close()
        raise
    try:
        yield sock
    finally:
        sock.close()
        with contextlib.suppress(OSError):
            if identity(path) == mine:
                path.unlink()


def identity(path: Path) -> tuple[int, int]:
    """What tells this file from another that took its name. Raises OSError."""
    found = path.lstat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other tracers from starting in the same place at the same moment. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TracerError(f"{directory} is locked by another process; try again") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def clear(path: Path) -> None:
    """Remove a socket that nobody serves any more; refuse anything else. Raises OSError, TracerError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise TracerError(f"{path} exists and is not a socket; move it away or choose another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(LOCK_SECONDS)
        code = probe.connect_ex(str(path))
    if code != errno.ECONNREFUSED:
        raise TracerError(f"{path} is served by another process; stop that one or choose another --socket")
    path.unlink()


def claim(sock: socket.socket, path: Path, group: int | None) -> None:
    """Bind and listen; the file never has a wider mode than 0660. Raises OSError."""
    before = os.umask(MASK)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path, -1, group)
    sock.listen(BACKLOG)
