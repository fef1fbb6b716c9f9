"""What a commit costs beside the bare insert that it cannot do without: `python -m tests.benchmarks.store`.

One commit of 200,000 rows, half of them new and half changed, with its fence, edges, node states, metadata and retention, from the numpy
columns that the aggregate hands over. Beside it one executemany of the same rows, ready as tuples, into a bare table of the same columns:
one upsert statement, one transaction, the same pragmas. Both are durable when they return.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cluster.core.checkpoint import COUNTERS, ROW, VIEW, Columns, Commit, Edge, NodeState, Rows
from cluster.stores.opening import PRAGMAS
from cluster.stores.rows import encode_rows
from cluster.stores.schema import UPSERT_ROW, column_name
from cluster.stores.sqlite import SqliteStore
from tests.benchmarks.report import median, report, seconds

ROWS = 200_000
HALF = ROWS // 2
ROUNDS = 5
ADDRESSES = tuple(f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}" for index in range(5_000))
TEXTS = ("", *(f"container/service-{index}" for index in range(500)))
NODES = tuple(f"node-{index}" for index in range(50))
TABLE = f"CREATE TABLE transaction_rows ({', '.join(f'{column_name(name)}' for name in ROW if name != 'uid')}, uid INTEGER PRIMARY KEY)"
LIMITS = {
    "protocol": 2,
    "source": len(ADDRESSES),
    "dest": len(ADDRESSES),
    "local": len(TEXTS),
    "remote": len(TEXTS),
    "service": len(TEXTS),
    "node": len(NODES),
}
LIMITS |= {
    "direction": 4,
    "flags": 1,
    "role": 3,
    "generation": 3,
    "retransmits": 50,
    "base_retransmits": 10,
    "edge": 2_000,
    "pid": 4_000_000,
}
LIMITS |= {"sent": 2**36, "recv": 2**36, "base_sent": 2**20, "base_recv": 2**20, "cookie": 2**40, "last_update": 2**52}


def columns(first_uid: int, count: int, seed: int) -> Columns:
    """`count` rows as a cluster's would be."""
    chance = np.random.default_rng(seed)
    made: Columns = {}
    for name, dtype in ROW.items():
        kind = np.dtype(dtype)
        top = LIMITS.get(name, 2**16)
        made[name] = (chance.random(count) * top if kind.kind == "f" else chance.integers(0, top, count)).astype(kind)
    made["uid"] = np.arange(first_uid, first_uid + count)
    made["slot"] = np.arange(first_uid, first_uid + count, dtype=np.uint32)
    made["net_ns"] += np.uint32(4026531840)
    made["first_seen"] = made["last_seen"] = 1.7e9 + made["last_seen"]
    return made


def rows(made: Columns) -> Rows:
    """With the texts that the rows index."""
    return Rows(made, ADDRESSES, TEXTS, NODES)


def commits(fence: int) -> tuple[Commit, Commit]:
    """The one that fills the store, and the one that is measured."""
    old, new = columns(1, HALF, seed=1), columns(HALF + 1, HALF, seed=2)
    moved = columns(1, HALF, seed=3)
    edges = tuple(Edge(number, "a", "b", "", 0, 443, ((1,) * len(VIEW), (2,) * len(VIEW)), 1.7e9, 1.7e9) for number in range(2_000))
    states = tuple(NodeState(node, 1, 1, 1, "instance", 7, {"polls": 1}) for node in NODES)
    metadata = {address: {"docker": {"id": {"name": "service", "image": "image:1"}}} for address in ADDRESSES[:200]}
    measured = Commit(
        2, fence, 1.7e9, rows(new), {name: moved[name] for name in ("uid", *COUNTERS)}, states, edges, metadata, {"rows": ROWS}
    )
    return Commit(1, fence, 1.7e9, rows(old), {}), measured


@contextmanager
def ours(path: Path) -> Iterator[Callable[[], object]]:
    """A filled store, and the work of one commit to it."""
    store = SqliteStore(path)
    first, measured = commits(store.open().fence)
    store.commit(first)
    yield lambda: store.commit(measured)
    store.close()


@contextmanager
def bare(path: Path) -> Iterator[Callable[[], object]]:
    """A filled table, and the work of one upsert of all rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for pragma in ("auto_vacuum = INCREMENTAL", *PRAGMAS):
            database.execute(f"PRAGMA {pragma}")
        database.execute(TABLE)
        filling = list(encode_rows(rows(columns(1, HALF, seed=1))))
        upsert(database, filling)
        changed_and_new = (columns(1, HALF, seed=3), columns(HALF + 1, HALF, seed=2))
        ready = [values for made in changed_and_new for values in encode_rows(rows(made))]
        yield lambda: upsert(database, ready)


def upsert(database: sqlite3.Connection, ready: list[tuple[Any, ...]]) -> None:
    """One durable transaction."""
    database.execute("BEGIN IMMEDIATE")
    database.executemany(UPSERT_ROW, ready)
    database.execute("COMMIT")


def main() -> None:
    """In turn, each time with new files."""
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            for name, prepare in (("ours", ours), ("bare", bare)):
                with prepare(Path(directory, f"{name}.db")) as work:
                    taken[name].append(seconds(work))
            check(directory)
    speed = {name: ROWS / median(times) for name, times in taken.items()}
    print(
        f"commit: {speed['ours']:,.0f} rows/s; bare executemany: {speed['bare']:,.0f} rows/s (medians of {ROUNDS} rounds of {ROWS:,} rows)"
    )
    report("store", {"executemany": speed["ours"] / speed["bare"]})


def check(directory: str) -> None:
    """Both hold the same rows."""
    sums = []
    for name in ("ours", "bare"):
        with closing(sqlite3.connect(Path(directory, f"{name}.db"))) as database:
            sums.append(
                database.execute("SELECT count(*), sum(monotonic_sent_bytes), sum(base_recv_bytes) FROM transaction_rows").fetchone()
            )
    assert sums[0] == sums[1], sums
    assert sums[0][0] == ROWS


if __name__ == "__main__":
    main()
