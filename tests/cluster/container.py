"""Commands that run as a container of a pod does: in a node's network namespace, with processes and mounts of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.actors.waiting import wait_for
from tests.tracer.spaces import Space

# Another node's namespaces are not to be found through the mounts of `ip netns`; $1 becomes this node's own directory, as a hostPath does.
INSIDE = 'for mount in /run/netns/*; do umount "$mount"; done; mount --bind "$0" "$1"; shift; exec "$@"'

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class Container:
    """A command that is process 1. It ends with this process, however that ends; `kill` cuts its power."""

    def __init__(self, space: Space, private: Path, place: Path, log: Path, *command: str) -> None:
        isolate = ("setpriv", "--pdeathsig=KILL", "nsenter", f"--net={space.path}", *UNSHARE)
        with log.open("ab") as file:
            self._outside = subprocess.Popen(
                [*isolate, "sh", "-c", INSIDE, str(private), str(place), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.pid: int = wait_for(self._first)  # process 1, as this process sees it

    def running(self) -> bool:
        """Whether process 1 is there."""
        return self._outside.poll() is None

    def terminate(self) -> int:
        """SIGTERM to process 1, and its exit code once all of it has ended."""
        os.kill(self.pid, signal.SIGTERM)
        return self._outside.wait(60)

    def kill(self) -> None:
        """SIGKILL to process 1: the kernel ends every process of the container with it."""
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
        self._outside.wait(60)

    def _first(self) -> int:
        assert self._outside.poll() is None, f"the container ended with code {self._outside.returncode}"
        outside = self._outside.pid
        found = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
        return int(found[0]) if found else 0
