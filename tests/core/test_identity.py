"""Who an end is: owners, addresses that move, Services, and the two views of one connection."""

from __future__ import annotations

import pytest

from cluster.core.aggregate import AggregateLimits
from cluster.core.metadata import WATCHER
from cluster.core.owners import Owners
from tests.core.cluster import OWNED, Cluster, pod, replicaset, row, served, service

CART = service("cart", ["10.96.0.10"], {"port": 80, "protocol": "tcp", "backends": ["10.0.2.5:8080", "10.0.2.6:8080"]})
WEB, BACK = pod("web", "10.0.1.4"), pod("cart-7f-a", "10.0.2.5", OWNED)
CLIENT = row(0, "10.0.1.4:40000", "10.96.0.10:80", "pod/shop/web", sent=100)
SERVER = served(0, "10.0.2.5:8080", "10.0.1.4:40000", "pod/shop/cart-7f-a", sent=900)
MATCHED = ("pod/shop/web", "deployment/shop/cart", "service/shop/cart", 80)


def told() -> Cluster:
    cluster = Cluster()
    cluster.tell(WATCHER, metadata=(CART, replicaset("cart-7f", "cart")))
    cluster.tell("one", metadata=(WEB,))
    cluster.tell("two", metadata=(BACK,))
    return cluster


@pytest.mark.parametrize("first", ["client", "server", "metadata"])
def test_the_two_views_of_a_connection_through_a_service_are_one_edge(first: str) -> None:
    cluster = told() if first != "metadata" else Cluster()
    for node, said in (("two", SERVER), ("one", CLIENT)) if first == "server" else (("one", CLIENT), ("two", SERVER)):
        cluster.tell(node, said)
        cluster.commit()
    if first == "metadata":
        cluster.tell(WATCHER, metadata=(CART, replicaset("cart-7f", "cart")))
        cluster.tell("one", metadata=(WEB,))
        cluster.tell("two", metadata=(BACK,))
    cluster.commit()
    assert cluster.seen() == {MATCHED: (100, 900)}


def test_a_client_without_the_other_view_stays_at_the_service() -> None:
    cluster = told()
    cluster.tell("one", CLIENT)
    cluster.at += 100
    assert cluster.seen() == {("pod/shop/web", "service/shop/cart", "service/shop/cart", 80): (100, 0)}


def test_a_server_that_is_not_behind_the_service_is_not_the_other_view() -> None:
    cluster = told()
    cluster.tell("one", CLIENT)
    cluster.tell("two", served(0, "10.0.2.9:8080", "10.0.1.4:40000", "pod/shop/cart-7f-a", sent=900))
    assert set(cluster.seen()) == {
        ("pod/shop/web", "service/shop/cart", "service/shop/cart", 80),
        ("pod/shop/web", "deployment/shop/cart", "", 8080),
    }


def test_two_possible_servers_are_ambiguous_and_counted() -> None:
    cluster = told()
    cluster.tell("one", CLIENT)
    cluster.tell("two", SERVER, served(1, "10.0.2.6:8080", "10.0.1.4:40000", "pod/shop/cart-7f-a", sent=1))
    assert ("pod/shop/web", "service/shop/cart", "service/shop/cart", 80) in cluster.seen()
    assert cluster.aggregate.snapshot().counters["ambiguous_pairs"] > 0


def test_a_connection_that_closed_before_the_other_view_came_is_still_paired() -> None:
    cluster = told()
    cluster.tell("two", SERVER)
    cluster.tell("two", closed=(0,))
    cluster.tell("two", served(0, "10.0.2.5:8080", "10.0.1.4:50000", "pod/shop/cart-7f-a", cookie=9, sent=1))
    cluster.tell("one", CLIENT)
    assert cluster.seen()[MATCHED] == (100, 900)
    cluster.at += 100
    cluster.commit()
    assert cluster.aggregate.state.nodes["two"].folds.rows == 0, "it lingers until it is settled"
    assert cluster.seen()[MATCHED] == (100, 900)


