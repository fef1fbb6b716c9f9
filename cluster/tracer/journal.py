"""The tracer's memory beside its socket: whoever kills the tracer, the next one on that socket goes on where it was.

Two files, used in turn. Before each reply the whole state goes into the one that is not in use, and the other is removed; what dies after
that is appended as it is read. So at any moment of a kill one of them is whole: the state as of the last reply, and events since. None is
synced: the page cache survives a process, and a boot makes all of it worthless, since the kernel numbers sockets and namespaces anew. A
file that is replaced this soon is seldom written to a disk at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from cluster.tracer.rows import Rows
from cluster.tracer.state import BEAT, BEAT_AT, EVENTS, RECORD, State, Unusable, contents, packed, record, unpacked

SIZE_LIMIT = 256 << 20  # bytes of one file: a million sockets; beyond it the tracer goes on without
SUFFIXES = (".journal-a", ".journal-b")  # of the socket's name


class Journal:
    """Reads what the last tracer left, and writes what this one knows. Without a path it does nothing.

    Nothing here raises OSError: what cannot be written is lost with the process as it would be without a journal, and `trouble` says why.
    """

    def __init__(self, socket: Path | None) -> None:
        self.paths = [] if socket is None else [socket.with_name(socket.name + suffix) for suffix in SUFFIXES]
        self.trouble = ""  # why nothing is written now
        self.refused: Counter[str] = Counter()  # files that could not be read, by reason
        self.size = 0
        self._turn = 0
        self._fd = -1  # of the file in use
        self._foreign = False  # another tracer that lives writes these files

    def read(self, boot: str) -> State | None:
        """The state that another tracer left in this boot; None where there is none that can be used."""
        found = []
        for path in self.paths:
            try:
                found.append(read(path, boot))
            except FileNotFoundError:
                continue
            except BlockingIOError:
                self._foreign, self.trouble = True, f"{path} is in use by another tracer"
            except (OSError, Unusable) as error:
                self.refused[str(error) if isinstance(error, Unusable) else error.strerror or "unreadable"] += 1
        if self._foreign or not found:
            return None
        latest = max(found, key=lambda state: state.meta.turn)
        self._turn = latest.meta.turn
        return latest

    def write(self, state: State) -> None:
        """Put the whole state in the place of what is there."""
        if not self.paths or self._foreign:
            return
        state.meta.turn = self._turn = self._turn + 1
        path, other = self.paths[self._turn % 2], self.paths[1 - self._turn % 2]
        old, self._fd = self._fd, -1
        try:
            parts = packed(state)
            self.size = sum(map(len, parts))
            if self.size > SIZE_LIMIT:
                raise OSError(f"the state has {self.size >> 20} MB, and a journal at most {SIZE_LIMIT >> 20} MB")
            self._fd = create(path)
            for part in parts:
                write(self._fd, part)
            remove(other)
            self.trouble = ""
        except OSError as error:
            self._fail(error)
            self.drop()  # what is there is older than what the reply will say
        finally:
            close(old)

    def append(self, rows: Rows) -> None:
        """Add sockets that have died."""
        if self._fd < 0:
            return
        data = contents(rows)
        try:
            if self.size + RECORD.size + len(data) > SIZE_LIMIT:
                raise OSError(f"a journal has at most {SIZE_LIMIT >> 20} MB")
            write(self._fd, record(EVENTS, data) + data)
            self.size += RECORD.size + len(data)
        except OSError as error:  # what is in it stays true until the last beat, and no later one comes
            self._fail(error)
            self._release()

    def beat(self, at: float) -> None:
        """All events until `at` (s since 1970) have been read."""
        if self._fd < 0:
            return
        try:
            os.pwrite(self._fd, BEAT.pack(at), BEAT_AT)
        except OSError as error:
            self._fail(error)
            self._release()

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._foreign:
            return
        self._release()
        self.size = 0
        for path in self.paths:
            with contextlib.suppress(OSError):
                remove(path)

    def close(self) -> None:
        """Leave it to the next tracer."""
        self._release()

    def status(self) -> dict[str, Any]:
        """Where it is and what it holds, for people."""
        return {"files": list(map(str, self.paths)), "kept": self._fd >= 0, "bytes": self.size, "refused": dict(self.refused)}

    def lacks(self) -> list[dict[str, str]]:
        """What a kill of the tracer would cost more than it need, or the last one did: each as {what, why, remedy}."""
        found = []
        if self.trouble:
            remedy = "make room there, or give the tracer a directory that it may write to by --socket"
            found.append({"what": "closes that a killed tracer has not told yet", "why": self.trouble, "remedy": remedy})
        for reason in self.refused:
            why, remedy = f"its journal could not be used: {reason}", "none is needed: it is written anew"
            found.append({"what": "closes that the last tracer had not told", "why": why, "remedy": remedy})
        return found

    def _fail(self, error: OSError) -> None:
        self.trouble = f"{error.filename or self.paths[0].parent}: {error.strerror or error}"

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        close(fd)


def read(path: Path, boot: str) -> State:
    """What a file holds, less a torn end. Raises Unusable, and OSError, BlockingIOError where another process has it locked."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise Unusable("not a file of this user's")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if found.st_size > SIZE_LIMIT:
            raise Unusable("too large")
        with open(fd, "rb", closefd=False) as file:
            return unpacked(file.read(SIZE_LIMIT), boot)
    finally:
        os.close(fd)


def create(path: Path) -> int:
    """A new, empty, locked file of mode 0600. Raises OSError."""
    remove(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def write(fd: int, data: bytes | memoryview) -> None:
    """Write all of it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def remove(path: Path) -> None:
    """Remove a file that may not be there. Raises OSError."""
    path.unlink(missing_ok=True)


def close(fd: int) -> None:
    """Close a descriptor that may be none."""
    if fd >= 0:
        os.close(fd)
