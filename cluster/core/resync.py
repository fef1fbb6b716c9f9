"""The first sequence of a stream: a new collector's rows, matched with those that the old one had."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.core.apply import keep_exported, leave, opened_rows
from cluster.core.block import COUNTED, Block
from cluster.core.checkpoint import Columns
from cluster.core.match import match
from cluster.core.placing import place
from cluster.core.records import Flag
from cluster.core.sequence import OURS, Batch
from cluster.core.state import Node, State

ADDRESSED = ("net_ns", "protocol", "source", "dest", "sport", "dport", "cookie")


def resync(state: State, node: Node, batch: Batch, at: float) -> None:
    """Rows found again go on; new ones are opened; old ones that are not named are closed, and leave with those that were."""
    old, rows = node.block, opened_rows(state, batch, at)
    slots = batch.opened["id"].astype(np.intp)
    held = _eligible(old)
    matched = _match({name: column[held] for name, column in old.columns.items()}, rows)
    found = matched >= 0
    kept = held[matched[found]]
    another = node.instance != batch.final.closed_through[0]
    _leave_others(state, node, kept, at)
    rows["uid"] = np.zeros(len(slots), np.int64)
    rows["uid"][~found] = state.uids(int(np.count_nonzero(~found)))
    state.counters["opened"] += int(np.count_nonzero(~found))
    continued = _continue(old, kept, {name: column[found] for name, column in rows.items()}, another=another)
    node.block = new = Block()
    new.version = old.version
    new.fill(slots, {name: _put(column, found, continued[name]) for name, column in rows.items()})
    new.bases.add(slots[found], {name: continued[f"base_{name}"] for name in COUNTED})
    _count(state, old, kept, new, slots[found], at)
    place(state, node, new, slots[~found], at, fresh=True)
    place(state, node, new, slots[found], at)


def _put(column: NDArray[np.generic], found: NDArray[np.bool_], continued: NDArray[np.generic]) -> NDArray[np.generic]:
    if not len(continued):
        return column
    column = column.copy()
    column[found] = continued
    return column


def _eligible(block: Block) -> NDArray[np.intp]:
    """Old rows that may go on: with a cookie any, without one only open ones."""
    slots = block.used()
    cookie, flags = block.columns["cookie"][slots], block.columns["flags"][slots]
    eligible: NDArray[np.intp] = slots[(cookie != 0) | (flags & Flag.CLOSED == 0)]
    return eligible


def _match(old: Columns, rows: Columns) -> NDArray[np.intp]:
    """For each arriving row the old one, -1 for none. Of two arriving with one identity the closed one is the earlier connection."""
    order = np.argsort(rows["flags"] & Flag.CLOSED == 0, kind="stable")
    matched = np.empty(len(order), np.intp)
    matched[order] = match(_identity(old), _identity({name: column[order] for name, column in rows.items()}))
    return matched


def _identity(rows: Columns) -> Columns:
    """What a tracer tells apart: with a cookie the pid is only an attribute."""
    pid = np.where(rows["cookie"] != 0, np.uint32(0), rows["pid"])
    return {name: rows[name] for name in ADDRESSED} | {"pid": pid, "folded": rows["flags"] & np.uint8(Flag.FOLDED)}


def _leave_others(state: State, node: Node, kept: NDArray[np.intp], at: float) -> None:
    block = node.block
    others = np.setdiff1d(block.used(), kept, assume_unique=True)
    state.edges.closed(block.columns["cell"][others].astype(np.intp), _still(block, others))
    block.set_flags(others, block.columns["flags"][others] | np.uint8(Flag.CLOSED))
    leave(state, node, others, at)


def _continue(old: Block, kept: NDArray[np.intp], rows: Columns, *, another: bool) -> Columns:
    """The found rows as they go on, with their bases: counters as they arrive, and what was known before."""
    was = old.take(kept)
    corrected = (rows["cookie"] != 0) & (was["recv"] - rows["recv"] == 1)  # an inexact count
    ended = np.logical_or.reduce([(rows[name] < was[name]) & ~(corrected & (name == "recv")) for name in COUNTED])
    if another:
        ended |= rows["cookie"] == 0
    goes_on = dict(rows)
    for name in COUNTED:
        goes_on[f"base_{name}"] = was[f"base_{name}"] + np.where(ended, was[name], 0).astype(was[f"base_{name}"].dtype)
    for name in ("uid", "cell", "service", "first_seen"):
        goes_on[name] = was[name]
    for name in ("pid", "local", "remote", "role"):
        goes_on[name] = np.where((rows[name] != 0) | (rows["flags"] & Flag.FOLDED > 0), rows[name], was[name])
    goes_on["flags"] = rows["flags"] | was["flags"] & np.uint8(OURS)
    return goes_on


def _count(state: State, old: Block, kept: NDArray[np.intp], new: Block, slots: NDArray[np.intp], at: float) -> None:
    """What the found rows gained goes to the edges they are on."""
    cells = new.columns["cell"][slots].astype(np.intp)
    before, after = old.totals(kept), new.totals(slots)
    grown = {name: after[name] - before[name] for name in COUNTED}
    state.edges.grew(cells, grown, at)
    hidden = np.flatnonzero(new.columns["flags"][slots] & Flag.SETTLED == 0)
    state.edges.hide(cells[hidden], {name: amount[hidden] for name, amount in grown.items()})
    keep_exported(state, new, slots, cells, grown["recv"])
    state.edges.closed(cells, _still(old, kept) - _still(new, slots))


def _still(block: Block, slots: NDArray[np.intp]) -> NDArray[np.uint64]:
    """1 for a row that counts as an open connection of its edge, else 0."""
    counts: NDArray[np.bool_] = block.columns["flags"][slots] & np.uint8(Flag.CLOSED | Flag.FOLDED) == 0
    return counts.astype(np.uint64)
