"""A second Ray node on this machine, as a pod of a cluster has one: our launcher, with our label."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import ray

from actors.options import NODE_LABEL
from tests.actors.waiting import ended, wait_for


class RayNode:
    """Joins the Ray that this process is connected to, under a label. Use as a context; it is killed at the end, wherever it is."""

    def __init__(self, address: str, label: str) -> None:
        self._label = label
        command = [sys.executable, "-m", "actors.node", f"--address={address}", f"--labels={NODE_LABEL}={label}", "--num-cpus=1"]
        options = ["--object-store-memory=80000000", "--disable-usage-stats"]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self) -> RayNode:
        wait_for(self.alive)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def alive(self) -> bool:
        """Whether Ray says so."""
        return any(node["Alive"] and node["Labels"].get(NODE_LABEL) == self._label for node in ray.nodes())

    def terminate(self) -> tuple[int, list[int]]:
        """SIGTERM to the launcher; its exit code, and the processes that it had."""
        processes = self._processes()
        self._process.terminate()
        return self._process.wait(60), processes

    def kill(self) -> None:
        """A power cut: every process of the node at once."""
        processes = self._processes()
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        self._process.wait(60)
        wait_for(lambda: all(map(ended, processes)))

    def _processes(self) -> list[int]:
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]  # noqa: PTH208

    def _is_ours(self, pid: int) -> bool:
        """Whether it descends from our process; what Ray leaves behind is adopted by it."""
        while pid > 1:
            if pid == self._process.pid:
                return True
            try:
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                return False
        return False
