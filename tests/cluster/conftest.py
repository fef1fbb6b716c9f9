"""One cluster for all tests here: a head and three more machines, with real Ray nodes, tracers and cables between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.options import AGGREGATOR, SUPERVISOR, collector_name
from cluster.core.errors import ActorUnavailable
from configs.settings import CollectorSettings, RaySettings, Settings, StoreSettings
from tests.actors.totals import assert_totals, stored
from tests.actors.waiting import wait_for
from tests.cluster.machine import PORT, Machine
from tests.cluster.network import Network
from tests.traffic import Traffic

GONE_AFTER = 10.0
NAMES = ("head", "first", "second", "third")
ENVIRONMENT = {  # Ray takes a node for dead after seconds, not a minute; a raylet that hears nothing of the head ends later than that
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
LACKING = [tool for tool in ("ip", "nsenter", "unshare", "setpriv", "mount", "umount") if not shutil.which(tool)]


class Driver:
    """The process on the head that asks Ray and the actors."""

    def __init__(self, head: Machine, settings: Settings) -> None:
        pid = head.containers["ray"].pid
        command = ("nsenter", f"--target={pid}", "--net", "--pid", "--mount", sys.executable, "-m", "tests.cluster.driver")
        self._log = (head.directory / "driver.log").open("ab")
        self._process = subprocess.Popen(
            [*command, f"{head.address}:{PORT}", str(head.base), settings.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answer()

    def __call__(self, question: str, *arguments: str) -> Any:
        """An answer. Raises ActorUnavailable for each error of ours: it is asked again."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([question, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)
        self._log.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the driver ended; its log is {self._log.name}"
        answer = json.loads(line)
        if "error" in answer:
            raise ActorUnavailable(answer["error"])
        return answer["is"]


@dataclass
class RayCluster:
    """A rayscope that runs on several machines."""

    machines: dict[str, Machine]
    settings: Settings
    driver: Driver = field(init=False)

    @property
    def head(self) -> Machine:
        """The machine with the singletons and the store."""
        return self.machines["head"]

    @property
    def store(self) -> Path:
        """The store, as this process sees it."""
        return self.head.directory / "rayscope.db"

    def deploy(self) -> None:
        """What a job does on the head: bring the actors up."""
        wait_for(self.head.joined)
        self.driver = Driver(self.head, self.settings)

    def said(self, name: str) -> dict[str, Any]:
        """What the aggregator says of a node."""
        nodes = self.driver("ask", AGGREGATOR, "status")["nodes"]
        return next((node for node in nodes if node["node"] == name), {"state": "unknown", "incarnation": 0})

    def supervised(self) -> dict[str, str]:
        """What the supervisor says of each node."""
        return dict(self.driver("ask", SUPERVISOR, "status")["nodes"])

    def alive(self, name: str) -> list[str]:
        """The ids of the live Ray nodes with this label."""
        return [node for label, node, lives in self.driver("nodes") if label == name and lives]

    def waiting(self) -> list[str]:
        """The actors that Ray still has to place."""
        return list(self.driver("waiting"))

    def await_covered(self, name: str, after: int = 0) -> int:
        """Wait until one collector of this node works, with a number above `after`; its number."""
        wait_for(lambda: self._covered(name, after))
        return int(self.said(name)["incarnation"])

    def _covered(self, name: str, after: int) -> bool:
        said = self.said(name)
        return (
            said["state"] == "ok"
            and said["incarnation"] > after
            and len(self.alive(name)) == 1
            and self.supervised().get(name) == ""
            and self.driver("ask", collector_name(name), "status")["polls"] > 1
            and len(self.machines[name].actors("NodeCollector")) == 1
            and self.driver("names").count(collector_name(name)) == 1
        )

    @contextmanager
    def traffic(self, name: str) -> Iterator[Traffic]:
        """On the loopback of a machine, of which the store knows something already."""
        machine = self.machines[name]
        with ExitStack() as stack:
            with machine.network.spaces[machine.number - 1].inside():
                traffic = stack.enter_context(Traffic(seed=machine.number, rate=50.0))
            wait_for(lambda: len(stored(self.store, traffic.port, name)) > 5)
            yield traffic

    def assert_totals(self, traffic: Traffic, name: str) -> None:
        """The store comes to equal what the traffic's sockets counted."""
        traffic.stop()
        assert_totals(self.store, traffic.truth, traffic.port, name)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """All but the last machine started, and everything taken down."""
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    if LACKING:
        pytest.skip(f"not installed: {', '.join(LACKING)}")
    base = Path(tempfile.mkdtemp(prefix="rs-"))
    (base / "here").mkdir()
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        network = stack.enter_context(Network(len(NAMES)))
        machines = {name: Machine(name, number, network, base) for number, name in enumerate(NAMES, 1)}
        for machine in machines.values():
            stack.callback(machine.cut_power)
        yield from running(machines)


def running(machines: dict[str, Machine]) -> Iterator[RayCluster]:
    """Start, and take down in order."""
    settings = Settings(
        collector=CollectorSettings(interval=0.3, docker_socket=None, gone_after=GONE_AFTER),
        store=StoreSettings(commit_interval=0.5),
        ray=RaySettings(namespace="rayscope-test", dashboard=False),
    )
    made = RayCluster(machines, settings)
    for name in NAMES[:-1]:
        machines[name].start()
    made.deploy()
    for name in NAMES[:-1]:
        made.await_covered(name)
    yield made
    machines[NAMES[-1]].cut_power()  # what waits for a machine that is away is taken down, too
    wait_for(lambda: not made.alive(NAMES[-1]))
    assert made.driver("take_down")
    assert made.driver("names") == []
    made.driver.close()
