"""Whose connections a collector says they are, and which metadata it passes on."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.core import collector as module
from cluster.core.records import Role
from tests.core.receiver import Scene
from tests.core.replies import ours, record


def test_role_by_listener_then_direction_then_port() -> None:
    scene = Scene()
    listeners = [{"net_ns": 1, "type": 0, "source": "0.0.0.0", "sport": 60_000, "pid": 9}]
    scene.poll(
        ours(sport=60_000, dport=80, net_ns=1, direction=2),
        ours(sport=60_000, dport=80, net_ns=2, direction=0),
        ours(sport=80, dport=60_000, net_ns=2, direction=2),
        ours(sport=80, dport=60_000, net_ns=3, direction=0),
        ours(sport=80, dport=80, net_ns=4, direction=0),
        instance="i",
        listeners=listeners,
    )
    assert [row["role"] for row in scene.receiver.all_rows()] == [Role.SERVER, Role.CLIENT, Role.CLIENT, Role.SERVER, Role.UNKNOWN]


def test_each_pid_is_asked_for_once_and_the_unknown_ones_a_few_times_more() -> None:
    scene = Scene()
    scene.owners = {1: "process/curl"}
    records = [record(pid=pid, sport=port) for pid in (1, 2) for port in range(50)]
    scene.poll(*records)
    assert sorted(scene.asked) == [1, 2]
    scene.owners[2] = "container/web"
    scene.poll(*records)
    assert sorted(scene.asked) == [1, 2, 2]
    assert {row["local"] for row in scene.receiver.all_rows()} == {"process/curl", "container/web"}
    assert scene.collector.status()["unattributed"] == 0
    for _ in range(20):
        scene.poll(*records, record(pid=3))
    assert scene.asked.count(3) == 6
    assert scene.collector.status()["unattributed"] == 1


def test_a_closed_socket_without_a_pid_belongs_to_its_listener() -> None:
    scene = Scene()
    scene.owners = {9: "unit/nginx.service"}
    listener = {"net_ns": 1, "type": 0, "source": "::", "sport": 443, "pid": 9}
    scene.poll(ours(pid=0, net_ns=1, sport=443, state="closed", close_id=1), instance="i", listeners=[listener])
    assert (scene.only["local"], scene.only["pid"]) == ("unit/nginx.service", 9)


def there_and_back(**back: Any) -> list[dict[str, Any]]:
    there = ours(pid=1, net_ns=1, source="10.0.0.1", sport=50_000, dest="10.0.0.2", dport=80, cookie=1)
    return [
        there,
        ours(**{"pid": 2, "net_ns": 2, "source": "10.0.0.2", "sport": 80, "dest": "10.0.0.1", "dport": 50_000, "cookie": 2, **back}),
    ]


@pytest.mark.parametrize("net_ns", [1, 2], ids=["the same namespace", "two namespaces"])
def test_the_remote_end_of_a_connection_that_stays_on_the_node(net_ns: int) -> None:
    scene = Scene()
    scene.owners = {1: "process/curl", 2: "container/web"}
    scene.poll(*there_and_back(net_ns=net_ns), instance="i")
    assert [(row["local"], row["remote"]) for row in scene.receiver.all_rows()] == [
        ("process/curl", "container/web"),
        ("container/web", "process/curl"),
    ]


def test_two_possible_remote_ends_are_none() -> None:
    scene = Scene()
    scene.owners = {1: "process/curl", 2: "container/web", 3: "container/other"}
    there, back = there_and_back()
    scene.poll(there, back, {**back, "net_ns": 3, "pid": 3, "cookie": 3}, instance="i")
    assert scene.receiver.rows[0]["remote"] == ""


def test_the_listener_on_the_remote_port_of_the_same_namespace_is_the_remote_end() -> None:
    scene = Scene()
    scene.owners = {1: "process/curl", 9: "unit/nginx.service"}
    listener = {"net_ns": 1, "type": 0, "source": "0.0.0.0", "sport": 80, "pid": 9}
    near = ours(pid=1, net_ns=1, source="127.0.0.1", dest="127.0.0.1", sport=50_000, dport=80)
    far = ours(pid=1, net_ns=1, source="127.0.0.1", dest="10.0.0.2", sport=50_001, dport=80)
    scene.poll(near, far, instance="i", listeners=[listener])
    assert [(row["remote"], row["role"]) for row in scene.receiver.all_rows()] == [("unit/nginx.service", Role.CLIENT), ("", Role.CLIENT)]


def test_only_metadata_that_changed_travels() -> None:
    scene = Scene()
    scene.poll()
    one, two = {"name": "a"}, {"name": "b", "ports": ["80/tcp"]}
    scene.collector.on_metadata("docker", {("10.0.0.1", "x"): one, ("10.0.0.2", "y"): two})
    scene.poll()
    assert scene.receiver.metadata == {("docker", "10.0.0.1", "x"): one, ("docker", "10.0.0.2", "y"): two}
    scene.receiver.metadata.clear()
    scene.collector.on_metadata("proc", {("10.0.0.1", "x"): one})
    scene.collector.on_metadata("docker", {("10.0.0.1", "x"): one, ("10.0.0.3", "z"): two})
    scene.poll()
    assert scene.receiver.metadata == {
        ("proc", "10.0.0.1", "x"): one,
        ("docker", "10.0.0.2", "y"): None,
        ("docker", "10.0.0.3", "z"): two,
    }


def test_metadata_that_cannot_travel_is_refused_and_counted() -> None:
    scene = Scene()
    scene.collector.on_metadata(
        "docker", {("a", "1"): {"name": "x" * 50_000}, ("a", "2"): {"name": object()}, ("a", "3"): {"name": "good"}}
    )
    scene.poll()
    assert list(scene.receiver.metadata) == [("docker", "a", "3")]
    assert scene.collector.status()["metadata_refused"] == 2


def test_addresses_and_names_that_no_row_needs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET_AT", 100)
    scene = Scene(absent_after=1.0)
    scene.workload_of = lambda pid: f"process/{pid}"  # type: ignore[method-assign]
    for poll in range(40):
        scene.poll(record(pid=7), *(record(pid=1_000 + 50 * poll + index, dest=f"10.{poll}.0.{index}") for index in range(50)))
        scene.poll(record(pid=7, monotonic_sent_bytes=10_000 + poll))
        scene.poll(record(pid=7, monotonic_sent_bytes=10_000 + poll), after=5.0)
    assert len(scene.collector._addresses.numbers) < 700
    assert len(scene.collector._texts.listed) < 700
    seen = {(row["pid"], row["dest"], row["local"], row["sent"]) for row in scene.receiver.all_rows()}
    assert (7, "172.17.0.5", "process/7", 10_039) in seen
    assert len(seen) == 40 * 50 + 1
    assert all(row["local"] == f"process/{row['pid']}" for row in scene.receiver.all_rows())
    assert len(scene.receiver.rows) < 200, "slots are used again"
