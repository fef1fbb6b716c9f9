"""What becomes of rows: generations, resync, slots, folding, edges, exported counters, restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.core import query
from cluster.core.aggregate import AggregateLimits
from cluster.core.checkpoint import NO_SLOT, VIEW, Columns
from cluster.core.events import BatchReceived
from cluster.core.match import match
from cluster.core.records import Flag
from cluster.core.snapshot import Snapshot
from cluster.core.wire import Final
from tests.core import stream
from tests.core.books import check_edges, check_slots
from tests.core.stream import AT, Talk, opened

CLOSED, FOLDED, UNKNOWN = int(Flag.CLOSED), int(Flag.FOLDED), int(Flag.BYTES_UNKNOWN)


def rows(talk: Talk) -> dict[int, dict[str, Any]]:
    """Live transactions by source port."""
    return {one["sport"]: one for one in query.transactions(talk.aggregate.snapshot())}


def view(talk: Talk, client: str, server: str, side: int = 0) -> dict[str, int]:
    edges = [edge for edge in talk.aggregate.snapshot().edges.values() if (edge.client, edge.server) == (client, server)]
    return dict(zip(VIEW, edges[0].views[side], strict=True)) if edges else {}


def test_a_new_generation_adds_the_old_one_to_the_base() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10, recv=20, retransmits=1)])
    talk.ok(1, changed=[{"id": 0, "sent": 3, "recv": 25, "retransmits": 0, "generation": 1}])
    talk.ok(2, changed=[{"id": 0, "sent": 4, "recv": 26, "retransmits": 2, "generation": 1}])
    row = rows(talk)[40_000]
    assert (row["monotonic_sent_bytes"], row["monotonic_recv_bytes"], row["monotonic_retransmits"]) == (4, 26, 2)
    assert (row["total_sent_bytes"], row["total_recv_bytes"], row["total_retransmits"]) == (14, 46, 3)
    talk.commit()
    talk.start()
    assert rows(talk)[40_000]["total_sent_bytes"] == 14


def test_rows_may_be_opened_changed_attributed_and_closed_in_one_sequence() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(
        0,
        opened=[opened(0, local=0, pid=0), opened(1)],
        changed=[{"id": 0, "sent": 9}],
        attributed=[{"id": 0, "local": 2, "pid": 5}],
        closed=[{"id": 0, "flags": CLOSED}],
    )
    row = rows(talk)[40_000]
    assert (row["total_sent_bytes"], row["local"], row["pid"], row["state"]) == (9, "container/web", 5, "closed")


def test_flags_become_others_while_a_row_is_open() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, flags=UNKNOWN), opened(1)])
    assert rows(talk)[40_000]["total_sent_bytes"] is None
    talk.ok(1, changed=[{"id": 0, "sent": 9}], attributed=[{"id": 0}, {"id": 1, "flags": int(Flag.RECV_INEXACT)}])
    assert rows(talk)[40_000]["total_sent_bytes"] == 9
    assert not rows(talk)[40_001]["recv_exact"]
    talk.ok(2, closed=[{"id": 0, "flags": CLOSED}])
    talk.ok(3, attributed=[{"id": 0, "flags": UNKNOWN}, {"id": 1, "flags": CLOSED | FOLDED}])
    assert [rows(talk)[port]["state"] for port in (40_000, 40_001)] == ["closed", "open"], "an owner opens and closes nothing"


def test_a_fold_row_that_has_no_single_owner_any_more_loses_the_one_it_had() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10, remote=2, flags=FOLDED)])
    talk.ok(1, changed=[{"id": 0, "sent": 15}], attributed=[{"id": 0, "flags": FOLDED, "role": 1, "remote": 2}])
    assert view(talk, "process/curl", "container/web")["sent"] == 0
    assert view(talk, "unattributed", "container/web")["sent"] == 15


def test_a_slot_is_used_again_and_its_row_stays_in_the_store() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10)])
    talk.ok(1, closed=[{"id": 0, "flags": CLOSED}])
    talk.ok(2, opened=[opened(0, sport=50_000, cookie=7, sent=5)])
    talk.commit()
    assert set(rows(talk)) == {50_000}
    stored = talk.store.read_only()
    assert sorted(stored.rows.columns["slot"].tolist()) == [0, NO_SLOT]
    assert sorted(stored.rows.columns["sent"].tolist()) == [5, 10]
    check_edges(stored)


def test_what_a_closed_and_folded_row_still_gets_is_ignored() -> None:
    talk = Talk(AggregateLimits(rows=1))
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10), opened(1, sent=20)])
    talk.ok(1, closed=[{"id": 0, "flags": CLOSED}])
    talk.commit()
    talk.ok(2, changed=[{"id": 0, "sent": 10}], attributed=[{"id": 0, "local": 2}], closed=[{"id": 0, "flags": CLOSED}])
    assert talk.aggregate.state.counters["late"] == 1
    talk.ok(3, opened=[opened(0, cookie=9)])


def test_folding_keeps_bytes_and_open_rows() -> None:
    talk = Talk(AggregateLimits(rows=3))
    talk.greet()
    talk.ok(0, opened=[opened(slot, sent=10 + slot, cookie=0, retransmits=slot) for slot in range(6)])
    talk.ok(1, closed=[{"id": slot, "flags": CLOSED} for slot in range(4)])
    talk.commit()
    talk.commit()  # the fold row is one more
    found = query.transactions(talk.aggregate.snapshot())
    assert sum(one["total_sent_bytes"] for one in found) == sum(range(10, 16))
    (fold,) = (one for one in found if one["folded"])
    assert (fold["sport"], fold["dport"], fold["total_sent_bytes"], fold["state"]) == (0, 80, 10 + 11 + 12 + 13, "open")
    assert talk.aggregate.state.counters["folded"] == 4
    stored = talk.store.read_only()
    assert sum(stored.rows.columns["sent"].tolist()) == sum(range(10, 16))
    check_edges(stored)
    talk.start()
    assert sum(one["total_sent_bytes"] for one in query.transactions(talk.aggregate.snapshot())) == sum(range(10, 16))
    talk.greet(stream=5)
    talk.ok(0, opened=[opened(4, sent=14, cookie=0), opened(5, sent=15, cookie=0), opened(6, sent=1, cookie=0, flags=CLOSED)])
    talk.ok(1, opened=[opened(slot, cookie=0, sent=1) for slot in range(7, 9)])
    talk.commit()
    (fold,) = (one for one in query.transactions(talk.aggregate.snapshot()) if one["folded"])
    assert fold["total_sent_bytes"] == 10 + 11 + 12 + 13 + 1


def test_the_oldest_closed_rows_are_folded_first() -> None:
    talk = Talk(AggregateLimits(rows=3))
    talk.greet()
    talk.ok(0, opened=[opened(slot, dport=80 + slot) for slot in range(4)])
    for sequence, slot in enumerate((2, 0, 1), 1):
        talk.at += 100
        talk.ok(sequence, closed=[{"id": slot, "flags": CLOSED}])
    talk.commit()
    assert {one["dport"] for one in query.transactions(talk.aggregate.snapshot()) if one["folded"]} == {82}


def test_fold_rows_themselves_stay_few() -> None:
    talk = Talk(AggregateLimits(rows=4))
    talk.greet()
    talk.ok(0)
    for sequence in range(1, 40):
        slots = range(8)
        talk.ok(
            sequence,
            opened=[
                opened(slot, dest=slot % 5 + 1, sport=443, dport=50_000 + 40 * sequence + slot, role=2, cookie=0, sent=1) for slot in slots
            ],
            closed=[{"id": slot, "flags": CLOSED} for slot in slots],
        )
        talk.commit()
    assert talk.aggregate.state.rows < 20
    assert sum(talk.store.read_only().rows.columns["sent"].tolist()) == 8 * 39


# Resync


def resync(talk: Talk, *again: dict[str, int], instance: str = "t", stream: int = 2) -> None:
    talk.greet(stream=stream)
    talk.ok(0, opened=list(again), final=Final(talk.at, {}, (instance, 0)))


def test_a_row_with_a_cookie_goes_on_under_its_new_slot() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10, remote=2), opened(1, sent=1)])
    uid = int(talk.aggregate.state.nodes["n"].block.columns["uid"][0])
    resync(talk, opened(7, sport=40_000, cookie=100, sent=12, pid=99, local=0))
    row = rows(talk)[40_000]
    assert (row["total_sent_bytes"], row["pid"], row["local"], row["remote"]) == (12, 99, "process/curl", "container/web")
    block = talk.aggregate.state.nodes["n"].block
    assert block.used().tolist() == [7]
    assert block.columns["uid"][7] == uid
    talk.commit()
    stored = talk.store.read_only()
    check_slots(stored)
    assert sorted(zip(stored.rows.columns["flags"] & CLOSED, stored.rows.columns["sent"], strict=True)) == [(0, 12), (1, 1)]


@pytest.mark.parametrize(
    ("before", "after", "instance", "total"),
    [
        (opened(0, sent=10), opened(0, sent=4), "t", 14),  # a decrease
        (opened(0, sent=10), opened(0, sent=40), "other", 40),  # a cookie outlives the tracer
        (opened(0, sent=10, recv=5), opened(0, sent=10, recv=4), "t", 10),  # the byte of a FIN
        (opened(0, sent=10, cookie=0), opened(0, sent=40, cookie=0), "t", 40),
        (opened(0, sent=10, cookie=0), opened(0, sent=40, cookie=0), "other", 50),
        (opened(0, sent=10, cookie=0), opened(0, sent=40, cookie=0, pid=8), "t", 50),  # another process: another row
        (opened(0, sent=10, pid=0, flags=FOLDED), opened(0, sent=40, pid=0, flags=FOLDED), "t", 40),  # the same collector
        (opened(0, sent=10, pid=0, flags=FOLDED), opened(0, sent=40, pid=0, flags=FOLDED, cookie=9), "t", 50),  # its successor
        (opened(0, sent=10, flags=CLOSED), opened(0, sent=10, flags=CLOSED), "t", 10),  # a closed one that is told again
        (opened(0, sent=10, cookie=0, flags=CLOSED), opened(0, sent=40, cookie=0), "t", 50),  # a tuple that lives again
    ],
)
def test_what_a_new_collector_finds_again(before: dict[str, int], after: dict[str, int], instance: str, total: int) -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[before])
    talk.commit()
    resync(talk, after, instance=instance)
    talk.commit()
    columns = talk.store.read_only().rows.columns
    assert int((columns["sent"] + columns["base_sent"]).sum()) == total
    check_edges(talk.store.read_only())


def test_of_two_with_one_identity_the_closed_one_is_the_earlier() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=100, cookie=0)])
    again = opened(0, sent=30, cookie=0), opened(1, sport=40_000, sent=150, cookie=0, flags=CLOSED)
    resync(talk, *again)
    talk.commit()
    columns = talk.store.read_only().rows.columns
    assert int((columns["sent"] + columns["base_sent"]).sum()) == 180


def test_matching_is_exact_even_where_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.core.match._hash", lambda columns: np.zeros(len(columns["a"]), np.uint64))
    old: Columns = {"a": np.array([1, 1, 2, 3], np.uint32), "b": np.array([1, 1, 1, 1], np.uint64)}
    new: Columns = {"a": np.array([3, 1, 1, 1, 4], np.uint32), "b": np.array([1, 1, 1, 1, 1], np.uint64)}
    assert match(old, new).tolist() == [3, 0, 1, -1, -1]


def test_matching_finds_what_a_dict_finds() -> None:
    draw = np.random.default_rng(5)
    tables: list[Columns] = [{"a": draw.integers(0, 50, n), "b": draw.integers(0, 50, n).astype(np.uint16)} for n in (1_500, 2_000)]
    old, new = tables
    waiting: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(old["a"].tolist(), old["b"].tolist(), strict=True)):
        waiting.setdefault(key, []).append(index)
    expected = [waiting[key].pop(0) if waiting.get(key) else -1 for key in zip(new["a"].tolist(), new["b"].tolist(), strict=True)]
    assert match(old, new).tolist() == expected


# Edges


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


# Memory


def test_addresses_and_texts_that_no_row_has_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.core.intern.LOOK", 4)
    talk = Talk()
    talk.aggregate.state.addresses.worth_a_look = talk.aggregate.state.texts.worth_a_look = 4
    talk.greet()
    talk.ok(0, opened=[opened(0, dest=4, sent=1), opened(1, dest=6, local=3)])
    talk.ok(1, closed=[{"id": 0, "flags": CLOSED}])
    before = Snapshot.live(talk.aggregate.state)
    talk.ok(2, opened=[opened(0, dest=3, sent=3)])
    talk.commit()
    talk.commit()
    assert len(talk.aggregate.state.addresses) == 4
    found = {one["dest"]: one["local"] for one in query.transactions(talk.aggregate.snapshot())}
    assert found == {"198.51.100.8": "process/curl", "2001:db8::1": "process/ssh"}
    assert {one["dest"] for one in query.transactions(before)} == {"203.0.113.9", "2001:db8::1"}, "a copy stays what it was"


def test_a_hostile_slot_allocates_little() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0)
    assert talk.say(1, opened=[opened(2**32 - 1)]).verdict == "refused"
    assert talk.aggregate.state.nodes["n"].block.capacity == 0


def test_a_snapshot_does_not_change_and_shares_what_has_not() -> None:
    talk = Talk()
    talk.greet()
    talk.ok(0, opened=[opened(0, sent=10), opened(1)])
    first = talk.aggregate.snapshot()
    talk.ok(1, changed=[{"id": 0, "sent": 11}])
    second = talk.aggregate.snapshot()
    assert [one["total_sent_bytes"] for one in query.transactions(first)] == [10, 0]
    assert [one["total_sent_bytes"] for one in query.transactions(second)] == [11, 0]
    assert first.tables[0].columns["cookie"] is second.tables[0].columns["cookie"]
    talk.answer(BatchReceived(talk.part(2), AT))
    assert talk.aggregate.snapshot().tables[0] is second.tables[0]
