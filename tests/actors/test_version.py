"""Actors of other code are flushed and replaced, and what they had counted is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.util import list_named_actors

from actors.version import PACKAGES, code_version
from cluster.cli.tracer_process import TracerProcess
from configs.settings import Settings
from tests.actors.conftest import NODE, Running
from tests.actors.totals import difference, stored
from tests.actors.waiting import wait_for
from tests.traffic import connections

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NAMESPACE = "version-test"
ROOT = Path(__file__).parent.parent.parent

DRIVER = """
import sys
from pathlib import Path
from configs.settings import Settings
settings = Settings.model_validate_json(sys.argv[1])
from actors import session
session.connect(settings.ray.address, settings.ray, Path(sys.argv[2]).parent)
from actors import deploy
from actors.version import code_version
deploy.deploy(sys.argv[2], sys.argv[3], settings)
print(code_version())
if sys.argv[4] == "down":
    assert deploy.take_down()
session.leave()
"""


@pytest.fixture
def other_tree(tmp_path: Path) -> Path:
    """A copy of the source that differs by a line."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "actors" / "version.py").open("a") as file:
        file.write("# another release\n")
    return tmp_path


@pytest.fixture
def tracer(running: Running) -> Iterator[str]:
    socket = str(running.base / "other.sock")
    with TracerProcess(socket, running.base / "other.log"):
        yield socket


def deploy(tree: Path, settings: Settings, store: Path, tracer: str, then: str) -> str:
    """Deploy from a source tree, as a process of its own does; the code that it runs."""
    command = [sys.executable, "-c", DRIVER, settings.model_dump_json(), str(store), tracer, then]
    done = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ours() -> list[str]:
    """The actors of this test's namespace."""
    return [one["name"] for one in list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]


def test_actors_of_other_code_are_replaced_and_totals_kept(running: Running, other_tree: Path, tracer: str) -> None:
    ray = running.settings.ray.model_copy(update={"address": running.address, "namespace": NAMESPACE})
    settings, store = running.settings.model_copy(update={"ray": ray}), running.base / "versions.db"

    old = deploy(other_tree, settings, store, tracer, "stay")
    assert old != code_version()
    with connections(10) as (sink, truth, clients):
        for client in clients:
            client.ask(1_000, 2_000)
        wait_for(lambda: not difference(truth.bytes, stored(store, sink.port, NODE)))
        for client in clients:
            client.ask(3_000, 4_000)
        assert deploy(ROOT, settings, store, tracer, "down") == code_version()
        assert not difference(truth.bytes, stored(store, sink.port, NODE))
    assert ours() == []
