"""One real Ray for all tests of the actors, with our real tracer and a real store: starting one takes ten seconds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors import deploy, session
from actors.calls import Peer
from actors.options import AGGREGATOR, QUERY, STORAGE_WRITER, SUPERVISOR, collector_name
from cluster.cli.tracer_process import TracerProcess
from configs.settings import CollectorSettings, RaySettings, Settings, StoreSettings
from tests.actors.totals import assert_totals, stored
from tests.actors.waiting import wait_for
from tests.traffic import Traffic

NODE = "test-node"
ROLES = ("collector", AGGREGATOR, STORAGE_WRITER, SUPERVISOR)


@dataclass(frozen=True)
class Running:
    """A rayscope that runs."""

    settings: Settings
    base: Path  # a directory of ours, with a short name
    store: Path
    socket: str
    address: str  # of its Ray

    def peer(self, role: str) -> Peer:
        """The actor of this role."""
        return Peer(collector_name(NODE) if role == "collector" else role)

    def pid(self, role: str) -> int:
        """The process of an actor, once it answers."""
        return int(wait_for(lambda: self.peer(role).call("status", group=QUERY)["pid"]))

    def seen(self, traffic: Traffic) -> int:
        """How many keys of this traffic the store has."""
        return len(stored(self.store, traffic.port, NODE))

    def assert_totals(self, traffic: Traffic) -> None:
        """The store comes to equal what the traffic's sockets counted."""
        assert_totals(self.store, traffic.truth, traffic.port, NODE)


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    """Everything started, and everything taken down."""
    base = Path(tempfile.mkdtemp(prefix="rs-"))  # short: the path of a unix socket has 107 bytes at most
    settings = Settings(
        collector=CollectorSettings(interval=0.3, docker_socket=None),
        store=StoreSettings(commit_interval=0.5),
        ray=RaySettings(namespace="rayscope-test", dashboard=False, temp_dir=str(base / "ray")),
    )
    store, socket = base / "rayscope.db", str(base / "tracer.sock")
    with TracerProcess(socket, base / "tracer.log"), pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_health_check_period_ms", "500")  # a node that is gone is noticed after 1.5 s instead of 15
        environment.setenv("RAY_health_check_failure_threshold", "3")
        started = session.start(NODE, settings.ray, base)
        try:
            deploy.deploy(str(store), socket, settings)
            made = Running(settings, base, store, socket, started.address)
            wait_for(lambda: made.peer(AGGREGATOR).call("status", group=QUERY)["nodes_covered"] == 1)
            yield made
            deploy.take_down()
        finally:
            session.leave()
    shutil.rmtree(base, ignore_errors=True)
