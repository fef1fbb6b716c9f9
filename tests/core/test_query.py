"""Questions about a snapshot, live or stored."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cluster.core import query
from cluster.core.ends import UNATTRIBUTED
from cluster.core.errors import QueryError
from cluster.core.query import Filter
from cluster.core.records import Flag
from cluster.core.snapshot import Snapshot
from cluster.core.wire import Final
from tests.core.stream import AT, Talk, opened

CLOSED = int(Flag.CLOSED)


@pytest.fixture(name="talk", scope="module")
def _talk() -> Talk:
    talk = Talk()
    talk.greet("a")
    talk.ok(
        0,
        node="a",
        opened=[
            opened(0, remote=2, sent=100, recv=5, retransmits=1, last_update=77, net_ns=3),
            opened(1, dest=2, sport=50_000, sent=7, recv=9),
            opened(2, protocol=1, dest=6, dport=53, flags=int(Flag.BYTES_UNKNOWN)),
        ],
        metadata=(("docker", "10.0.0.2", "u", {"kind": "container", "workload": "container/web"}),),
    )
    talk.ok(
        1,
        node="a",
        changed=[{"id": 0, "sent": 1, "recv": 1, "generation": 1}],
        closed=[{"id": 1, "flags": CLOSED}],
        final=Final(AT, {"missed": 2, "refused": {"source": 3}, "unattributed": 1, "uncovered": [[1.0, 2.0, "why"]]}, ("t", 0)),
    )
    talk.at += 30
    talk.commit()
    talk.greet("b", stream=2)
    talk.ok(0, node="b", opened=[opened(0, local=3, dest=4, sport=22, dport=60_000, role=2, sent=1_000, flags=int(Flag.RECV_INEXACT))])
    talk.commit()
    return talk


@pytest.fixture(name="snapshot", params=["live", "stored"])
def _snapshot(talk: Talk, request: pytest.FixtureRequest) -> Snapshot:
    return talk.aggregate.snapshot() if request.param == "live" else Snapshot.of(talk.store.read_only())


def ports(found: list[dict[str, Any]]) -> list[int]:
    return [one["sport"] for one in found]


def test_a_transaction_has_everything(snapshot: Snapshot) -> None:
    (one,) = query.transactions(snapshot, Filter(port=40_000))
    assert one == {
        "key": "10.0.0.1-10.0.0.2-40000-80",
        "node": "a",
        "protocol": "tcp",
        "source": "10.0.0.1",
        "sport": 40_000,
        "dest": "10.0.0.2",
        "dport": 80,
        "pid": 7,
        "net_ns": 3,
        "direction": "unspecified",
        "state": "open",
        "monotonic_sent_bytes": 1,
        "monotonic_recv_bytes": 1,
        "monotonic_retransmits": 0,
        "total_sent_bytes": 101,
        "total_recv_bytes": 6,
        "total_retransmits": 1,
        "last_update_epoch": 0,
        "first_seen": int(AT),
        "last_seen": int(AT),
        "local": "process/curl",
        "remote": "container/web",
        "role": "client",
        "generation": 1,
        "folded": False,
        "recv_exact": True,
    }


def test_unknown_bytes_are_none(snapshot: Snapshot) -> None:
    (one,) = query.transactions(snapshot, Filter(protocol="UDP"))
    assert {one[name] for name in one if name.startswith(("total_", "monotonic_"))} == {None}
    assert one["recv_exact"] is False
    (other,) = query.transactions(snapshot, Filter(node="b"))
    assert other["recv_exact"] is False


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (Filter(), {22, 40_000, 40_002, 50_000}),
        (Filter(node="a"), {40_000, 40_002, 50_000}),
        (Filter(node="nobody"), set()),
        (Filter(workload="web"), {40_000}),
        (Filter(workload="ssh"), {22}),
        (Filter(workload="external/198.51"), {50_000}),
        (Filter(address="10.0.0.2"), {40_000}),
        (Filter(address="198.51.100.0/24"), {50_000}),
        (Filter(address="0.0.0.0/0"), {22, 40_000, 40_002, 50_000}),
        (Filter(address="2001:db8::/32"), {40_002}),
        (Filter(address="203.0.113.9"), {22}),
        (Filter(port=53), {40_002}),
        (Filter(port=22), {22}),
        (Filter(protocol="tcp"), {22, 40_000, 50_000}),
        (Filter(state="closed"), {50_000}),
        (Filter(state="open", node="a"), {40_000, 40_002}),
        (Filter(since=AT + 1), {22}),
    ],
)
def test_filters(snapshot: Snapshot, where: Filter, found: set[int]) -> None:
    assert set(ports(query.transactions(snapshot, where))) == found


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("bytes", [22, 40_000, 50_000, 40_002]),
        ("sent", [22, 40_000, 50_000, 40_002]),
        ("recv", [50_000, 40_000, 40_002, 22]),
        ("retransmits", [40_000, 50_000, 40_002, 22]),
        ("last_seen", [22, 40_000, 50_000, 40_002]),
        ("node", [40_000, 50_000, 40_002, 22]),
        ("key", [40_000, 50_000, 22, 40_002]),
    ],
)
def test_sorting_with_and_without_a_limit(snapshot: Snapshot, sort: str, order: list[int]) -> None:
    for limit in (None, 0, 1, 2, 3, 4, 5):
        assert ports(query.transactions(snapshot, None, sort, limit)) == order[:limit]


@pytest.mark.parametrize(
    ("where", "sort", "limit", "message"),
    [
        (Filter(), "size", None, "sort 'size': choose one of bytes"),
        (Filter(), "bytes", -1, "limit -1"),
        (Filter(state="ajar"), "bytes", None, "state 'ajar': choose open or closed"),
        (Filter(protocol="sctp"), "bytes", None, "protocol 'sctp': choose tcp or udp"),
        (Filter(port=70_000), "bytes", None, "port 70000: expected 0 to 65535"),
        (Filter(address="10.0.0"), "bytes", None, "address '10.0.0': .*10.0.0.0/8"),
    ],
)
def test_questions_without_sense_say_what_to_ask(snapshot: Snapshot, where: Filter, sort: str, limit: int | None, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        query.transactions(snapshot, where, sort, limit)


def test_metadata_by_address(snapshot: Snapshot) -> None:
    record = {"kind": "container", "workload": "container/web", "node": "a"}
    assert query.metadata(snapshot) == {"10.0.0.2": {"docker": {"u": record}}}
    assert query.metadata(snapshot, "10.0.0.2") == query.metadata(snapshot)
    assert query.metadata(snapshot, "10.9.9.9") == {}


def test_edges_keep_the_two_views_apart(snapshot: Snapshot) -> None:
    found = {(edge["client"], edge["server"]): edge for edge in query.edges(snapshot)}
    edge = found["process/curl", "container/web"]
    assert (edge["port"], edge["protocol"], edge["seen_by"]) == (80, "tcp", "client")
    assert (edge["client_view"]["sent"], edge["client_view"]["open"], edge["server_view"]["sent"]) == (101, 1, 0)
    assert found["external/203.0.113.9", "process/ssh"]["server_view"]["sent"] == 1_000
    assert [edge["server"] for edge in query.edges(snapshot, "web")] == ["container/web"]


def test_status_says_what_the_answers_rest_on(snapshot: Snapshot) -> None:
    status = query.status(snapshot, AT + 31)
    assert [(node["node"], node["state"], node["age"]) for node in status["nodes"]] == [("a", "silent", 31.0), ("b", "ok", 1.0)]
    expected = {"nodes_covered": 1, "rows": 4, "open": 3, "edges": 4, "missed": 2, "refused": 3, "folded": 0, "unattributed": 0}
    assert {name: status[name] for name in expected} == expected
    assert status["uncovered"] == [["a", 1.0, 2.0, "why"]]
    assert status["oldest_age"] == 31.0


def test_a_silent_node_that_is_not_present_is_gone_and_its_age_no_lag(snapshot: Snapshot) -> None:
    def states(present: set[str] | None) -> list[str]:
        return [node["state"] for node in query.status(snapshot, AT + 31, present)["nodes"]]

    assert states(None) == states({"a", "b"}) == states({"a"}) == ["silent", "ok"]
    assert states({"b"}) == states(set()) == ["gone", "ok"]
    assert query.status(snapshot, AT + 31, {"b"})["oldest_age"] == 1.0


@pytest.mark.parametrize("late", [0, 61], ids=["not settled", "settled"])
def test_status_counts_as_unattributed_what_flows_shows_as_such(late: int) -> None:
    talk = Talk()
    talk.greet()
    nobody = [opened(0, local=0), opened(1, local=0, role=2), opened(2, local=0, flags=int(Flag.FOLDED))]
    talk.ok(0, opened=[*nobody, opened(3)])
    talk.ok(1, closed=[{"id": 0, "flags": CLOSED}], final=Final(AT, {"unattributed": 1}, ("t", 0)))
    talk.at += late
    talk.commit()
    for snapshot in (talk.aggregate.snapshot(), Snapshot.of(talk.store.read_only())):
        shown = [one for one in query.transactions(snapshot) if one["local"] in ("", UNATTRIBUTED)]
        assert query.status(snapshot, talk.at)["unattributed"] == len(shown) == 3


def test_status_of_nothing() -> None:
    talk = Talk()
    assert query.status(talk.aggregate.snapshot(), AT)["oldest_age"] is None
    talk.greet()
    (node,) = query.status(talk.aggregate.snapshot(), AT)["nodes"]
    assert (node["state"], node["age"]) == ("waiting", None)
    assert query.transactions(talk.aggregate.snapshot(), None, "key", 5) == []


def test_equal_values_are_always_cut_the_same_way() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(slot, sent=slot % 2) for slot in range(20)])
    snapshot = talk.aggregate.snapshot()
    whole = ports(query.transactions(snapshot, None, "bytes"))
    for limit, sort in itertools.product(range(21), ("bytes", "last_seen")):
        assert ports(query.transactions(snapshot, None, sort, limit)) == ports(query.transactions(snapshot, None, sort))[:limit]
    assert whole == [40_000 + slot for slot in (*range(1, 20, 2), *range(0, 20, 2))]
