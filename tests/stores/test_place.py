"""What is made at the place of a store, and what is refused there."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from cluster.core.errors import StoreBusy, StoreError, StoreUnusable
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.commits import commit, record, records_of


def test_files_are_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "rayscope" / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1)))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    store.close()


def test_names_that_mean_something_to_a_uri_are_plain_names(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&b#c%20 d" / "rays?cope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1)))
    store.close()
    assert path.stat().st_size > 0
    assert len(read_only(path).rows) == 1


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    path.touch()
    store = SqliteStore(path)
    assert store.open().fence == 1
    store.close()


def refused(path: Path, message: str) -> None:
    """Writer and reader both refuse it, and leave every file as it is."""
    before, lock = contents(path.parent), path.with_name(path.name + ".lock")
    there = lock.exists()
    store = SqliteStore(path)
    for attempt in (store.open, lambda: read_only(path)):
        with pytest.raises(StoreUnusable, match=message) as caught:
            attempt()
        assert str(path) in str(caught.value)
    assert contents(path.parent) == before
    assert lock.exists() == there, "beside a foreign file nothing is left"
    store.close()


def contents(directory: Path) -> dict[str, bytes]:
    files = (file for file in directory.iterdir() if file.is_file() and not file.name.endswith((".lock", "-shm")))
    return {file.name: file.read_bytes() for file in files if file.stat().st_size}


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    store = SqliteStore(tmp_path / "file" / "rayscope.db")
    for attempt in (store.open, lambda: read_only(store.path)):
        with pytest.raises(StoreUnusable, match=r"file is not a directory, so no store can be below it\. Choose another place"):
            attempt()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_store_has_one_lock_by_whatever_name(tmp_path: Path) -> None:
    path, other = tmp_path / "rayscope.db", tmp_path / "other.db"
    other.symlink_to(path)
    store = SqliteStore(path)
    store.open()
    with pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
        SqliteStore(other).open()
    store.close()


def test_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    path.mkdir()
    refused(path, "is a directory")


def test_anything_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    path.write_bytes(os.urandom(100_000))
    refused(path, "damaged .*Nothing was changed in it")


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_the_database_of_another_program(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "rayscope.db"
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute("CREATE TABLE transactions (uid)")
    database.execute("INSERT INTO transactions VALUES (1)")
    database.commit()
    refused(path, "a SQLite database of another program")
    database.close()


def a_store(path: Path, rows: int = 2_000) -> None:
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, *(record(uid, sent=uid) for uid in range(1, rows + 1))))
    store.close()


def test_another_schema_version(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    a_store(path)
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()
    refused(path, "schema version 7, this release reads version 1. Use the release that made it")


@pytest.mark.parametrize("keep", [50, 100, 4_096, 100_000])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "rayscope.db"
    a_store(path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "damaged")


def test_flipped_pages(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    a_store(path)
    raw = bytearray(path.read_bytes())
    for page in range(4, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 64] = bytes(byte ^ 0xFF for byte in raw[page * 4096 : page * 4096 + 64])
    path.write_bytes(raw)
    refused(path, "damaged")


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE transaction_rows SET cookie = 'x'",
        "UPDATE transaction_rows SET sport = -1",
        "DELETE FROM meta WHERE name = 'fence'",
        "UPDATE meta SET value = 'x' WHERE name = 'fence'",
        "INSERT INTO metadata VALUES ('10.0.0.1', '{')",
        "INSERT INTO counters VALUES ('x', 'y')",
    ],
)
def test_values_that_cannot_be(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "rayscope.db"
    a_store(path, 2)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(harm)
    database.close()
    store = SqliteStore(path)
    for attempt in (store.open, lambda: read_only(path)):
        with pytest.raises(StoreUnusable, match="damaged"):
            attempt()
    store.close()


def test_a_log_without_its_database_is_not_played_into_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    left = tmp_path / "rayscope.db-wal"
    left.write_bytes(b"what was stored last")
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable, match="left over from a store that is gone"):
        store.open()
    assert left.read_bytes() == b"what was stored last"
    assert not path.exists()
    left.unlink()
    assert store.open().fence == 1
    store.close()


def test_a_file_that_is_taken_away_is_missed(tmp_path: Path) -> None:
    path, aside = tmp_path / "rayscope.db", tmp_path / "aside.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1)))
    path.rename(aside)
    with pytest.raises(StoreUnusable, match="was removed or replaced while rayscope had it open"):
        store.commit(commit(2, fence, record(2)))
    assert not path.exists()
    aside.rename(path)
    store.commit(commit(2, fence, record(2)))
    assert set(records_of(read_only(path).rows)) == {1, 2}
    store.close()


def test_a_commit_that_cannot_be_stored_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    with pytest.raises(StoreError, match=r"commit 1 cannot be stored .*UnicodeEncodeError.*nothing of it is written"):
        store.commit(commit(1, fence, record(1), record(2, local="\ud800")))
    with pytest.raises(StoreError, match="a uid below 1"):
        store.commit(commit(1, fence, record(-1)))
    store.commit(commit(1, fence, record(3)))
    assert set(records_of(read_only(path).rows)) == {3}
    store.close()


def test_a_check_says_what_open_would_and_leaves_the_fence(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.db"
    SqliteStore(path).check()
    store = SqliteStore(path)
    assert store.open().fence == 1
    with pytest.raises(StoreBusy):
        SqliteStore(path).check()
    store.close()
    SqliteStore(path).check()
    assert SqliteStore(path).open().fence == 2


def test_a_lock_that_was_taken_away_keeps_nobody_off_and_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the lock's file and locking it, another rayscope that was refused removes it."""
    path = tmp_path / "rayscope.db"
    flock = fcntl.flock

    def removed(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        lock.unlink()
        flock(descriptor, how)

    store, lock = SqliteStore(path), tmp_path / "rayscope.db.lock"
    monkeypatch.setattr(fcntl, "flock", removed)
    store.open()
    assert lock.read_text() == f"{os.getpid()}\n"
    with pytest.raises(StoreBusy):
        SqliteStore(path).open()
    store.close()
    assert lock.exists()
