"""The first sequence of a stream: a new collector's rows, matched with those that the old one had.

Where it is a new stream of the same collector, that says itself which rows go on, and what they counted meanwhile (see `carry`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.core.apply import keep_exported, leave, opened_rows
from cluster.core.block import COUNTED, Block, added
from cluster.core.carry import Carried, carried, holds
from cluster.core.checkpoint import Columns
from cluster.core.match import match
from cluster.core.placing import place
from cluster.core.records import Flag
from cluster.core.sequence import OURS, Batch
from cluster.core.state import Node, State

ADDRESSED = ("net_ns", "protocol", "source", "dest", "sport", "dport", "cookie")


def resync(state: State, node: Node, batch: Batch, at: float) -> None:
    """Rows found again go on; new ones are opened; old ones that are not named are closed, and leave with those that were."""
    said = carried(batch)
    old, rows = node.block, opened_rows(state, batch, at)
    slots = batch.opened["id"].astype(np.intp)
    named = _named(old, rows, slots, said)
    old_slots = _found(old, rows, np.where(named, slots, -1), ~said.said | (said.known & ~named))
    found = old_slots >= 0
    kept = old_slots[found]
    another = node.instance != batch.final.closed_through[0]
    lost = _leave_others(state, node, kept, at)
    state.counters["closes_lost"] += lost if batch.final.continues else 0
    rows["uid"] = np.zeros(len(slots), np.int64)
    rows["uid"][~found] = state.uids(int(np.count_nonzero(~found)))
    state.counters["opened"] += int(np.count_nonzero(~found))
    skipped = _skipped(old, kept, np.where(named, said.first, -1)[found])
    state.counters["generations_lost"] += int(skipped[skipped > 0].sum())
    continued = _continue(old, kept, {name: column[found] for name, column in rows.items()}, skipped, another=another)
    node.block = new = Block()
    new.version = old.version
    new.fill(slots, {name: _put(column, found, continued[name]) for name, column in rows.items()})
    new.bases.add(slots[found], {name: continued[f"base_{name}"] for name in COUNTED})
    summed = np.logical_or.reduce([column > 0 for column in said.sums.values()])
    new.bases.add(slots[summed], {name: column[summed] for name, column in said.sums.items()})
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


def _named(old: Block, rows: Columns, slots: NDArray[np.intp], said: Carried) -> NDArray[np.bool_]:
    """Which rows are those of the same slot: the collector says so, and they are the same connection."""
    named = said.known.copy()
    named[named] = holds(old, slots[named])
    ours = _identity({name: column[slots[named]] for name, column in old.columns.items()})
    theirs = _identity({name: column[named] for name, column in rows.items()})
    named[named] = np.logical_and.reduce([ours[name] == column for name, column in theirs.items()])
    return named


def _found(old: Block, rows: Columns, found: NDArray[np.intp], loose: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The old slot of each row, -1 for none; the loose ones are looked for by what they are."""
    if loose.any():
        held = np.setdiff1d(_eligible(old), found, assume_unique=True)
        ours = {name: column[held] for name, column in old.columns.items()}
        matched = _match(ours, {name: column[loose] for name, column in rows.items()})
        found[loose] = np.where(matched < 0, -1, held[matched]) if len(held) else -1
    return found


def _skipped(old: Block, kept: NDArray[np.intp], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many generations ended of which the collector does not know any more; -1 for a row of which it says nothing."""
    return np.where(first < 0, -1, first - old.columns["generation"][kept])


def _leave_others(state: State, node: Node, kept: NDArray[np.intp], at: float) -> int:
    """Returns how many of them were open."""
    block = node.block
    others = np.setdiff1d(block.used(), kept, assume_unique=True)
    still = _still(block, others)
    state.edges.closed(block.columns["cell"][others].astype(np.intp), still)
    block.set_flags(others, block.columns["flags"][others] | np.uint8(Flag.CLOSED))
    leave(state, node, others, at)
    return int(still.sum())


def _continue(old: Block, kept: NDArray[np.intp], rows: Columns, skipped: NDArray[np.int64], *, another: bool) -> Columns:
    """The found rows as they go on, with their bases: counters as they arrive, and what was known before. That a generation ended is said,
    or shows."""
    was = old.take(kept)
    corrected = (rows["cookie"] != 0) & (was["recv"] - rows["recv"] == 1)  # an inexact count
    ended = np.logical_or.reduce([(rows[name] < was[name]) & ~(corrected & (name == "recv")) for name in COUNTED])
    if another:
        ended |= rows["cookie"] == 0
    ended = np.where(skipped < 0, ended, skipped > 0)
    goes_on = dict(rows)
    for name in COUNTED:
        goes_on[f"base_{name}"] = added(name, was[f"base_{name}"], np.where(ended, was[name], 0).astype(np.uint64))
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
    for name, amount in grown.items():  # where the base has stopped at its limit, a new generation brings all that it counted
        stopped = after[name] + np.uint64(1) < before[name]
        amount[stopped] = new.columns[name][slots[stopped]]
    state.edges.grew(cells, grown, at)
    hidden = np.flatnonzero(new.columns["flags"][slots] & Flag.SETTLED == 0)
    state.edges.hide(cells[hidden], {name: amount[hidden] for name, amount in grown.items()})
    keep_exported(state, new, slots, cells, grown["recv"])
    state.edges.closed(cells, _still(old, kept) - _still(new, slots))


def _still(block: Block, slots: NDArray[np.intp]) -> NDArray[np.uint64]:
    """1 for a row that counts as an open connection of its edge, else 0."""
    counts: NDArray[np.bool_] = block.columns["flags"][slots] & np.uint8(Flag.CLOSED | Flag.FOLDED) == 0
    return counts.astype(np.uint64)
