"""A store's rows and edges, summed in plain dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from cluster.core.checkpoint import NO_SLOT, VIEW, Checkpoint
from cluster.core.ends import is_client
from cluster.core.records import Flag
from tests.core.world import COUNTERS, Truth


def by_key(checkpoint: Checkpoint) -> Truth:
    """Totals of all rows by seed key, without zeros."""
    rows = checkpoint.rows
    total: Truth = Counter()
    for index in range(len(rows)):
        row = {name: int(column[index]) for name, column in rows.columns.items() if name not in ("first_seen", "last_seen")}
        key = f"{rows.addresses[row['source']]}-{rows.addresses[row['dest']]}-{row['sport']}-{row['dport']}"
        for name in COUNTERS:
            total[key, name] += row[name] + row[f"base_{name}"]
    return +total


def regrouped(truth: Truth, key_of: Callable[[str], str]) -> Truth:
    """The same sums under coarser keys."""
    total: Truth = Counter()
    for (key, name), amount in truth.items():
        total[key_of(key), name] += amount
    return +total


def without_ports(key: str) -> str:
    source, dest, _, _ = key.split("-")
    return f"{source}-{dest}"


def check_edges(checkpoint: Checkpoint) -> None:
    """Every edge's views equal the sums of the stored rows on it, gone ones and fold rows included."""
    rows = checkpoint.rows
    sums: Counter[tuple[int, int, str]] = Counter()
    if len(rows):
        views = np.where(is_client(rows.columns), 0, 1)
        for index in range(len(rows)):
            number, view = int(rows.columns["edge"][index]), int(views[index])
            if number < 0:
                continue
            for name in COUNTERS:
                sums[number, view, name] += int(rows.columns[name][index]) + int(rows.columns[f"base_{name}"][index])
            flags = int(rows.columns["flags"][index])
            sums[number, view, "open"] += not flags & (Flag.CLOSED | Flag.FOLDED)
    for edge in checkpoint.edges:
        for view in (0, 1):
            said = dict(zip(VIEW, edge.views[view], strict=True))
            for name in (*COUNTERS, "open"):
                assert said[name] == sums.pop((edge.number, view, name), 0), (edge, name)
    assert not +sums


def check_slots(checkpoint: Checkpoint) -> None:
    """No two rows of a node have one slot."""
    columns = checkpoint.rows.columns
    slots = [(node, slot) for node, slot in zip(columns["node"].tolist(), columns["slot"].tolist(), strict=True) if slot != NO_SLOT]
    assert len(set(slots)) == len(slots)
