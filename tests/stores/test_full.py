"""No room, and no right to write: said clearly, nothing stored is harmed, and it goes on once that is mended."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.core.errors import StoreUnusable
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.commits import commit, record, records_of

AS_ROOT = os.geteuid() == 0
MANY = 40_000  # rows: about 3 MB

NO_ROOM = r"rayscope\.db: .*(Free space on its file system|full or failing disk).* is intact"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if not AS_ROOT:
        pytest.skip("mounting a file system needs root")
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a file system is not allowed here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def refused_then_stored(path: Path, fill: Callable[[SqliteStore], None], relieve: Callable[[SqliteStore], None]) -> None:
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, sent=1), counters={"number": 1}))
    large = commit(2, fence, record(1, sent=2), *(record(uid, sent=2) for uid in range(2, MANY)), counters={"number": 2})
    fill(store)
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=NO_ROOM):
            store.commit(large)
        assert records_of(read_only(path).rows) == {1: record(1, sent=1)}
        assert read_only(path).counters == {"number": 1}
    relieve(store)
    store.commit(large)
    assert (len(read_only(path).rows), read_only(path).counters) == (MANY - 1, {"number": 2})
    store.close()
    assert set(read_only(path).rows.columns["sent"].tolist()) == {2}


def test_a_full_disk(tiny: Path) -> None:
    def grow(_: SqliteStore) -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", tiny], check=True)

    refused_then_stored(tiny / "rayscope.db", lambda _: None, grow)


def test_a_disk_without_a_single_byte(tiny: Path) -> None:
    path, ballast = tiny / "rayscope.db", tiny / "ballast"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, sent=1)))
    store.close()
    fill(ballast)
    with pytest.raises(StoreUnusable, match=NO_ROOM):
        store.open()
    ballast.unlink()
    assert records_of(read_only(path).rows) == {1: record(1, sent=1)}
    assert store.open().fence > fence
    store.close()


def test_no_room_for_a_new_store_leaves_no_half_of_one(tiny: Path) -> None:
    path, ballast = tiny / "rayscope.db", tiny / "ballast"
    fill(ballast)
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable, match=NO_ROOM):
        store.open()
    assert {file.name for file in tiny.iterdir()} <= {"ballast", "rayscope.db.lock"}
    ballast.unlink()
    assert store.open().fence == 1
    store.close()


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        refused_then_stored(
            tmp_path / "rayscope.db",
            lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard)),
            lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_database_that_may_not_grow(tmp_path: Path) -> None:
    def pages(store: SqliteStore, count: int) -> None:
        assert isinstance(store._database, sqlite3.Connection)
        store._database.execute(f"PRAGMA max_page_count = {count}")

    refused_then_stored(tmp_path / "rayscope.db", lambda store: pages(store, 100), lambda store: pages(store, 1_000_000))


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Path]:
    """A directory with a store of one row, then sealed against writing: by its mode, or for root, whom no mode stops, by its mount."""
    place = tmp_path / "sealed"
    place.mkdir()
    path = place / "rayscope.db"
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, sent=1)))
    store.close()
    if not AS_ROOT:
        place.chmod(0o500)
        yield path
        place.chmod(0o700)
        return
    bound = subprocess.run(["mount", "--bind", "-o", "ro", place, place], capture_output=True, text=True, check=False)
    if bound.returncode:
        pytest.skip(f"mounting a file system is not allowed here: {bound.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_read_only_directory(sealed: Path) -> None:
    for path in (sealed, sealed.with_name("other.db")):
        with pytest.raises(StoreUnusable, match="Make the file and its directory writable for this user, or choose another place"):
            SqliteStore(path).open()
    assert records_of(read_only(sealed).rows) == {1: record(1, sent=1)}


def test_a_store_of_another_user(tmp_path: Path) -> None:
    if AS_ROOT:
        pytest.skip("root may read every file")
    path = tmp_path / "rayscope.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    path.chmod(0)
    for attempt in (store.open, lambda: read_only(path)):
        with pytest.raises(StoreUnusable, match=r"Permission denied.*writable for this user"):
            attempt()
