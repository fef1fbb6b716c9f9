"""Network namespaces for tests, each with a process or a mount to itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making a network namespace needs root")


class Space:
    """A named network namespace with its loopback up."""

    def __init__(self) -> None:
        self.name = f"rs-{uuid.uuid4().hex[:8]}"
        self.path = Path("/run/netns") / self.name
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        self.inode = self.path.stat().st_ino

    def run(self, *command: str) -> None:
        """Run a command in it."""
        run("ip", "netns", "exec", self.name, *command)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets made by this thread meanwhile are of this namespace."""
        home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(self.path, os.O_RDONLY)
        try:
            assert LIBC.setns(there, CLONE_NEWNET) == 0
            yield
            assert LIBC.setns(home, CLONE_NEWNET) == 0
        finally:
            os.close(home)
            os.close(there)

    def remove(self) -> None:
        """Unmount it."""
        if self.path.exists():
            run("ip", "netns", "del", self.name)


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def spaces(count: int) -> Iterator[list[Space]]:
    """Some namespaces, removed at the end."""
    made: list[Space] = []
    try:
        for _ in range(count):
            made.append(Space())
        yield made
    finally:
        for space in made:
            space.remove()
