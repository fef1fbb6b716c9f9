"""The tracer beside `up`: started again when it dies, which is said, and never once the end has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cli.tracer_process import TracerProcess, answers


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_that_was_killed_is_started_again_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        path, log = f"{folder}/t.sock", Path(folder, "log")
        with TracerProcess(path, log) as tracer:
            first = tracer.pid
            os.kill(first, signal.SIGKILL)
            wait_for(lambda: tracer.pid != first and answers(path))
        assert not answers(path)
    assert capsys.readouterr().err == f"rayscope: the tracer ended with code -9 and was started again; its log is {log}\n"


def test_one_that_dies_as_the_end_begins_stays_dead() -> None:
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        path = f"{folder}/t.sock"
        with TracerProcess(path, Path(folder, "log")) as tracer:
            os.kill(tracer.pid, signal.SIGKILL)
        last = tracer.pid
        with pytest.raises(ProcessLookupError):
            os.kill(last, 0)
        assert not answers(path)


def test_it_ends_with_the_process_that_started_it() -> None:
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        path = f"{folder}/t.sock"
        starting = f"""
import sys, time
from pathlib import Path
from cluster.cli.tracer_process import TracerProcess
with TracerProcess({path!r}, Path({folder!r}, "log")) as tracer:
    print(tracer.pid, flush=True)
    time.sleep(60)
"""
        with subprocess.Popen([sys.executable, "-c", starting], stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            parent.kill()
        wait_for(lambda: not answers(path))
        wait_for(lambda: not Path(f"/proc/{pid}/exe").exists())
