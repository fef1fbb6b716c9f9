"""Threads that an actor lives by."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


def start(loop: Callable[[], None]) -> threading.Thread:
    """Run a loop in a thread named after it. An error that it does not expect ends the process: Ray starts the actor anew, from a clean
    state, where an actor without its thread would live on and do nothing."""
    thread = threading.Thread(target=_run, args=(loop,), name=loop.__name__.strip("_"), daemon=True)
    thread.start()
    return thread


def _run(loop: Callable[[], None]) -> None:
    try:
        loop()
    except BaseException:
        leave("an error that nobody expected", exc_info=True)


def leave(reason: str, *, exc_info: bool = False) -> None:
    """End this process at once and without a goodbye to Ray, which starts the actor again if this is the one that it knows. An orderly exit
    could take the name away from a successor."""
    log.error("this actor ends: %s", reason, exc_info=exc_info)
    logging.shutdown()
    os._exit(1)
