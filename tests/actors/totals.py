"""What the store says of a test's own traffic, compared with what its sockets counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cluster.core import query
from cluster.core.snapshot import Snapshot
from cluster.stores.sqlite import read_only
from tests.actors.waiting import wait_for
from tests.traffic import Truth

Totals = dict[str, list[int]]
Pair = tuple[list[int] | None, list[int] | None]


def stored(store: Path, port: int, node: str) -> Totals:
    """Of this server's port, as this node saw it: seed key -> [sent, received]; keys that moved no byte are left out."""
    snapshot = Snapshot.of(read_only(str(store)))
    found: Totals = {}
    for one in query.transactions(snapshot, query.Filter(port=port, node=node), "key", None):
        if one["total_sent_bytes"] or one["total_recv_bytes"]:
            total = found.setdefault(one["key"], [0, 0])
            total[0] += one["total_sent_bytes"]
            total[1] += one["total_recv_bytes"]
    return found


def difference(truth: Totals, found: Totals, connections: Mapping[str, int] | None = None) -> dict[str, Pair]:
    """Where the two disagree: key -> (true, stored). A key may have been that of several connections."""
    keys = truth.keys() | found.keys()
    pairs = {key: (truth.get(key), found.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if not agrees(*pair, (connections or {}).get(key, 1))}


def agrees(truth: list[int] | None, found: list[int] | None, connections: int) -> bool:
    """Sent to the byte; received to the byte, or one more for each FIN that no field of the kernel's shows."""
    sent, received = (of_found - of_truth for of_truth, of_found in zip(truth or (0, 0), found or (0, 0), strict=True))
    return sent == 0 and 0 <= received <= connections


def assert_totals(store: Path, truth: Truth, port: int, node: str) -> None:
    """The store comes to equal the truth."""
    last: dict[str, object] = {}

    def equal() -> bool:
        last.clear()
        last.update(difference(truth.bytes, stored(store, port, node), truth.connections))
        return not last

    try:
        wait_for(equal)
    except AssertionError:
        some = dict(list(last.items())[:5])
        raise AssertionError(f"{len(last)} of {len(truth.bytes)} keys differ (true, stored): {some}") from None
