"""Rows that neither a process nor a listener explains, and the one container of their network namespace."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.core.collector import Collector
from tests.core.receiver import Receiver, drain, greeted
from tests.core.replies import record, reply

WEB, HOST = 4_026_532_500, 4_026_531_840  # network namespaces


class Scene:
    """A collector on a machine where the namespace WEB holds container/web alone."""

    def __init__(self) -> None:
        self.collector: Collector = greeted()
        self.receiver = Receiver()
        self.owners = {WEB: "container/web"}
        self.processes: dict[int, str] = {}
        self.at = 1_000.0

    def poll(self, *records: Any, **head: Any) -> None:
        self.at += 1
        document = reply(*records, instance="i", **head)
        workload_of, owner_of = (lambda pid: self.processes.get(pid, "")), (lambda net_ns: self.owners.get(net_ns, ""))
        self.collector.on_reply(document, "1:1", self.at, workload_of, owner_of)
        drain(self.collector, self.receiver)

    def local(self) -> dict[int, str]:
        """Workloads by source port."""
        return {row["sport"]: row["local"] for row in self.receiver.all_rows()}


@pytest.fixture
def scene() -> Scene:
    return Scene()


def ours(sport: int, **fields: Any) -> dict[str, Any]:
    return record(**{"type": 0, "sport": sport, "cookie": sport, "state": "open", "pid": 0, "net_ns": WEB, **fields})


def test_what_has_no_process_is_the_one_containers_open_closed_or_with_a_pid_that_is_gone(scene: Scene) -> None:
    scene.poll(ours(1), ours(2, state="closed", close_id=1), ours(3, pid=77), ours(4, net_ns=HOST), ours(5, net_ns=0))
    assert scene.local() == {1: "container/web", 2: "container/web", 3: "container/web", 4: "", 5: ""}
    assert scene.collector.status()["unattributed"] == 2


def test_an_open_row_is_owned_once_the_container_is_known_also_when_it_closes_then(scene: Scene) -> None:
    scene.owners = {}
    for _ in range(10):
        scene.poll(ours(1), ours(2))
    assert scene.local() == {1: "", 2: ""}
    scene.owners = {WEB: "container/web"}
    scene.poll(ours(1), ours(2, state="closed", close_id=1))
    assert scene.local() == {1: "container/web", 2: "container/web"}


def test_a_process_comes_before_the_namespace(scene: Scene) -> None:
    scene.processes = {7: "container/web", 8: "process/nsenter"}
    scene.poll(ours(1, pid=7), ours(2))
    assert scene.local() == {1: "container/web", 2: "container/web"}
    scene.poll(ours(1, pid=7), ours(2, pid=8))
    assert scene.local() == {1: "container/web", 2: "process/nsenter"}
    scene.poll(ours(1, pid=7), ours(2, pid=9))
    scene.poll(ours(1, pid=7), ours(2, pid=9))
    assert scene.local() == {1: "container/web", 2: "container/web"}, "that process is gone"


def test_a_namespace_in_which_a_row_is_anothers_has_no_owner(scene: Scene) -> None:
    scene.processes = {8: "process/nsenter"}
    scene.poll(ours(1, pid=8), ours(2))
    assert scene.local() == {1: "process/nsenter", 2: ""}


@pytest.mark.parametrize(("workload", "owner"), [("process/nsenter", ""), ("container/web", "container/web"), ("", "container/web")])
def test_a_namespace_in_which_another_listens_has_no_owner(scene: Scene, workload: str, owner: str) -> None:
    scene.processes = {8: workload}
    scene.poll(ours(1), listeners=[{"net_ns": WEB, "type": 0, "source": "0.0.0.0", "sport": 99, "pid": 8}])
    assert scene.local() == {1: owner}


def test_the_other_end_of_a_connection_inside_gets_the_name_at_once(scene: Scene) -> None:
    here = {"source": "127.0.0.1", "dest": "127.0.0.1", "state": "closed"}
    scene.poll(ours(1, dport=2, close_id=1, **here), ours(2, dport=1, close_id=2, **here))
    assert [(row["local"], row["remote"]) for row in scene.receiver.all_rows()] == [("container/web", "container/web")] * 2


def test_without_a_source_of_containers_nothing_is_said(scene: Scene) -> None:
    scene.collector.on_reply(reply(ours(1), instance="i"), "1:1", 1_001.0, lambda _: "")
    drain(scene.collector, scene.receiver)
    assert scene.local() == {1: ""}
