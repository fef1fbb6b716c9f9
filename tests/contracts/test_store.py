"""What every store promises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.core.checkpoint import NO_SLOT, ROW, Checkpoint
from cluster.core.errors import FencedError, StoreBusy, StoreError
from cluster.core.records import Flag
from cluster.ports import Store
from cluster.stores.memory import Contents, MemoryStore
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.commits import IN_MEMORY, Model, Record, changed_of, commit, departed, record, records_of, steps


@dataclass(frozen=True)
class Kind:
    """One stored thing: handles on it, and a look at all that it holds."""

    handle: Callable[[], Store]
    look: Callable[[], Checkpoint]


@contextmanager
def sqlite_kind() -> Iterator[Kind]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        path = Path(directory, "rayscope.db")
        yield Kind(lambda: SqliteStore(path), lambda: read_only(path))


@contextmanager
def memory_kind() -> Iterator[Kind]:
    contents = Contents()
    yield Kind(lambda: MemoryStore(contents), lambda: MemoryStore(contents).read_only())


KINDS = {"sqlite": sqlite_kind, "memory": memory_kind}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    with KINDS[request.param]() as one:
        yield one


@pytest.fixture
def store(kind: Kind) -> Iterator[Store]:
    handle = kind.handle()
    yield handle
    handle.close()


def test_a_new_store_is_empty(store: Store) -> None:
    checkpoint = store.open()
    assert (checkpoint.fence, len(checkpoint.rows), checkpoint.next_uid) == (1, 0, 1)
    assert (checkpoint.nodes, checkpoint.edges, checkpoint.metadata, checkpoint.counters) == ((), (), {}, {})
    assert {name: column.dtype for name, column in checkpoint.rows.columns.items()} == {name: np.dtype(kind) for name, kind in ROW.items()}


def test_the_fence_rises_at_every_open(kind: Kind) -> None:
    fences = []
    for _ in range(3):
        handle = kind.handle()
        fences += [handle.open().fence, handle.open().fence]
        handle.close()
    assert fences == [1, 2, 3, 4, 5, 6]
    assert kind.look().fence == 6


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(made=st.lists(steps(), min_size=1, max_size=4), reopen=st.booleans())
def test_what_is_committed_is_what_is_read(name: str, made: list[Record], reopen: bool) -> None:
    with KINDS[name]() as kind:
        handle, model = kind.handle(), Model()
        fence = handle.open().fence
        for number, step in enumerate(made, 1):
            handle.commit(model.commit(number, fence, step))
            model.check(kind.look(), history=True)
            if reopen:
                handle.close()
                handle = kind.handle()
                opened = handle.open()
                model.check(opened, history=False)
                fence = opened.fence
        model.check(handle.open(), history=False)
        handle.close()


def test_changed_rows_change_in_their_counters_alone(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, pid=7, sent=10), record(2, pid=8, sent=20)))
    store.commit(commit(2, fence, changed=changed_of([record(1, pid=99, sent=2**64 - 1, flags=int(Flag.CLOSED))])))
    rows = records_of(kind.look().rows)
    assert rows == {1: record(1, pid=7, sent=2**64 - 1, flags=int(Flag.CLOSED)), 2: record(2, pid=8, sent=20)}


def test_a_changed_row_that_is_not_there_refuses_the_whole_commit(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    store.commit(commit(1, fence, record(1)))
    with pytest.raises(StoreError, match="commit 2: 1 changed rows are not in the store"):
        store.commit(commit(2, fence, record(2), changed=changed_of([record(1, sent=5), record(3, sent=5)])))
    assert records_of(kind.look().rows) == {1: record(1)}


def test_a_row_that_left_its_node_stays_for_readers_only(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, slot=3), record(2, slot=4)))
    store.commit(commit(2, fence, departed(1), record(3, slot=3)))
    assert set(records_of(kind.look().rows)) == {1, 2, 3}
    opened = store.open()
    assert {uid: row["slot"] for uid, row in records_of(opened.rows).items()} == {2: 4, 3: 3}
    assert opened.next_uid == 4
    assert records_of(kind.look().rows)[1]["slot"] == NO_SLOT


def test_removed_rows_are_gone_and_their_uids_are_not_used_again(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    store.commit(commit(1, fence, record(1), record(9)))
    store.commit(commit(2, fence, record(2, sent=1), removed=np.array([9], np.int64)))
    assert set(records_of(kind.look().rows)) == {1, 2}
    assert store.open().next_uid == 10


def test_metadata_is_replaced_whole_and_removed(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    store.commit(commit(1, fence, metadata={"10.0.0.1": {"proc": {"a": {"name": "x"}}}, "fd00::1": {"docker": {}}}))
    store.commit(commit(2, fence, metadata={"10.0.0.1": {"docker": {"b": {}}}, "fd00::1": None, "10.9.9.9": None}))
    assert kind.look().metadata == {"10.0.0.1": {"docker": {"b": {}}}}


def test_a_fenced_commit_is_refused_whole(store: Store, kind: Kind) -> None:
    old = store.open().fence
    store.commit(commit(1, old, record(1)))
    new = store.open().fence
    with pytest.raises(FencedError, match=f"commit 2 of aggregator {old} .* belongs to aggregator {new}"):
        store.commit(commit(2, old, record(1, sent=9), record(2), counters={"x": 1}, metadata={"a": {}}))
    look = kind.look()
    assert records_of(look.rows) == {1: record(1)}
    assert (look.counters, look.metadata, look.next_uid) == ({}, {}, 2)
    store.commit(commit(1, new, record(2)))
    assert set(records_of(kind.look().rows)) == {1, 2}


def test_a_fence_that_the_store_never_gave_is_refused(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    with pytest.raises(FencedError):
        store.commit(commit(1, fence + 1, record(1)))
    assert len(kind.look().rows) == 0


def test_the_same_commit_again_changes_nothing(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    first = commit(1, fence, record(1, sent=1), counters={"x": 1})
    store.commit(first)
    store.commit(commit(2, fence, record(1, sent=2), counters={"x": 2}))
    store.commit(first)
    store.commit(commit(2, fence, record(1, sent=3)))
    assert records_of(kind.look().rows)[1]["sent"] == 2
    assert kind.look().counters == {"x": 2}
    again = store.open().fence
    store.commit(commit(1, again, record(1, sent=4)))
    assert records_of(kind.look().rows)[1]["sent"] == 4


def test_one_writer_at_a_time(kind: Kind) -> None:
    first, second = kind.handle(), kind.handle()
    fence = first.open().fence
    with pytest.raises(StoreBusy):
        second.open()
    with pytest.raises(StoreBusy):
        second.commit(commit(1, fence, record(1)))
    first.commit(commit(1, fence, record(1)))
    first.close()
    opened = second.open()
    assert (opened.fence, set(records_of(opened.rows))) == (fence + 1, {1})
    second.close()


def test_a_restarted_writer_goes_on_with_the_fence_that_stands(kind: Kind) -> None:
    first, second = kind.handle(), kind.handle()
    fence = first.open().fence
    first.commit(commit(1, fence, record(1)))
    first.close()
    second.commit(commit(2, fence, record(2)))
    assert (kind.look().fence, set(records_of(kind.look().rows))) == (fence, {1, 2})
    with pytest.raises(FencedError):
        second.commit(commit(3, fence - 1, record(3)))
    second.close()


def test_closing_twice_is_fine_and_a_closed_store_opens_again(store: Store) -> None:
    store.open()
    store.close()
    store.close()
    assert store.open().fence == 2


def test_what_is_returned_is_not_what_is_kept(store: Store, kind: Kind) -> None:
    fence = store.open().fence
    store.commit(commit(1, fence, record(1, sent=1), metadata={"10.0.0.1": {"proc": {"a": {}}}}))
    opened = store.open()
    opened.rows.columns["sent"][:] = 5
    assert isinstance(opened.metadata, dict)
    opened.metadata["10.0.0.1"]["proc"]["a"] = "changed"
    assert records_of(kind.look().rows)[1]["sent"] == 1
    assert kind.look().metadata == {"10.0.0.1": {"proc": {"a": {}}}}
