"""When a command that runs on should end: at Ctrl-C, SIGTERM, or after a given time."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Interrupted(Exception):
    """A signal asked for the end within `Ending.interruptible`."""


class Ending:
    """Asked to end by a signal, or by the clock after `seconds` (None: never by the clock). Made in the main thread.

    `notice`, while it is not empty, is what a signal writes to stderr, for times in which the end has to wait.

    The handler sets a flag and writes to a pipe: a threading.Event could be locked by the very code that the signal interrupts.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.asked = False
        self.notice = ""
        self._raises = False
        self._instead: Callable[[], None] | None = None
        self._process = os.getpid()
        self.after(seconds)
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def after(self, seconds: float | None) -> None:
        """Count the given time from now on."""
        self._end = float("inf") if seconds is None else time.monotonic() + seconds

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the end if that is sooner; True when it is time to end."""
        left = min(seconds, self._end - time.monotonic())
        if not self.asked and left > 0:
            select.select([self._reading], [], [], None if left == float("inf") else left)
        return self.asked or time.monotonic() >= self._end

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """What is done within ends at once, by Interrupted, when a signal asks for the end; for waiting only, never for writing."""
        self._raises = True
        try:
            if self.asked:
                raise Interrupted
            yield
        finally:
            self._raises = False

    @contextmanager
    def at_once(self, leave: Callable[[], None]) -> Iterator[None]:
        """Within, a signal calls this, which is to end the process: for what can neither be interrupted nor waited for."""
        self._instead = leave
        try:
            if self.asked:
                leave()
            yield
        finally:
            self._instead = None

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.notice and not self.asked:
            with suppress(OSError):
                os.write(2, f"rayscope: {self.notice}\n".encode())
        self.asked = True
        if self._instead and os.getpid() == self._process:  # not in a child between fork and exec
            self._instead()
        with suppress(BlockingIOError):
            os.write(self._writing, b"\0")
        if self._raises:
            self._raises = False
            raise Interrupted
