"""The tables are a promise: to the next release, and to a person with the sqlite3 shell."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.checkpoint import ROW
from cluster.core.records import Flag, transaction_key
from cluster.stores.rows import encode_rows
from cluster.stores.schema import META, TABLES, UPSERT_ROW, VERSION, column_name
from cluster.stores.sqlite import SqliteStore
from tests.stores.commits import commit, departed, record

FINGERPRINTS = {1: "0e00a23ef829173a"}
U64 = 2**64 - 1
COUNTS = st.sampled_from([0, 1, 2**63 - 1, 2**63, U64]) | st.integers(0, U64)


def test_other_tables_have_another_version() -> None:
    fingerprint = hashlib.sha256(repr((TABLES, sorted(META))).encode()).hexdigest()[:16]
    assert FINGERPRINTS.get(VERSION) == fingerprint, "the tables changed: raise VERSION once a release has written the old ones"


def test_every_column_of_a_row_is_stored() -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(TABLES)
    columns = [name for _, name, *_ in database.execute("PRAGMA table_info(transaction_rows)")]
    database.close()
    assert sorted(columns) == sorted(map(column_name, ROW))


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def test_a_person_reads_transactions_as_the_document_names_them(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    row = record(1, source="172.17.0.2", dest="172.17.0.5", sport=41515, dport=53, protocol=1, sent=3079, recv=5849)
    row |= {"base_sent": 1000, "retransmits": 2}
    unknown = departed(2, source="fd00::1", dest="fd00::2", sent=5) | {"flags": int(Flag.CLOSED | Flag.BYTES_UNKNOWN)}
    store.commit(commit(1, fence, row, unknown))
    store.close()
    names = "key, state, monotonic_sent_bytes, monotonic_recv_bytes, monotonic_retransmits, total_sent_bytes, total_recv_bytes"
    assert query(path, f"SELECT {names} FROM transactions ORDER BY uid") == [
        (transaction_key("172.17.0.2", "172.17.0.5", 41515, 53), "open", 3079, 5849, 2, 4079, 5849),
        (transaction_key("fd00::1", "fd00::2", 40000, 443), "closed", 5, 0, 0, None, None),
    ]
    words = "key, protocol, state, role, local, total_sent_bytes, folded, first_seen"
    assert query(path, f"SELECT {words} FROM flows WHERE node = 'one' ORDER BY protocol DESC") == [
        ("172.17.0.2-172.17.0.5-41515-53", "udp", "open", "client", "container/web", 4079, 0, "2001-09-09 01:46:40"),
        ("fd00::1-fd00::2-40000-443", "tcp", "closed", "client", "container/web", None, 0, "2001-09-09 01:46:40"),
    ]


@pytest.fixture(scope="module")
def tables() -> Any:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(TABLES)
    yield database
    database.close()


@given(base=COUNTS, raw=COUNTS)
def test_totals_are_exact_however_large(tables: sqlite3.Connection, base: int, raw: int) -> None:
    tables.executemany(UPSERT_ROW, encode_rows(commit(1, 1, record(1, sent=raw, base_sent=base)).rows))
    columns = "total_sent_bytes, monotonic_sent_bytes, base_sent_bytes"
    total, shown, kept = tables.execute(f"SELECT {columns} FROM transactions").fetchone()
    assert (int(total), int(shown), int(kept)) == (base + raw, raw, base)
    assert isinstance(total, int) == (base + raw < 2**63)


def test_the_largest_sorts_first(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, *(record(uid, sent=sent) for uid, sent in enumerate([5, U64, 2**63 - 1, 2**63, 0], 1))))
    store.close()
    assert [uid for (uid,) in query(path, "SELECT uid FROM transactions ORDER BY monotonic_sent_bytes DESC")] == [2, 4, 3, 1, 5]


def test_the_store_says_who_made_it(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    meta = dict(query(path, "SELECT name, value FROM meta"))
    assert meta["created_by"].startswith("rayscope ")
    assert (meta["schema"], meta["fence"]) == (VERSION, 1)
