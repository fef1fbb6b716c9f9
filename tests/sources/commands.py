"""The real `rayscope` command as a process of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "cluster"]
PATIENCE = 20.0  # s; only a broken command takes so long


def environment(home: Path) -> dict[str, str]:
    """No settings but the defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAYSCOPE_", "XDG_"))}
    return {**kept, "HOME": str(home)}


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([*COMMAND, *arguments], env=environment(home), capture_output=True, text=True, timeout=PATIENCE, check=False)


class Running:
    """A command that runs on; what it says is in files, so that it never waits for us."""

    def __init__(self, home: Path, *arguments: str) -> None:
        home.mkdir(exist_ok=True)
        self.out, self.err = home / "out", home / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen([*COMMAND, *arguments], env=environment(home), stdout=out, stderr=err)

    def said(self, words: str) -> None:
        """Wait until it has said this on stderr."""
        eventually(lambda: words in self.err.read_text() or self.process.poll() is not None)
        assert words in self.err.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def running(home: Path, *arguments: str) -> Iterator[Running]:
    """A command for the time of a test."""
    command = Running(home, *arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()


def eventually(true: Callable[[], bool]) -> None:
    """Poll until it is true; fail when it never is."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