def test_no_more_rows_linger_than_there_is_room_for() -> None:
    cluster = Cluster(limits=AggregateLimits(rows=16))
    cluster.tell(WATCHER, metadata=(CART,))
    cluster.tell("two", metadata=(BACK,))
    for number in range(5):
        cluster.tell("two", served(0, "10.0.2.5:8080", f"10.0.1.4:{40_000 + number}", "pod/shop/cart-7f-a", cookie=50 + number, sent=1))
        cluster.tell("two", closed=(0,))
    assert cluster.aggregate.state.nodes["two"].folds.rows == 2
    assert sum(server["sent"] for _, server in cluster.edges().values()) == 5


def test_a_pod_that_calls_itself_through_its_service() -> None:
    cluster = told()
    cluster.tell(
        "two",
        row(0, "10.0.2.5:40000", "10.96.0.10:80", "pod/shop/cart-7f-a", sent=5),
        served(1, "10.0.2.5:8080", "10.0.2.5:40000", "pod/shop/cart-7f-a", sent=7),
    )
    assert cluster.seen() == {("deployment/shop/cart", "deployment/shop/cart", "service/shop/cart", 80): (5, 7)}


def test_a_node_port_and_a_load_balancer_are_the_service() -> None:
    cluster = told()
    node = ("apiserver", "192.0.2.1", "uid-node", {"kind": "node", "name": "one", "workload": "node/one"})
    port = {"port": 80, "protocol": "tcp", "node_port": 30080, "backends": ["10.0.2.5:8080"]}
    cluster.tell(WATCHER, metadata=(service("cart", ["10.96.0.10", "198.51.100.1"], port), node))
    for slot, met in enumerate(("192.0.2.1:30080", "198.51.100.1:80")):
        cluster.tell("one", row(slot, f"10.0.1.4:4000{slot}", met, "pod/shop/web", sent=100))
        cluster.tell("two", served(slot, "10.0.2.5:8080", f"10.0.1.4:4000{slot}", "pod/shop/cart-7f-a", sent=900))
    cluster.tell("one", row(5, "10.0.1.4:40005", "192.0.2.1:22", "pod/shop/web", sent=3))
    through = {key: value for key, value in cluster.seen().items() if key[2]}
    assert through == {(*MATCHED[:3], 80): (100, 900), (*MATCHED[:3], 30080): (100, 900)}
    assert cluster.seen()["pod/shop/web", "node/one", "", 22] == (3, 0)


def test_an_owner_that_comes_late_takes_what_its_pods_have() -> None:
    cluster = Cluster()
    cluster.tell("two", served(0, "10.0.2.5:8080", "10.0.1.4:40000", "pod/shop/cart-7f-a", sent=900))
    assert {key[1] for key in cluster.seen()} == {"pod/shop/cart-7f-a"}, "all that is known"
    cluster.tell("two", metadata=(BACK,))
    assert {key[1] for key in cluster.seen()} == {"replicaset/shop/cart-7f"}
    cluster.tell(WATCHER, metadata=(replicaset("cart-7f", "cart"),))
    assert {key[1] for key in cluster.seen()} == {"deployment/shop/cart"}


@pytest.mark.parametrize(
    ("owner", "workload"),
    [
        ({"kind": "DaemonSet", "name": "agent"}, "daemonset/shop/agent"),
        ({"kind": "Rollout", "name": "x"}, "rollout/shop/x"),
        ({"kind": "Node", "name": "one"}, "pod/shop/p"),
        (None, "pod/shop/p"),
    ],
)
def test_other_owners(owner: dict[str, str] | None, workload: str) -> None:
    cluster = Cluster()
    cluster.tell("one", row(0, "10.0.1.4:40000", "203.0.113.9:443", "pod/shop/p", sent=1), metadata=(pod("p", "10.0.1.4", owner),))
    assert {key[0] for key in cluster.seen()} == {workload}


