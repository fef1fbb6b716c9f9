"""The tracer beside `up`: found where one answers, else started by us and kept alive until we end."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from cluster.cli.output import say
from cluster.core.errors import TracerError

START = 10.0  # s for a tracer to answer
STOP = 3.0  # s for it to end before it is killed


def answers(path: str) -> bool:
    """Whether somebody listens on this socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(path) == 0


class TracerProcess:
    """Our tracer as a child; started again when it dies. Use as a context."""

    def __init__(self, path: str, log: Path) -> None:
        self.path, self.log = path, log
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._starting = threading.Lock()  # none is started once the end has begun

    def __enter__(self) -> TracerProcess:
        """Start it and wait until it answers. Raises TracerError."""
        self._start()
        deadline = time.monotonic() + START
        while not answers(self.path):
            if self._child is not None and self._child.poll() is not None:
                raise TracerError(f"the tracer ended with code {self._child.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise TracerError(f"the tracer did not answer on {self.path} within {START:g} s; its log is {self.log}")
            time.sleep(0.05)
        threading.Thread(target=self._keep, name="tracer", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the one that was started last; 0 before the first."""
        return self._child.pid if self._child is not None else 0

    def stop(self) -> None:
        """End it in order, or else by force."""
        with self._starting:
            self._ending.set()
            child = self._child
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "cluster", "tracer", "--with-parent", "--socket", self.path]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _keep(self) -> None:
        while not self._ending.is_set():
            child = self._child
            if child is not None and child.poll() is not None:
                with self._starting:
                    if self._ending.is_set():
                        return
                    self._start()
                say(f"the tracer ended with code {child.returncode} and was started again; its log is {self.log}")
            self._ending.wait(0.5)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"its log {self.log} is empty"
