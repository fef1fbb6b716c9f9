"""A server that a test starts: its log, its ports, and an end to it whatever becomes of the tests."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STOP_TIME = 10.0  # s from SIGTERM to SIGKILL: an API server with open watches takes up to a minute
PORTS = range(20_000, 30_000)  # below those that the kernel gives to clients: a port stays ours while its server is stopped


class Port:
    """A free port on loopback, kept while this object lives: bound but not listening, which a server with SO_REUSEADDR may share."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        for port in random.sample(PORTS, 100):
            try:
                self._socket.bind(("127.0.0.1", port))
            except OSError:
                continue
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.number = port
            return
        raise AssertionError(f"no free port in {PORTS}")

    def close(self) -> None:
        """Give it back."""
        self._socket.close()


class Process:
    """One server, started as often as it is stopped; its output goes to a log that every start adds to."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        # The kernel ends the child when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG): it gets a thread as old as we are.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix=f"starts-{name}")
        self._command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs. Raises AssertionError where none does."""
        assert self._process is not None, f"{self.name} is not started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended, by itself or by `stop`."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; does nothing where it runs."""
        if not self.runs:
            self.stop()
            self._process = self._starter.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self, wait: float = STOP_TIME) -> None:
        """SIGTERM, and SIGKILL after `wait` seconds; a paused one too. Does nothing where none runs."""
        if self._process is None:
            return
        if self.runs:
            self._process.terminate()
            self.resume()
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """SIGSTOP, and wait until every thread is stopped: the kernel still accepts connections, and nobody answers."""
        assert self.runs, f"{self.name} does not run"
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        deadline = time.monotonic() + 10
        while any(state(task) not in "TZ" for task in tasks.iterdir()):
            assert time.monotonic() < deadline, f"{self.name} does not pause"
            time.sleep(0.01)

    def resume(self) -> None:
        """SIGCONT; does nothing where it is not paused."""
        if self.runs and self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def tail(self) -> str:
        """The end of its log, for a message."""
        return self.log.read_text(errors="replace")[-3_000:] if self.log.exists() else ""

    def close(self) -> None:
        """Stop it, and its starting thread."""
        self.stop()
        self._starter.shutdown()


def state(task: Path) -> str:
    """The letter of /proc/PID/task/TID/stat (proc(5)); Z for a thread that is gone."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
