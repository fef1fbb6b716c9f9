"""Where the command begins. Python takes a moment to import even what only reads the arguments; a Ctrl-C within ends it without a word.

This module imports nothing but `os` and `signal`, and so do the packages above it. What remains is the interpreter's own start, about
20 ms in which Ctrl-C is Python's: it may still print a traceback of its own.
"""

import os
import signal
from types import FrameType

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    os._exit(INTERRUPTED)


def run() -> None:
    """The `rayscope` command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in a shell's background
        signal.signal(signal.SIGINT, _leave)
    from cluster.cli.main import main

    main(prog_name="rayscope")


def ready() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, which the command itself catches."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
