"""Readers beside a writer: each sees whole commits, none holds it up."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.core.errors import StoreBusy, StoreUnusable
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.commits import commit, departed, record, records_of


def test_concurrent_readers_see_whole_commits(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, *(record(uid, sent=1) for uid in range(1, 200)), counters={"number": 1}))
    done, faults, seen = threading.Event(), [], set()

    def read() -> None:
        while not done.is_set():
            look = read_only(path)
            sent = set(look.rows.columns["sent"].tolist())
            if sent != {look.counters["number"]} or len(look.rows) != 199:
                faults.append((sent, look.counters, len(look.rows)))
            seen.add(look.counters["number"])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    number = 1
    while len(seen) < 10 and number < 5_000 and any(reader.is_alive() for reader in readers):
        number += 1
        store.commit(commit(number, fence, *(record(uid, sent=number) for uid in range(1, 200)), counters={"number": number}))
    done.set()
    for reader in readers:
        reader.join()
    store.close()
    assert faults == []
    assert len(seen) >= 10


def test_an_open_reader_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, sent=1)))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT total_sent_bytes FROM transactions").fetchall() == [(1,)]
    store.commit(commit(2, fence, record(1, sent=2)))
    store.close()
    assert reader.execute("SELECT total_sent_bytes FROM transactions").fetchall() == [(1,)]
    reader.close()
    assert records_of(read_only(path).rows)[1]["sent"] == 2


def test_a_shell_that_holds_a_write_lock_is_named_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.stores.opening.BUSY_TIMEOUT", 0.05)
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="End its transaction, such as one of a sqlite3 shell"):
        store.commit(commit(1, fence, record(1)))
    shell.execute("ROLLBACK")
    shell.close()
    store.commit(commit(1, fence, record(1)))
    store.close()
    assert len(read_only(path).rows) == 1


def test_history_is_optional(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, last_seen=5.0), departed(2, last_seen=6.0), record(3, last_seen=7.0), at=7.0))
    store.close()
    assert set(records_of(read_only(path).rows)) == {1, 2, 3}
    assert set(records_of(read_only(path, history=False).rows)) == {1, 3}
    assert set(records_of(read_only(path, since=6.0).rows)) == {2, 3}
    assert set(records_of(read_only(path, history=False, since=6.0).rows)) == {3}


def test_reading_makes_nothing_and_raises_no_fence(tmp_path: Path) -> None:
    path = tmp_path / "state" / "rayscope.db"
    with pytest.raises(StoreUnusable, match="there is no store"):
        read_only(path)
    assert list(tmp_path.iterdir()) == []
    store = SqliteStore(path)
    store.open()
    store.close()
    assert [read_only(path).fence for _ in range(3)] == [1, 1, 1]


def test_reading_in_the_writer_s_own_process_does_not_drop_its_locks(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, sent=1)))
    assert len(read_only(path).rows) == 1
    script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('SELECT * FROM meta').fetchall(); d.close()"
    subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True)
    assert path.with_name("rayscope.db-wal").exists(), "another process believed to be the last one, and took the log away"
    store.close()
