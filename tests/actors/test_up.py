"""`rayscope up` as a process: however it ends, it says so, leaves nothing behind, and the store holds what passed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.util import list_named_actors

from cluster.stores.sqlite import SqliteStore
from tests.actors.conftest import NODE, Running
from tests.actors.totals import difference, stored
from tests.actors.waiting import wait_for
from tests.traffic import Traffic

pytestmark = pytest.mark.ray
PATIENCE = 120.0  # s for anything that ends


class Up:
    """One `up` with directories of its own; every process that it starts carries a mark in its environment."""

    def __init__(self, home: Path, *arguments: str, **settings: object) -> None:
        self.home = home
        self.mark = uuid.uuid4().hex
        self.store = self.home / "state" / "rayscope" / "rayscope.db"
        self.live = self.home / "run" / "rayscope" / "up.json"
        (self.home / "run").mkdir(mode=0o700)
        self._errors = self.home / "stderr"
        self._output = self.home / "stdout"
        options = [option for key, value in settings.items() for option in ("--set", f"{key.replace('__', '.')}={value}")]
        self._command = [sys.executable, "-m", "cluster", *options, "up", *arguments]
        self._environment = {**os.environ, "XDG_STATE_HOME": str(self.home / "state"), "XDG_RUNTIME_DIR": str(self.home / "run")}
        self.process: subprocess.Popen[bytes]

    def start(self) -> Up:
        """Run it in a session of its own, as a terminal would."""
        environment = {**self._environment, "RS_MARK": self.mark}
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(self._command, env=environment, stdout=output, stderr=errors, start_new_session=True)
        return self

    def said(self, text: str) -> bool:
        """Whether it has said this; fails when it ended without."""
        found = text in self.errors
        assert found or self.process.poll() is None, f"ended with {self.process.returncode} before it said {text!r}: {self.errors}"
        return found

    @property
    def errors(self) -> str:
        """What it said to people."""
        return self._errors.read_text()

    def looks(self) -> list[dict[str, object]]:
        """The statuses that it has printed."""
        return [json.loads(line) for line in self._output.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def left(self) -> list[str]:
        """Processes that carry the mark."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"RS_MARK={self.mark}".encode() in environ.read_bytes():
                    found.append(f"{environ.parent.name} {(environ.parent / 'cmdline').read_bytes()[:200]!r}")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def assert_ended(self, code: int) -> None:
        """It ends with this code, without a traceback, a process or a file that says that it runs."""
        try:
            assert self.process.wait(PATIENCE) == code, self.errors
        finally:
            self.process.kill()  # nothing where it has ended
        assert "Traceback" not in self.errors
        assert not self.live.exists()
        wait_for(lambda: not self.left(), 10.0)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of a test's own, whose name is short enough for sockets in it."""
    made = Path(tempfile.mkdtemp(prefix="ru-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def own(home: Path) -> Iterator[dict[str, object]]:
    """Settings of an `up` that starts a Ray beside the one of these tests; the port of its dashboard is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield {"ray__temp_dir": home / "ray", "ray__dashboard_port": taken.getsockname()[1], "collector__interval": 0.3}


@pytest.fixture
def joined(running: Running) -> Iterator[dict[str, object]]:
    """Settings of an `up` that joins the Ray of these tests, which it must leave as it was."""
    before = list_named_actors(all_namespaces=True)
    yield {"ray__address": running.address, "ray__namespace": "up-test", "node__name": NODE, "collector__interval": 0.3}
    assert list_named_actors(all_namespaces=True) == before


@pytest.mark.slow
def test_with_a_ray_of_its_own_until_ctrl_c(home: Path, own: dict[str, object]) -> None:
    up = Up(home, "--json", **own).start()
    wait_for(lambda: up.said("everything runs"))
    assert f"Ray dashboard http://127.0.0.1:{own['ray__dashboard_port']} " not in up.errors
    with Traffic(seed=5) as traffic:
        wait_for(lambda: len(traffic.truth.bytes) > 100)
        traffic.stop()
        os.killpg(up.process.pid, signal.SIGINT)
        up.assert_ended(0)
        assert not difference(traffic.truth.bytes, stored(up.store, traffic.port, socket.gethostname()))


@pytest.mark.slow
def test_sigterm_as_soon_as_its_ray_is_there(home: Path, own: dict[str, object]) -> None:
    up = Up(home, **own).start()
    wait_for(lambda: up.said("Ray dashboard"))
    up.process.terminate()
    wait_for(lambda: up.said("it ends as soon as"))
    up.assert_ended(0)
    assert "everything runs" not in up.errors


@pytest.mark.slow
@pytest.mark.parametrize("process", ["starting", "gcs_server", "raylet/raylet"])
def test_ctrl_c_while_its_ray_starts_ends_it_at_once(home: Path, own: dict[str, object], process: str) -> None:
    up = Up(home, **own).start()
    wait_for(lambda: up.said("starting Ray"))
    wait_for(lambda: process == "starting" or any(process in one for one in up.left()))
    os.killpg(up.process.pid, signal.SIGINT)
    up.assert_ended(0)
    assert "Ray had not started yet" in up.errors


def test_for_a_given_time_on_a_ray_that_runs(home: Path, joined: dict[str, object]) -> None:
    up = Up(home, "--for", "2s", "--json", **joined).start()
    wait_for(lambda: up.said("everything runs"))
    with Traffic(seed=6) as traffic:
        wait_for(lambda: len(traffic.truth.bytes) > 20)
        traffic.stop()
        up.assert_ended(0)
        assert up.looks()[-1]["nodes_covered"] == 1
        assert not difference(traffic.truth.bytes, stored(up.store, traffic.port, NODE))


@pytest.mark.parametrize("moment", ["starting on node", "joining Ray"])
def test_sigterm_while_it_starts(home: Path, joined: dict[str, object], moment: str) -> None:
    up = Up(home, **joined).start()
    wait_for(lambda: up.said(moment))
    up.process.terminate()
    up.assert_ended(0)


def test_a_store_that_another_rayscope_has(home: Path, joined: dict[str, object]) -> None:
    up = Up(home, **joined)
    other = SqliteStore(up.store)
    other.open()
    up.start().assert_ended(1)
    other.close()
    assert f"another rayscope has the store open (pid {os.getpid()})" in up.errors


def test_a_store_that_is_none(home: Path, joined: dict[str, object]) -> None:
    up = Up(home, **joined)
    up.store.parent.mkdir(parents=True)
    up.store.write_bytes(b"a letter to my aunt, of some length\n" * 200)
    up.start().assert_ended(1)
    assert str(up.store) in up.errors.splitlines()[-1]
    assert up.store.read_bytes().startswith(b"a letter")
