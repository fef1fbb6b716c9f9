"""What becomes of rows: generations, flags, slots, folding, and what memory they take."""

from __future__ import annotations

import pytest

from cluster.core import query
from cluster.core.aggregate import AggregateLimits
from cluster.core.checkpoint import NO_SLOT
from cluster.core.events import BatchReceived
from cluster.core.records import Flag
from cluster.core.snapshot import Snapshot
from tests.core.books import check_edges
from tests.core.stream import AT, Talk, opened, rows, view

CLOSED, FOLDED, UNKNOWN = int(Flag.CLOSED), int(Flag.FOLDED), int(Flag.BYTES_UNKNOWN)


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