def test_an_address_that_moves_takes_no_old_traffic_along() -> None:
    cluster = Cluster()
    cluster.tell("two", metadata=(pod("a", "10.0.2.5"),))
    cluster.tell("one", row(0, "10.0.1.4:40000", "10.0.2.5:80", "pod/shop/web", sent=10), metadata=(WEB,))
    cluster.commit()
    cluster.at += 600
    cluster.tell("two", metadata=(("kubelet", "10.0.2.5", "uid-a", None), pod("b", "10.0.2.5", started=cluster.at)))
    cluster.commit()
    cluster.at += 60
    cluster.tell("one", row(1, "10.0.1.4:40001", "10.0.2.5:80", "pod/shop/web", sent=7))
    assert cluster.seen() == {("pod/shop/web", "pod/shop/a", "", 80): (10, 0), ("pod/shop/web", "pod/shop/b", "", 80): (7, 0)}


def test_a_connection_of_the_moment_in_which_an_address_moved_goes_by_its_other_view_or_to_nobody() -> None:
    cluster = Cluster()
    cluster.tell("two", metadata=(pod("a", "10.0.2.5"),))
    cluster.at += 600
    cluster.tell("two", metadata=(("kubelet", "10.0.2.5", "uid-a", None), pod("b", "10.0.2.5", started=cluster.at)))
    cluster.at += 2
    cluster.tell(
        "one",
        row(0, "10.0.1.4:40000", "10.0.2.5:80", "pod/shop/web", sent=10),
        row(1, "10.0.1.4:40001", "10.0.2.5:80", "pod/shop/web", sent=5),
        metadata=(WEB,),
    )
    cluster.tell("two", served(0, "10.0.2.5:80", "10.0.1.4:40000", "pod/shop/b", sent=3))
    cluster.commit()
    assert cluster.seen() == {("pod/shop/web", "pod/shop/b", "", 80): (10, 3), ("pod/shop/web", "moved/10.0.2.5", "", 80): (5, 0)}


def test_a_pod_that_is_gone_keeps_its_traffic() -> None:
    cluster = told()
    cluster.tell("one", row(0, "10.0.1.4:40000", "10.0.2.5:8080", "pod/shop/web", sent=10))
    before = cluster.seen()
    cluster.at += 4_000
    cluster.tell("two", metadata=(("kubelet", "10.0.2.5", "uid-cart-7f-a", None),))
    cluster.tell(WATCHER, metadata=(("apiserver", "replicaset/shop/cart-7f", "uid-cart-7f", None),))
    cluster.commit()
    cluster.at += 4_000
    assert cluster.seen() == before
    cluster.start()
    assert cluster.seen() == before


def test_what_was_paired_stays_paired_over_a_restart_of_the_aggregator_and_of_a_collector() -> None:
    cluster = told()
    cluster.tell("one", CLIENT)
    cluster.tell("two", SERVER)
    assert cluster.seen() == {MATCHED: (100, 900)}
    cluster.commit()
    cluster.start()
    cluster.join("two")
    cluster.tell("two", SERVER | {"sent": 950})
    assert cluster.seen() == {MATCHED: (100, 950)}


def test_names_of_networks_outside() -> None:
    cluster = Cluster(
        limits=AggregateLimits(networks={"office": ["203.0.113.0/24"], "printer": ["203.0.113.9/32"], "six": ["2001:db8::/32"]})
    )
    for slot, dest in enumerate(("203.0.113.9", "203.0.113.8", "198.51.100.1", "2001:db8::7")):
        cluster.tell("one", row(slot, "10.0.1.4:40000", f"{dest}:443", "pod/shop/web", sent=1), metadata=(WEB,))
    assert {key[1] for key in cluster.seen()} == {"external/printer", "external/office", "external/198.51.100.1", "external/six"}


def test_only_a_change_of_owner_is_one() -> None:
    owners = Owners()
    (_, address, uid, record), other = BACK, {"kind": "StatefulSet", "name": "cart"}
    assert owners.put(address, uid, record) == "pod/shop/cart-7f-a"
    assert owners.put(address, uid, record | {"phase": "Running"}) == "", "what its containers do moves no row"
    assert owners.put(address, uid, record | {"owner": other}) == "pod/shop/cart-7f-a"
    assert owners.below({"statefulset/shop/cart"}) == {"statefulset/shop/cart", "pod/shop/cart-7f-a"}
    assert owners.below({"replicaset/shop/cart-7f"}) == {"replicaset/shop/cart-7f"}
