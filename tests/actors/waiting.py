"""Waiting for what must come true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.core.errors import RayscopeError

DEADLINE = 90.0


def wait_for(answer: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """The first true answer; an error of ours counts as not yet. Fails at the deadline with the last answer."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = answer()
        except RayscopeError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.1)
    raise AssertionError(f"not true within {seconds:g} s; last answer: {last!r}")


def ended(pid: int) -> bool:
    """Whether a process is no more, or only waits to be collected by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
