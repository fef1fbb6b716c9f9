"""The map's views, made of one aggregate: levels, filters, folding, proof, completeness."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.core.errors import QueryError
from cluster.core.flows import FOLDED
from cluster.core.metadata import WATCHER
from cluster.core.service_map import LEVELS, Choice, namespace_id, service_map
from tests.core.cluster import OWNED, Cluster, pod, replicaset, row, served, service

NODE = {"node": "two"}


def shop() -> Cluster:
    """web -> cart through its Service (client sends 100, cart answers 900), web -> outside, cart-b -> cart-a directly."""
    cluster = Cluster()
    ports = {"port": 80, "protocol": "tcp", "backends": ["10.0.2.5:8080", "10.0.2.6:8080"]}
    cluster.tell(WATCHER, metadata=(service("cart", ["10.96.0.10"], ports), replicaset("cart-7f", "cart")))
    cluster.tell(
        "one",
        row(0, "10.0.1.4:40000", "10.96.0.10:80", "pod/shop/web", sent=100, recv=890, retransmits=2, pid=7),
        row(1, "10.0.1.4:40001", "203.0.113.9:443", "pod/shop/web", sent=7),
        metadata=(pod("web", "10.0.1.4"),),
    )
    cluster.tell(
        "two",
        served(0, "10.0.2.5:8080", "10.0.1.4:40000", "pod/shop/cart-7f-a", sent=900, recv=100, retransmits=1),
        row(1, "10.0.2.6:40000", "10.0.2.5:8080", "pod/shop/cart-7f-b", sent=50),
        served(2, "10.0.2.5:8080", "10.0.2.6:40000", "pod/shop/cart-7f-a", recv=50),
        metadata=(pod("cart-7f-a", "10.0.2.5", OWNED), pod("cart-7f-b", "10.0.2.6", OWNED)),
    )
    cluster.commit()
    return cluster


def drawn(cluster: Cluster, **choice: Any) -> dict[str, Any]:
    return service_map(cluster.aggregate.snapshot(), Choice(**choice), cluster.at)


def lines(found: dict[str, Any]) -> dict[tuple[str, str, int], tuple[int, int]]:
    return {(edge["client"], edge["server"], edge["port"]): (edge["sent"], edge["received"]) for edge in found["edges"]}


def test_workloads() -> None:
    found = drawn(shop())
    assert lines(found) == {
        ("pod/shop/web", "deployment/shop/cart", 80): (100, 900),
        ("pod/shop/web", "external/203.0.113.9", 443): (7, 0),
        ("deployment/shop/cart", "deployment/shop/cart", 8080): (50, 0),
    }
    edge = found["edges"][0]
    assert (edge["service"], edge["protocol"], edge["seen_by"], edge["retransmits"], edge["connections"]) == (
        "service/shop/cart",
        "tcp",
        "both",
        3,
        1,
    )
    assert edge["client_view"] == {"sent": 100, "recv": 890, "retransmits": 2, "opened": 1, "open": 1}
    assert edge["disagreement"] == pytest.approx(10 / 1000)
    assert edge["proof"] == {"client": ["process", "match"], "server": ["namespace", "match"]}
    cart = next(node for node in found["nodes"] if node["id"] == "deployment/shop/cart")
    assert (cart["kind"], cart["namespace"], cart["name"], cart["sent"], cart["received"]) == ("deployment", "shop", "cart", 950, 150)


def test_pods_are_told_apart_and_their_sums_are_the_workloads() -> None:
    found = drawn(shop(), level="pod")
    assert lines(found) == {
        ("pod/shop/web", "pod/shop/cart-7f-a", 80): (100, 900),
        ("pod/shop/web", "external/203.0.113.9", 443): (7, 0),
        ("pod/shop/cart-7f-b", "pod/shop/cart-7f-a", 8080): (50, 0),
    }


def test_nodes() -> None:
    assert lines(drawn(shop(), level="node")) == {
        ("node/one", "node/two", 0): (100, 900),
        ("node/one", "external", 0): (7, 0),
        ("node/two", "node/two", 0): (50, 0),
    }


def test_namespaces_and_what_is_outside() -> None:
    assert lines(drawn(shop(), level="namespace")) == {
        ("namespace/shop", "namespace/shop", 0): (150, 900),
        ("namespace/shop", "external", 0): (7, 0),
    }
    assert lines(drawn(shop(), level="external")) == {("pod/shop/web", "external/203.0.113.9", 443): (7, 0)}


def test_bytes_are_the_same_at_every_level() -> None:
    cluster = shop()
    sums = {level: sum(sum(pair) for pair in lines(drawn(cluster, level=level)).values()) for level in LEVELS if level != "external"}
    assert set(sums.values()) == {1057}


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        ({"namespace": "shop"}, 3),
        ({"namespace": "other"}, 0),
        ({"workload": "external/203.0.113.9"}, 1),
        ({"search": "service/shop"}, 1),
        ({"search": "cart"}, 2),
        ({"since": 2e9}, 0),
    ],
)
def test_a_part_of_the_map(choice: dict[str, Any], count: int) -> None:
    assert len(drawn(shop(), **choice)["edges"]) == count


def test_the_smallest_ends_are_folded_into_one_and_counted() -> None:
    found = drawn(shop(), budget=2)
    assert {node["id"] for node in found["nodes"]} == {"deployment/shop/cart", FOLDED}
    assert found["folded"] == 2
    assert sum(edge["sent"] + edge["received"] for edge in found["edges"]) == 1057


def test_every_answer_says_what_it_rests_on() -> None:
    found = drawn(shop())["completeness"]
    assert {"nodes", "nodes_covered", "unattributed", "ambiguous", "folded", "uncovered", "oldest_age"} <= set(found)


def test_a_level_that_there_is_not() -> None:
    with pytest.raises(QueryError, match="choose one of namespace, workload"):
        drawn(shop(), level="rack")


@pytest.mark.parametrize(
    ("text", "part_of"),
    [
        ("deployment/shop/cart", "namespace/shop"),
        ("node/one", "host"),
        ("process/curl", "host"),
        ("external/10.0.0.0/8", "external"),
        ("moved/10.0.0.1", "unknown"),
        ("unattributed", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_an_end_is_part_of(text: str, part_of: str) -> None:
    assert namespace_id(text) == part_of
