"""The tracer beside `up`: started again when it dies, which is said, and never once the end has begun."""

from __future__ import annotations

import os
import signal
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
