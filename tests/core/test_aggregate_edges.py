"""Which edge a row is on, by roles, metadata and addresses, and what is exported of it."""

from __future__ import annotations

import pytest

from cluster.core.aggregate import AggregateLimits
from cluster.core.records import Flag
from tests.core import stream
from tests.core.books import check_edges
from tests.core.stream import Talk, opened, view

CLOSED, FOLDED, UNKNOWN = int(Flag.CLOSED), int(Flag.FOLDED), int(Flag.BYTES_UNKNOWN)


def test_the_role_says_who_is_the_client() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, remote=2, sent=5, recv=6), opened(1, sport=22, dport=50_000, local=3, remote=2, role=2, sent=7)])
    assert view(talk, "process/curl", "container/web")["sent"] == 5
    assert view(talk, "container/web", "process/ssh", side=1)["sent"] == 7
    assert {(edge.port, edge.protocol) for edge in talk.aggregate.snapshot().edges.values()} == {(80, 0), (22, 0)}


@pytest.mark.parametrize(("direction", "sport", "dport", "client"), [(1, 9, 8, False), (2, 8, 9, True), (0, 8, 9, False), (3, 9, 8, True)])
def test_without_a_role_direction_and_then_the_lower_port_decide(direction: int, sport: int, dport: int, client: bool) -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, role=0, direction=direction, sport=sport, dport=dport, remote=2)])
    assert bool(view(talk, "process/curl", "container/web")) == client


def test_late_metadata_moves_the_map_and_only_new_bytes_go_to_the_new_series() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10)])
    assert view(talk, "process/curl", "external/10.0.0.2")["exported_sent"] == 0, "not settled yet"
    talk.at += 60
    talk.commit()
    assert view(talk, "process/curl", "external/10.0.0.2")["exported_sent"] == 10
    talk.ok(1, metadata=(("docker", "10.0.0.2", "u", {"kind": "container", "workload": "container/db"}),))
    talk.commit()
    talk.ok(2, changed=[{"id": 0, "sent": 15}])
    before, after = view(talk, "process/curl", "external/10.0.0.2"), view(talk, "process/curl", "container/db")
    assert (before["sent"], before["open"], before["opened"]) == (0, 0, 0)
    assert (before["exported_sent"], before["exported_opened"]) == (10, 1)
    assert (after["sent"], after["open"], after["opened"]) == (15, 1, 1)
    assert (after["exported_sent"], after["exported_opened"]) == (5, 0)
    talk.commit()
    talk.start()
    assert view(talk, "process/curl", "container/db") == after


def test_a_row_whose_ends_are_known_is_exported_at_once() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10)], metadata=(("docker", "10.0.0.2", "u", {"workload": "container/db"}),))
    assert view(talk, "process/curl", "container/db")["exported_sent"] == 10


def test_a_local_end_that_stays_unknown_is_unattributed() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, local=0, sent=10, remote=2)])
    assert len(talk.aggregate.state.edges) == 0
    talk.at += 61
    talk.commit()
    assert view(talk, "unattributed", "container/web")["exported_sent"] == 10
    talk.ok(1, attributed=[{"id": 0, "local": 1}])
    assert view(talk, "process/curl", "container/web")["sent"] == 10
    assert view(talk, "unattributed", "container/web")["exported_sent"] == 10


def test_an_unattributed_row_whose_role_turns_out_moves_to_the_other_view() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, local=0, sent=10, remote=2)])
    talk.at += 61
    talk.commit()
    talk.ok(1, attributed=[{"id": 0, "role": 2}])
    assert view(talk, "container/web", "unattributed", side=1)["sent"] == 10
    talk.commit()
    talk.start()
    assert view(talk, "container/web", "unattributed", side=1)["open"] == 1
    check_edges(talk.store.read_only())


def test_outside_addresses_fold_into_networks() -> None:
    talk = Talk(AggregateLimits(externals=1))
    talk.greet()
    talk.ok(0, opened=[opened(slot, dest=dest) for slot, dest in enumerate((2, 3, 4, 6))])
    servers = {edge.server for edge in talk.aggregate.snapshot().edges.values()}
    assert servers == {"external/198.51.100.7", "external/198.51.100.0/24", "external/other"}
    talk.commit()
    talk.start()
    talk.greet(stream=9)
    talk.ok(0, opened=[opened(9, dest=4)])
    assert {edge.server for edge in talk.aggregate.snapshot().edges.values()} == servers


def test_a_machines_own_addresses_are_the_node() -> None:
    talk = Talk()
    talk.greet()
    machine = ("node", "10.0.0.2", "m", {"kind": "node", "workload": "node/big"})
    container = ("docker", "10.0.0.2", "c", {"kind": "container", "workload": "container/a"})
    talk.ok(0, opened=[opened(0, dest=1)], metadata=(machine, container))
    assert {edge.server for edge in talk.aggregate.snapshot().edges.values()} == {"node/big"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.9", "::ffff:127.0.0.1", "::1"])
def test_loopback_that_the_collector_could_not_resolve_is_unattributed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ADDRESSES", ("10.0.0.1", address))
    talk = Talk()
    talk.greet()
    machine = ("node", "10.0.0.1", "m", {"kind": "node", "workload": "node/n"})
    talk.ok(0, opened=[opened(0, source=1, sent=10), opened(1, source=1, remote=2)], metadata=(machine,))
    assert {edge.server for edge in talk.aggregate.snapshot().edges.values()} == {"unattributed", "container/web"}
    assert view(talk, "process/curl", "unattributed")["exported_sent"] == 0, "it may turn out yet"
    talk.ok(1, attributed=[{"id": 0, "local": 1, "remote": 3, "role": 1}])
    assert view(talk, "process/curl", "process/ssh")["exported_sent"] == 10


def test_bridge_addresses_mean_what_the_node_itself_says() -> None:
    talk = Talk()
    for node, name in (("a", "container/x"), ("b", "container/y")):
        talk.greet(node=node)
        talk.ok(0, node=node, opened=[opened(0)], metadata=(("docker", "10.0.0.2", node, {"workload": name}),))
        talk.commit()
    servers = {edge.server for edge in talk.aggregate.snapshot().edges.values() if any(map(any, edge.views))}
    assert servers == {"container/x", "container/y"}


# Metadata


def test_metadata_is_kept_by_source_and_replaced_by_a_source_that_speaks_anew() -> None:
    talk = Talk()
    talk.greet()
    docker = {"workload": "container/db"}
    talk.ok(0, metadata=(("docker", "10.0.0.2", "old", docker), ("proc", "10.0.0.2", "p", {"workload": "process/p"})))
    talk.commit()
    talk.start()
    talk.greet(stream=2)
    talk.ok(0)
    assert set(talk.aggregate.snapshot().metadata["10.0.0.2"]) == {"docker", "proc"}, "stale, but all that is known"
    talk.ok(1, metadata=(("docker", "10.0.0.3", "new", docker),))
    assert "docker" not in talk.aggregate.snapshot().metadata["10.0.0.2"]
    talk.at += 61
    talk.commit()
    assert set(talk.aggregate.snapshot().metadata) == {"10.0.0.3"}
    assert talk.store.read_only().metadata == talk.aggregate.snapshot().metadata
    talk.ok(2, metadata=(("docker", "10.0.0.3", "new", None),))
    talk.commit()
    assert talk.store.read_only().metadata == {}
