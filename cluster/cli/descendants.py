"""The processes that this one has started, and those that they have, found by their parents: to end them all where nobody else would."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@contextmanager
def kept() -> Iterator[None]:
    """Within, a process whose parent ends becomes a child of this one, so that it is found."""
    _be_subreaper(yes=True)
    try:
        yield
    finally:
        _be_subreaper(yes=False)


def _be_subreaper(*, yes: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def found() -> list[int]:
    """Their pids, without those that have ended and are only not waited for."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in ("Z", "X"):
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    below, waiting = [], [os.getpid()]
    while waiting:
        pids = children.get(waiting.pop(), [])
        below += pids
        waiting += pids
    return below


def end(patience: float) -> None:
    """Kill them, and what they start meanwhile, until there are none; gives up after so many seconds."""
    deadline = time.monotonic() + patience
    while (pids := found()) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
