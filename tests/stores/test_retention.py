"""Retention folds what is old or too much; every byte stays counted."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.core.checkpoint import NO_SLOT, Checkpoint
from cluster.core.records import Flag, Role
from cluster.stores import folding
from cluster.stores.schema import select_rows
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.commits import IN_MEMORY, Record, commit, departed, record, records_of, totals

U64 = 2**64 - 1
HOUR = 3600.0


class Stored:
    """A store that commits lists of rows at given times."""

    def __init__(self, path: Path, **limits: Any) -> None:
        self.path = path
        self.store = SqliteStore(path, **limits)
        self.fence = self.store.open().fence
        self.number = 0

    def commit(self, *records: Record, at: float) -> None:
        self.number += 1
        self.store.commit(commit(self.number, self.fence, *records, at=at))

    def look(self) -> Checkpoint:
        return read_only(self.path)

    def rows(self) -> dict[int, Record]:
        return records_of(self.look().rows)


@pytest.fixture
def hourly(tmp_path: Path) -> Any:
    stored = Stored(tmp_path / "rayscope.db", retention=HOUR)
    yield stored
    stored.store.close()


def test_old_closed_rows_become_one_row_of_their_service(hourly: Stored) -> None:
    common = {"dest": "10.0.0.9", "dport": 443, "role": int(Role.CLIENT), "edge": 5}
    hourly.commit(departed(1, sport=40001, sent=10, base_sent=1, first_seen=100.0, last_seen=200.0, pid=7, cookie=8, **common), at=300.0)
    hourly.commit(departed(2, sport=40002, sent=20, recv=3, first_seen=150.0, last_seen=250.0, generation=4, **common), at=300.0)
    assert set(hourly.rows()) == {1, 2}
    hourly.commit(at=300.0 + HOUR)
    flags = int(Flag.CLOSED | Flag.FOLDED)
    sums = {"sent": 30, "recv": 3, "base_sent": 1, "first_seen": 100.0, "last_seen": 250.0}
    assert hourly.rows() == {-1: record(-1, slot=NO_SLOT, flags=flags, sport=0, **sums, **common)}
    hourly.commit(departed(3, sport=40003, sent=5, last_seen=300.0, first_seen=300.0, **common), at=301.0 + HOUR)
    assert {uid: row["sent"] for uid, row in hourly.rows().items()} == {-1: 35}
    assert hourly.look().next_uid == 4


@pytest.mark.parametrize(
    ("row", "ports"),
    [
        ({"role": Role.CLIENT, "sport": 1, "dport": 2}, (0, 2)),
        ({"role": Role.SERVER, "sport": 2, "dport": 1}, (2, 0)),
        ({"role": Role.UNKNOWN, "sport": 50000, "dport": 53}, (0, 53)),
        ({"role": Role.UNKNOWN, "sport": 53, "dport": 50000}, (53, 0)),
        ({"role": Role.UNKNOWN, "sport": 0, "dport": 53, "flags": int(Flag.CLOSED | Flag.FOLDED)}, (0, 53)),
    ],
)
def test_the_service_port_stays(hourly: Stored, row: Record, ports: tuple[int, int]) -> None:
    hourly.commit(departed(1) | row, at=1e9 + 2 * HOUR)
    assert [(kept["sport"], kept["dport"]) for uid, kept in hourly.rows().items() if uid < 0] == [ports]


def test_what_a_node_still_holds_is_never_folded(hourly: Stored) -> None:
    held = [record(1), record(2, flags=int(Flag.CLOSED)), record(3, slot=NO_SLOT), record(4, flags=int(Flag.FOLDED))]
    hourly.commit(*held, at=1e9)
    hourly.commit(at=1e9 + 1000 * HOUR)
    assert hourly.rows() == {row["uid"]: row for row in held}


def test_known_and_unknown_bytes_are_not_added(hourly: Stored) -> None:
    hourly.commit(departed(1, sent=5), departed(2, sent=7) | {"flags": int(Flag.CLOSED | Flag.BYTES_UNKNOWN)}, at=1e9 + 2 * HOUR)
    folds = {row["flags"] & Flag.BYTES_UNKNOWN: row["sent"] for row in hourly.rows().values()}
    assert folds == {0: 5, Flag.BYTES_UNKNOWN: 7}


def test_a_sum_that_no_counter_holds_goes_on_in_another_row(hourly: Stored) -> None:
    for number in range(1, 4):
        hourly.commit(departed(number, sent=U64, base_sent=U64, retransmits=2**32 - 1), at=1e9 + 2 * HOUR)
    assert totals(hourly.look()) == {"sent": 6 * U64, "recv": 0, "retransmits": 3 * (2**32 - 1)}
    hourly.commit(departed(4, sent=0), departed(5, sent=0, dport=80), at=1e9 + 2 * HOUR)
    assert sorted(hourly.rows()) == [-4, -3, -2, -1]


small = st.integers(0, 3)
counts = st.integers(0, 100) | st.sampled_from([2**63, U64])
makings = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {
                "sport": small,
                "dport": small,
                "role": st.integers(0, 2),
                "dest": st.sampled_from(["10.0.0.2", "fd00::2"]),
                "slot": st.sampled_from([1, NO_SLOT]),
                "flags": st.integers(0, 15),
                "sent": counts,
                "base_sent": counts,
                "recv": counts,
                "retransmits": st.integers(0, 2**32 - 1),
                "last_seen": st.floats(0, 10),
            }
        ),
        max_size=6,
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=makings, size_limit=st.sampled_from([1, 10**9]), batch=st.sampled_from([1, 2, 100]))
def test_totals_are_conserved(made: list[list[Record]], size_limit: int, batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        patch.setattr("cluster.stores.sqlite.BATCH", batch)
        stored = Stored(Path(directory, "rayscope.db"), retention=3.0, size_limit=size_limit)
        sent = recv = retransmits = 0
        held: dict[int, Record] = {}
        uid = 0
        for at, rows in enumerate([*made, [], []]):
            whole = [record(uid + index, **row) for index, row in enumerate(rows, 1)]
            uid += len(rows)
            stored.commit(*whole, at=float(at))
            sent += sum(row["sent"] + row["base_sent"] for row in rows)
            recv += sum(row["recv"] for row in rows)
            retransmits += sum(row["retransmits"] for row in rows)
            held |= {row["uid"]: row for row in whole if row["slot"] != NO_SLOT or not row["flags"] & Flag.CLOSED}
            assert totals(stored.look()) == {"sent": sent, "recv": recv, "retransmits": retransmits}
            assert held.items() <= stored.rows().items()
        stored.store.close()


def test_the_file_stays_below_its_limit_and_shrinks(tmp_path: Path) -> None:
    path, limit = tmp_path / "rayscope.db", 1_000_000
    stored = Stored(path, retention=HOUR, size_limit=limit)
    for number in range(20):
        stored.commit(*(departed(1000 * number + index, sent=1, sport=index) for index in range(1, 1001)), at=1e9)
    stored.store.close()
    assert path.stat().st_size <= limit
    assert totals(read_only(path))["sent"] == 20_000
    assert 0 < len(read_only(path).rows) < 10_000
    later = Stored(path, retention=HOUR, size_limit=limit)
    for _ in range(5):
        later.commit(at=1e9 + 2 * HOUR)
    later.store.close()
    assert path.stat().st_size < folding.FREE_PAGES * 4096 // 2 + limit // 2
    assert [row["sent"] for row in records_of(read_only(path).rows).values()] == [20_000]


def test_fold_rows_alone_cannot_outgrow_the_limit(tmp_path: Path) -> None:
    path, limit = tmp_path / "rayscope.db", 500_000
    stored = Stored(path, retention=0.001, size_limit=limit)
    for number in range(10):
        scan = (departed(1000 * number + index, sent=1, dest=f"198.18.{number}.{index}") for index in range(1, 1001))
        stored.commit(*scan, at=2e9)
    stored.store.close()
    assert path.stat().st_size <= limit * 1.2
    assert totals(read_only(path))["sent"] == 10_000
    anywhere = [row for row in records_of(read_only(path).rows).values() if row["dest"] == "0.0.0.0"]
    assert len(anywhere) == 1


def test_the_work_of_one_commit_is_bounded(hourly: Stored) -> None:
    many = 3 * folding.BATCH
    hourly.commit(*(departed(uid, sport=uid, sent=1) for uid in range(1, many + 1)), at=1e9)
    hourly.commit(at=1e9 + 2 * HOUR)
    assert sum(uid > 0 for uid in hourly.rows()) == many - folding.BATCH
    assert totals(hourly.look())["sent"] == many


def test_folding_looks_rows_up_by_index(hourly: Stored) -> None:
    database = sqlite3.connect(hourly.path)
    plans = {
        f"{folding.DEPARTED} AND last_seen < 5 {folding.OLDEST}": "INDEX departed (last_seen<?)",
        f"{folding.DEPARTED} {folding.OLDEST}": "INDEX departed",
        f"{folding.OLD_FOLDS} {folding.OLDEST}": "INDEX old_folds",
        f"{folding.SAME_FOLD} ORDER BY uid LIMIT 1": "INDEX folds (node=? AND source=?",
    }
    for where, index in plans.items():
        plan = database.execute(f"EXPLAIN QUERY PLAN {select_rows(where)}", (1,) * where.count("?")).fetchall()
        assert len(plan) == 1, "it sorts"
        assert index in plan[0][3]
    database.close()
