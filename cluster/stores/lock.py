"""The lock that keeps a second rayscope off a store.

An flock on a file beside the store: the kernel lets go of it when its holder ends, however it ends. What the file says only names
the holder.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from cluster.core.errors import StoreBusy


class WriterLock:
    """Held by at most one writer of `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._store = path
        self._descriptor = -1
        self._made = False

    def acquire(self) -> None:
        """Take the lock, or raise StoreBusy with the holder's pid; OSError where the file cannot be made."""
        while not self._acquired():
            pass

    def _acquired(self) -> bool:
        """False where the file was taken away before it was locked: a lock on it would keep nobody off."""
        made = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreBusy(
                f"{self._store}: another rayscope has the store open (pid {holder}). "
                "End it, or give this one a store of its own: store.path."
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        if not self._is_there(descriptor):
            os.close(descriptor)
            return False
        self._descriptor, self._made = descriptor, made
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return True

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False

    def undo(self) -> None:
        """Let go, and leave no file where there was none: nothing of ours is beside it."""
        if self._descriptor >= 0 and self._made:
            with suppress(OSError):
                self.path.unlink()
        self.release()

    def release(self) -> None:
        """Let go; nothing where it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
