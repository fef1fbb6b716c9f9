"""What is read for publication equals what a question to the same store answers."""

from __future__ import annotations

import json
import math
import tempfile
import threading
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core import query
from cluster.core.publication import FIELDS, Entries
from cluster.core.records import Flag
from cluster.core.snapshot import Snapshot
from cluster.stores.busiest import Busiest
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.commits import IN_MEMORY, commit, departed, record, whole_rows

TIMES = ("first_seen", "last_seen")


def values(entries: Entries) -> list[dict[str, Any]]:
    return [json.loads(entry.text) for entry in entries.kept]


def comparable(transaction: dict[str, Any]) -> dict[str, Any]:
    """Times by whole seconds: a snapshot may keep no parts of one, and what is published is rounded."""
    said = {name: transaction[name] for name in FIELDS}
    return said | {name: round(said[name]) for name in TIMES} | {"folded": bool(transaction.get("folded"))}


@settings(max_examples=60, deadline=None)
@given(st.lists(whole_rows, min_size=1, max_size=6))
def test_what_is_published_is_what_a_question_answers(drawn: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        path = Path(directory, "rayscope.db")
        rows = [row | {"uid": uid, "node": f"n{uid}"} | {name: math.floor(row[name]) for name in TIMES} for uid, row in enumerate(drawn, 1)]
        store = SqliteStore(path)
        fence = store.open().fence
        store.commit(commit(1, fence, *rows, at=0.0))
        read, publication = Busiest(path, 100).read()
        store.close()
        asked = query.transactions(Snapshot.of(read_only(path)))
    assert read == fence
    assert publication.transactions.refused == publication.unread == 0
    found = {value["node"]: comparable(value) for value in values(publication.transactions)}
    assert found == {transaction["node"]: comparable(transaction) for transaction in asked}
    assert {entry.key.replace("_", ":") for entry in publication.transactions.kept} == {transaction["key"] for transaction in asked}


def test_the_busiest_are_read_in_order_and_the_rest_is_counted(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "rayscope.db")
    top = 2**64 - 1
    rows = [
        record(1, sent=5, recv=5),
        record(2, sent=top, recv=top),
        departed(3, sent=8, recv=8),
        record(4, sent=99, flags=int(Flag.BYTES_UNKNOWN)),
        record(5, sent=3, base_sent=9),
        record(6, sent=2**62, recv=2**62),
    ]
    store.commit(commit(1, store.open().fence, *(row | {"pid": row["uid"]} for row in rows)))
    for limit, expected in ((6, [2, 6, 3, 5, 1, 4]), (3, [2, 6, 3])):
        publication = Busiest(tmp_path / "rayscope.db", limit).read()[1]
        assert [value["pid"] for value in values(publication.transactions)] == expected
        assert publication.unread == 6 - limit
    store.close()


def test_a_store_keeps_its_identity_and_another_has_another(tmp_path: Path) -> None:
    identities = []
    for name in ("one", "one", "two"):
        store = SqliteStore(tmp_path / name)
        store.open()
        store.close()
        identities.append(Busiest(tmp_path / name, 1).identity())
    assert identities[0] == identities[1] != identities[2]
    assert len(identities[0]) > 8


def test_commits_go_on_while_it_reads_and_each_reading_is_of_one_moment(tmp_path: Path) -> None:
    path, rows = tmp_path / "rayscope.db", 2_000
    store = SqliteStore(path)
    fence = store.open().fence
    store.commit(commit(1, fence, *(record(uid, sent=1) for uid in range(1, rows + 1))))
    ended, seen = threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            seen.append({value["total_sent_bytes"] for value in values(Busiest(path, rows).read()[1].transactions)})

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(2, 12):
        store.commit(commit(number, fence, *(record(uid, sent=number) for uid in range(1, rows + 1))))
    while not seen:
        assert reader.is_alive()
    ended.set()
    reader.join()
    store.close()
    assert all(len(numbers) == 1 for numbers in seen)
