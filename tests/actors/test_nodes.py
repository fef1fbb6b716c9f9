"""A node leaves and comes back: its collector with it, and only one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ray.util import list_named_actors

from actors.calls import Peer
from actors.collector import NodeCollector
from actors.deploy import end, ensure
from actors.options import AGGREGATOR, COLLECTOR_GROUPS, QUERY, ROLE_LABEL, SINGLETON, SUPERVISOR, collector_name
from tests.actors.conftest import NODE, Running
from tests.actors.ray_node import RayNode
from tests.actors.waiting import ended, wait_for

pytestmark = pytest.mark.ray
SECOND = "second-node"


def said(running: Running, node: str) -> dict[str, Any]:
    """What the aggregator says of a node."""
    nodes = running.peer(AGGREGATOR).call("status", group=QUERY)["nodes"]
    return next((one for one in nodes if one["node"] == node), {"state": "unknown", "incarnation": 0})


def collectors() -> list[str]:
    """The names of the collectors that there are."""
    return sorted(name for name in list_named_actors() if name.startswith(collector_name("")))


def collector_pid() -> int:
    """The process of the second node's collector."""
    return int(wait_for(lambda: Peer(collector_name(SECOND)).call("status", group=QUERY)["pid"]))


@pytest.fixture
def no_second(running: Running) -> Iterator[None]:
    yield
    wait_for(lambda: running.peer(SUPERVISOR).call("status", group=QUERY)["nodes"][SECOND].startswith("away"))
    end(collector_name(SECOND))
    wait_for(lambda: SECOND not in running.peer(SUPERVISOR).call("status", group=QUERY)["nodes"])


@pytest.mark.slow
@pytest.mark.usefixtures("no_second")
def test_a_node_that_returns_under_its_label_has_one_collector_again(running: Running) -> None:
    wanted = [collector_name(SECOND), collector_name(NODE)]
    with RayNode(running.address, SECOND) as node:
        wait_for(lambda: said(running, SECOND)["state"] == "ok")
        first, before = collector_pid(), said(running, SECOND)["incarnation"]
        assert collectors() == wanted
        node.kill()
        assert ended(first)
    with RayNode(running.address, SECOND) as node:
        wait_for(lambda: said(running, SECOND)["incarnation"] > before and said(running, SECOND)["state"] == "ok")
        assert collector_pid() != first
        wait_for(lambda: running.peer(SUPERVISOR).call("status", group=QUERY)["nodes"] == {SECOND: "", NODE: ""})
        assert collectors() == wanted
        code, processes = node.terminate()
        assert code == 0
        assert len(processes) > 3
        assert all(map(ended, processes))
        wait_for(lambda: running.peer(SUPERVISOR).call("status", group=QUERY)["nodes"][SECOND].startswith("away"))


def test_of_two_collectors_of_one_node_the_elder_ends(running: Running) -> None:
    once = {**SINGLETON, "max_restarts": 0, "label_selector": {ROLE_LABEL: "head"}}
    arguments = ("twin", running.socket, running.settings)
    try:
        ensure(NodeCollector, {**once, "name": "elder"}, COLLECTOR_GROUPS, arguments)
        elder = wait_for(lambda: Peer("elder").call("status", group=QUERY)["pid"])
        wait_for(lambda: said(running, "twin")["state"] == "ok")
        first = said(running, "twin")["incarnation"]
        ensure(NodeCollector, {**once, "name": "younger"}, COLLECTOR_GROUPS, arguments)
        wait_for(lambda: ended(elder))
        wait_for(lambda: "elder" not in list_named_actors())
        wait_for(lambda: said(running, "twin")["incarnation"] == first + 1 and Peer("younger").call("status", group=QUERY)["polls"] > 1)
    finally:
        end("elder")
        end("younger")
