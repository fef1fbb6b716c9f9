"""One real Ray for all tests of the actors, with our real tracer and a real store: starting one takes ten seconds."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors import deploy, session
from actors.calls import Peer
from actors.options import AGGREGATOR, QUERY, STORAGE_WRITER, SUPERVISOR, collector_name
from cluster.cli.tracer_process import TracerProcess
from cluster.core.errors import RayscopeError
from configs.settings import CollectorSettings, RaySettings, Settings, StoreSettings

NODE = "test-node"
DEADLINE = 90.0


@dataclass(frozen=True)
class Running:
    """A rayscope that runs."""

    settings: Settings
    store: Path
    socket: str
    tracer: TracerProcess

    def peer(self, role: str) -> Peer:
        """The actor of this role."""
        return Peer(collector_name(NODE) if role == "collector" else role)

    def pid(self, role: str) -> int:
        """The process of an actor, once it answers."""
        return int(wait_for(lambda: self.peer(role).call("status", group=QUERY)["pid"]))


def wait_for(answer: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """The first true answer; an error of ours counts as not yet. Fails at the deadline with the last answer."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = answer()
        except RayscopeError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.1)
    raise AssertionError(f"not true within {seconds:g} s; last answer: {last!r}")


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """Everything started, and everything taken down."""
    base = Path(tempfile.mkdtemp(prefix="rs-"))  # short: the path of a unix socket has 107 bytes at most
    settings = Settings(
        collector=CollectorSettings(interval=0.3, docker_socket=None),
        store=StoreSettings(commit_interval=0.5),
        ray=RaySettings(namespace="rayscope-test", dashboard=False, temp_dir=str(base / "ray")),
    )
    store, socket = base / "rayscope.db", str(base / "tracer.sock")
    with TracerProcess(socket, base / "tracer.log") as tracer:
        session.start(NODE, settings.ray, base)
        try:
            deploy.deploy(str(store), socket, settings)
            made = Running(settings, store, socket, tracer)
            wait_for(lambda: made.peer(AGGREGATOR).call("status", group=QUERY)["nodes_covered"] == 1)
            yield made
            deploy.take_down()
        finally:
            session.leave()
    shutil.rmtree(base, ignore_errors=True)


ROLES = ("collector", AGGREGATOR, STORAGE_WRITER, SUPERVISOR)
