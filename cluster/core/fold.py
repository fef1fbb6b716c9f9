"""Beyond the limit of rows, the oldest closed ones are summed into fold rows of their node. Detail is lost and counted; bytes stay exact.

A fold row has the ephemeral port 0, pid 0 and cookie 0, and the edge that its rows had, so no edge changes. Where even fold rows are many
(a server that the whole internet visits), new ones have the remote address `::`; there are then no more of them than edges.
"""

from __future__ import annotations

import numpy as np

from cluster.core.block import COUNTED, GONE, NATIVE, USED, Block, added
from cluster.core.checkpoint import Columns
from cluster.core.ends import is_client
from cluster.core.match import groups, match
from cluster.core.placing import Slots, place
from cluster.core.records import SUM_LIMITS, Flag
from cluster.core.state import Node, State

SLACK = 16  # a sixteenth of the limit is folded beyond the excess, so that not every tick folds
KEY = ("net_ns", "protocol", "source", "dest", "sport", "dport", "cell", "unknown")


def fold(state: State, at: float) -> None:
    """Bring the rows held below the limit, as far as closed ones allow."""
    excess = state.rows - state.limits.rows
    nodes = [node for node in state.nodes.values() if node.block.closed]
    if excess <= 0 or not nodes:
        return
    closed = [_closed(node.block) for node in nodes]
    whose = np.repeat(np.arange(len(nodes)), [len(slots) for slots in closed])
    ages = np.concatenate([node.block.columns["last_seen"][slots] for node, slots in zip(nodes, closed, strict=True)])
    oldest = np.zeros(len(ages), np.bool_)
    oldest[np.argsort(ages, kind="stable")[: excess + state.limits.rows // SLACK]] = True
    coarse = sum(node.folds.rows for node in state.nodes.values()) > state.limits.rows // 2
    for number, (node, slots) in enumerate(zip(nodes, closed, strict=True)):
        _fold(state, node, slots[oldest[whose == number]], at, coarse=coarse)


def _closed(block: Block) -> Slots:
    used = block.marks[: block.size] & USED > 0
    return np.flatnonzero(used & (block.columns["flags"][: block.size] & Flag.CLOSED > 0))


def _fold(state: State, node: Node, slots: Slots, at: float, *, coarse: bool) -> None:
    if not len(slots):
        return
    block = node.block
    place(state, node, block, slots[block.columns["flags"][slots] & Flag.SETTLED == 0], at, force=True)
    sums = _sums(_folded(block, slots, coarse=coarse))
    known = node.folds.used()
    found = match(_key({name: column[known] for name, column in node.folds.columns.items()}), _key(sums))
    _add(node.folds, known[found[found >= 0]], {name: column[found >= 0] for name, column in sums.items()})
    fresh = {name: column[found < 0] for name, column in sums.items()}
    fresh["uid"] = state.uids(len(fresh["cell"]))
    node.folds.fill(np.arange(node.folds.size, node.folds.size + len(fresh["cell"])), fresh)
    state.removed.append(block.columns["uid"][slots])
    state.counters["folded"] += len(slots)
    block.empty(slots, GONE)


def _folded(block: Block, slots: Slots, *, coarse: bool) -> Columns:
    """These rows, each as the fold row that it would be alone."""
    rows = {name: block.columns[name][slots] for name in NATIVE} | block.totals(slots)
    client = is_client(rows)
    zero = np.zeros(len(slots), np.uint32)
    kept = np.uint8(Flag.BYTES_UNKNOWN | Flag.RECV_INEXACT)
    return rows | {
        "sport": np.where(client, 0, rows["sport"]).astype(np.uint16),
        "dport": np.where(client, rows["dport"], 0).astype(np.uint16),
        "dest": zero if coarse else rows["dest"],
        "pid": zero,
        "cookie": zero,
        "generation": zero,
        "flags": rows["flags"] & kept | np.uint8(Flag.FOLDED | Flag.SETTLED),
    }


def _key(rows: Columns) -> Columns:
    return {name: rows["flags"] & np.uint8(Flag.BYTES_UNKNOWN) if name == "unknown" else rows[name] for name in KEY}


def _sums(rows: Columns) -> Columns:
    """One row for each key: counters added up, times spanned, the rest as in the first."""
    order, first = groups(_key(rows))
    starts = np.flatnonzero(first)
    sums = {name: column[order[starts]] for name, column in rows.items()}
    how: dict[str, np.ufunc] = {"first_seen": np.minimum, "last_seen": np.maximum, "last_update": np.maximum, "flags": np.bitwise_or}
    for name, ufunc in how.items():
        sums[name] = ufunc.reduceat(rows[name][order], starts)
    for name in COUNTED:
        whole = np.add.reduceat(rows[name][order], starts)
        about = np.add.reduceat(rows[name][order].astype(np.float64), starts)  # a sum of many may be beyond 64 bits
        sums[name] = np.where(about < SUM_LIMITS[name], whole, np.uint64(SUM_LIMITS[name]))
    return sums


def _add(folds: Block, slots: Slots, sums: Columns) -> None:
    """Add to fold rows that are there already."""
    if not len(slots):
        return
    columns = folds.columns
    for name in COUNTED:
        columns[name][slots] = added(name, columns[name][slots], sums[name])
    for name in ("last_seen", "last_update"):
        columns[name][slots] = np.maximum(columns[name][slots], sums[name])
    folds.set_flags(slots, (columns["flags"][slots] | sums["flags"]).astype(np.uint8))
