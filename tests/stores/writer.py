"""A process that commits until it is killed: `python -m tests.stores.writer PATH`. It prints each number once that commit is acknowledged.

After commit n the store holds: a live row 1 with sent n; departed rows whose `sent` are 1 to n (retention folds the old ones); the counter
`number` n; metadata for 10.0.0.1 that says n; node `one` applied to n.
"""

from __future__ import annotations

import sys

from cluster.core.checkpoint import Checkpoint, Commit, NodeState
from cluster.stores.sqlite import SqliteStore, read_only
from tests.stores.commits import commit, departed, record, records_of

RETENTION = 5.0  # s; one commit a second by the commits' own time


def numbered(number: int, fence: int) -> Commit:
    """Commit `number`."""
    live, past = record(1, sent=number), departed(number + 1, sent=number, sport=number % 60_000, last_seen=float(number))
    return commit(
        number,
        fence,
        live,
        past,
        at=float(number),
        counters={"number": number},
        metadata={"10.0.0.1": {"proc": {"a": number}}},
        nodes=(NodeState("one", 1, 1, number),),
    )


def check(checkpoint: Checkpoint) -> int:
    """Assert that exactly the first n commits are there, each whole. Returns n."""
    number = checkpoint.counters.get("number", 0)
    rows = records_of(checkpoint.rows)
    past = sum(row["sent"] for uid, row in rows.items() if uid != 1)
    assert past == number * (number + 1) // 2
    if number:
        assert rows[1]["sent"] == number
        assert checkpoint.metadata == {"10.0.0.1": {"proc": {"a": number}}}
        assert [state.applied for state in checkpoint.nodes] == [number]
    assert checkpoint.next_uid == (number + 2 if number else 1)
    return number


def main(path: str) -> None:
    """Go on where the store stands, for ever."""
    store = SqliteStore(path, retention=RETENTION)
    fence = store.open().fence
    number = check(read_only(path))
    print(number, flush=True)
    while True:
        number += 1
        store.commit(numbered(number, fence))
        print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
