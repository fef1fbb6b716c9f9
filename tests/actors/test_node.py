"""The launcher of a Ray node, without a Ray that it could join; with one: test_nodes.py and tests/cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from actors import node

pytestmark = pytest.mark.ray
NOBODY = "--address=127.0.0.1:1"


@pytest.fixture
def launcher() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-m", "actors.node", NOBODY, "--no-such-option"], stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_block_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert node.main([NOBODY, "--block"]) == 2
    assert "--block" in capsys.readouterr().err


def test_a_ray_that_does_not_start_is_started_again_until_sigterm(launcher: subprocess.Popen[str]) -> None:
    assert launcher.stderr is not None
    tries = 0
    for line in launcher.stderr:
        tries += line.startswith("rayscope: node: ray start ended with code 2; starting again in ")
        if tries == 2:
            break
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(60) == 0


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
ENDING = f"""
import subprocess, sys
from actors import node
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
child.stdout.readline()
there = [pid for pid, _ in node.children()]
node.end(lambda: [pid for pid, _ in node.children()], seconds=0.1)
print(there == [child.pid], node.children())
"""


def test_what_ignores_sigterm_is_killed() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ENDING], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True []\n", done.stderr
