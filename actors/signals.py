"""SIGTERM stays ours while Ray starts.

`ray.init` takes it over twice: with a Python handler that ends the process with code 1 in the middle of whatever it does, and, where it
connects, with one of its C++ core that aborts. So a process that was told to end could commit nothing and would leave others behind.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def kept() -> Iterator[None]:
    """Within, Ray installs no handler that lasts. In the main thread only: in another one Ray installs none of Python's."""
    from ray._private import utils, worker

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    set_handler, connect = utils.set_sigterm_handler, worker.connect
    utils.set_sigterm_handler = lambda _handler: None
    worker.connect = lambda *arguments, **options: _shielded(connect, *arguments, **options)
    try:
        yield
    finally:
        utils.set_sigterm_handler, worker.connect = set_handler, connect


def _shielded(connect: Any, *arguments: Any, **options: Any) -> Any:
    """Connect with SIGTERM held back, then put our handler in again. No process is started within, which would inherit that."""
    ours = signal.getsignal(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return connect(*arguments, **options)
    finally:
        signal.signal(signal.SIGTERM, ours)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
