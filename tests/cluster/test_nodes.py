"""Machines join, leave, lose their power or their cable, and return: one collector each, and the store equals what their sockets counted.

Nobody does anything to rayscope meanwhile; what a test starts and stops is what people, Kubernetes and the power company do. Their tracers
live on, but where the whole machine loses its power. `pytest -rP` shows how long each return took.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from actors.options import collector_name
from tests.actors.waiting import ended, wait_for
from tests.cluster.conftest import RayCluster

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it took."""
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s")


def test_a_machine_that_joins_is_covered(ray_cluster: RayCluster) -> None:
    with timed("join, from the launcher's start to coverage"):
        ray_cluster.machines["third"].start()
        ray_cluster.await_covered("third")
    with ray_cluster.traffic("third") as traffic:
        ray_cluster.assert_totals(traffic, "third")


def test_a_node_that_is_told_to_end_ends_in_order_and_returns_under_another_id(ray_cluster: RayCluster) -> None:
    machine, (before,) = ray_cluster.machines["first"], ray_cluster.alive("first")
    with ray_cluster.traffic("first") as traffic:
        number = ray_cluster.await_covered("first")
        with timed("SIGTERM, until every process has ended"):
            assert machine.terminate() == 0
        with timed("then, until Ray says so"):
            wait_for(lambda: not ray_cluster.alive("first"))
        assert not machine.processes("ray::")
        with timed("return, from the launcher's start to coverage"):
            machine.start()
            ray_cluster.await_covered("first", after=number)
        assert ray_cluster.alive("first") != [before]
        ray_cluster.assert_totals(traffic, "first")


def test_a_node_that_is_killed_returns_while_the_heads_actors_are_killed_too(ray_cluster: RayCluster) -> None:
    machine = ray_cluster.machines["second"]
    with ray_cluster.traffic("second") as traffic:
        number = ray_cluster.await_covered("second")
        machine.cut_power("ray")
        with timed("SIGKILL of all of a node, until Ray says so"):
            wait_for(lambda: not ray_cluster.alive("second"))
        for kind in ("Supervisor", "Aggregator"):
            (pid,) = ray_cluster.head.actors(kind)
            os.kill(pid, signal.SIGKILL)
        with timed("return, from the launcher's start to coverage"):
            machine.start()
            ray_cluster.await_covered("second", after=number)
        ray_cluster.assert_totals(traffic, "second")


def test_a_raylet_that_is_killed_is_started_again_by_its_launcher(ray_cluster: RayCluster) -> None:
    machine = ray_cluster.machines["first"]
    with ray_cluster.traffic("first") as traffic:
        number = ray_cluster.await_covered("first")
        os.kill(machine.raylet(), signal.SIGKILL)
        with timed("SIGKILL of a raylet, until coverage"):
            ray_cluster.await_covered("first", after=number)
        assert machine.containers["ray"].running()
        ray_cluster.assert_totals(traffic, "first")


def test_of_two_collectors_that_both_reach_the_aggregator_the_elder_ends(ray_cluster: RayCluster) -> None:
    machine = ray_cluster.machines["first"]
    with ray_cluster.traffic("first") as traffic:
        number, (elder,) = ray_cluster.await_covered("first"), machine.actors("NodeCollector")
        os.kill(machine.raylet(), signal.SIGSTOP)  # it hangs, and can end no collector
        machine.containers["hung"] = machine.containers.pop("ray")
        wait_for(lambda: not ray_cluster.alive("first"))
        assert not ended(elder)
        with timed("a second Ray node beside one that hangs, until coverage by one collector"):
            machine.start()
            ray_cluster.await_covered("first", after=number)
        assert ended(elder)
        machine.cut_power("hung")
        ray_cluster.assert_totals(traffic, "first")


def test_a_node_that_was_cut_off_returns_with_one_collector(ray_cluster: RayCluster) -> None:
    machine, (before,) = ray_cluster.machines["second"], ray_cluster.alive("second")
    (collector,) = machine.actors("NodeCollector")
    with ray_cluster.traffic("second") as traffic:
        number = ray_cluster.await_covered("second")
        machine.pull()
        with timed("partition, until Ray says so"):
            wait_for(lambda: not ray_cluster.alive("second"))
        wait_for(lambda: "away" in ray_cluster.supervised()["second"])
        machine.plug()
        with timed("cable in again, until coverage"):
            ray_cluster.await_covered("second", after=number)
        assert ended(collector)
        assert ray_cluster.alive("second") != [before]
        ray_cluster.assert_totals(traffic, "second")


def test_a_machine_that_stays_away_is_gone_and_may_still_return(ray_cluster: RayCluster) -> None:
    machine, name = ray_cluster.machines["third"], collector_name("third")
    (isolated,) = machine.actors("NodeCollector")
    with ray_cluster.traffic("third") as traffic:
        number = ray_cluster.await_covered("third")
        machine.pull()
        with timed("partition, until the node is gone"):
            wait_for(lambda: ray_cluster.said("third")["state"] == "gone")
        assert "third" not in ray_cluster.supervised()
        assert name not in ray_cluster.driver("names")
        assert ray_cluster.waiting() == []
        machine.plug()
        with timed("cable in again, until coverage"):
            ray_cluster.await_covered("third", after=number)
        assert ended(isolated)
        ray_cluster.assert_totals(traffic, "third")


def test_a_machine_without_power_is_covered_again_once_it_has_some(ray_cluster: RayCluster) -> None:
    machine, number = ray_cluster.machines["third"], ray_cluster.await_covered("third")
    machine.cut_power()
    wait_for(lambda: not ray_cluster.alive("third"))
    with timed("return, from the launcher's start to coverage"):
        machine.start()
        ray_cluster.await_covered("third", after=number)
    with ray_cluster.traffic("third") as traffic:
        ray_cluster.assert_totals(traffic, "third")


def test_the_head_is_killed_and_returns_and_the_others_join_it_again(ray_cluster: RayCluster) -> None:
    numbers = {name: ray_cluster.await_covered(name) for name in ray_cluster.machines}
    with ray_cluster.traffic("first") as traffic:
        ray_cluster.head.cut_power("ray")
        ray_cluster.driver.close()
        with timed("head, from its launcher's start to coverage of all machines"):
            ray_cluster.head.start()
            ray_cluster.deploy()
            for name, number in numbers.items():
                ray_cluster.await_covered(name, after=number)
        ray_cluster.assert_totals(traffic, "first")
