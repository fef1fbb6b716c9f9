"""A checked sequence, applied: the hot path. Counters are whole columns; no Python object is made per row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import COUNTED, DESCRIBED, TOUCHED, USED, Block
from cluster.core.checkpoint import Columns
from cluster.core.joining import linger
from cluster.core.placing import Slots, amounts_of, place
from cluster.core.records import Flag, Role
from cluster.core.sequence import GIVEN, OURS, Batch, Before
from cluster.core.state import Node, State

LATER = Flag.BYTES_UNKNOWN | Flag.RECV_INEXACT  # the flags that may become others while a row is open
MINUS_ONE = np.uint64(2**64 - 1)  # u64 arithmetic is modulo 2^64


def opened_rows(state: State, batch: Batch, at: float) -> Columns:
    """The opened section as NATIVE columns, with numbers of the shared tables, without uids."""
    rows = dict(batch.opened)
    count = len(rows.pop("id"))
    addresses = state.addresses.numbers(batch.addresses)
    for name in ("source", "dest"):
        rows[name] = addresses[rows[name]].astype(np.uint32) if count else rows[name]
    texts = state.texts.numbers(batch.texts)
    for name in ("local", "remote"):
        rows[name] = texts[rows[name]].astype(np.uint32)
    rows["flags"] = rows["flags"] & np.uint8(GIVEN)
    rows["role"] = np.where(rows["role"] <= max(Role), rows["role"], np.uint8(Role.UNKNOWN))
    rows["cell"] = np.zeros(count, np.uint32)
    rows["service"] = np.zeros(count, np.uint32)
    rows["first_seen"] = rows["last_seen"] = np.full(count, int(at), np.uint32)
    return rows


def open_rows(state: State, node: Node, batch: Batch, at: float) -> None:
    """New rows; the closed ones whose slots they take leave."""
    slots = batch.opened["id"].astype(np.intp)
    if not len(slots):
        return
    block = node.block
    inside = slots[slots < block.size]
    leave(state, node, inside[block.marks[inside] & USED > 0], at)
    rows = opened_rows(state, batch, at)
    block.fill(slots, rows | {"uid": state.uids(len(slots))})
    state.counters["opened"] += len(slots)
    place(state, node, block, slots, at, fresh=True)


def leave(state: State, node: Node, slots: Slots, at: float) -> None:
    """Rows leave the node's block and stay in the store. Their bytes stay on their edges, settled, but for those that linger."""
    slots = slots[~linger(state, node, slots)] if len(slots) else slots
    if not len(slots):
        return
    block = node.block
    place(state, node, block, slots[block.columns["flags"][slots] & Flag.SETTLED == 0], at, force=True)
    state.depart(node, block.take(slots))
    block.empty(slots)


def change(state: State, node: Node, batch: Batch, before: Before, at: float) -> None:
    """New counters. `old = column[slots]; column[slots] = new; edge total += new - old`."""
    new, old, marks = batch.changed, before.counters, before.marks
    slots, reset = new["id"].astype(np.intp), before.reset
    if not (marks & USED).all():
        held = np.flatnonzero(marks & USED)
        state.counters["late"] += len(slots) - len(held)
        new, old = ({name: column[held] for name, column in columns.items()} for columns in (new, old))
        slots, marks, reset = slots[held], marks[held], np.flatnonzero(new["generation"] != old["generation"])
    if not len(slots):
        return
    block = node.block
    if len(reset):
        _begin_generations(block, slots[reset], reset, new, old)
        state.counters["generations"] += len(reset)
    _count(state, node, slots, {name: new[name] - old[name] for name in COUNTED}, at)
    for name in ("sent", "recv", "last_update"):
        block.columns[name][slots] = new[name]
    lost = np.flatnonzero(new["retransmits"] != old["retransmits"])
    block.columns["retransmits"][slots[lost]] = new["retransmits"][lost]
    block.columns["last_seen"][slots] = int(at)
    block.marks[slots] = marks | np.uint8(TOUCHED)
    block.changed()


def _begin_generations(block: Block, slots: Slots, places: Slots, new: Columns, old: Columns) -> None:
    """The old counters of these rows join their bases, and count from 0: `old` says so from now on."""
    block.bases.add(slots, {name: old[name][places] for name in COUNTED})
    for name in COUNTED:
        old[name][places] = 0
    block.columns["generation"][slots] = new["generation"][places]
    block.columns["retransmits"][slots] = 0


def _count(state: State, node: Node, slots: Slots, growth: Columns, at: float) -> None:
    block, cells = node.block, node.block.columns["cell"][slots].astype(np.intp)
    grown = {name: amount.astype(np.uint64, copy=False) for name, amount in growth.items() if amount.any()}
    state.edges.grew(cells, grown, at)
    if block.unsettled:
        hidden = np.flatnonzero(block.columns["flags"][slots] & Flag.SETTLED == 0)
        state.edges.hide(cells[hidden], {name: amount[hidden] for name, amount in grown.items()})
    keep_exported(state, block, slots, cells, growth["recv"])


def keep_exported(state: State, block: Block, slots: Slots, cells: Slots, recv: NDArray[np.uint64]) -> None:
    """A received byte that proved to be none leaves the edge's total; what is exported never falls, and keeps it."""
    corrected = np.flatnonzero(recv == MINUS_ONE)
    settled = corrected[block.columns["flags"][slots[corrected]] & Flag.SETTLED > 0]
    state.edges.show(cells[settled], {"recv": np.ones(len(settled), np.uint64)})


def attribute(state: State, node: Node, batch: Batch, at: float) -> None:
    """Owners and flags that became known, or changed. What is not known now does not undo what was, but of a fold row: that says only what
    is true of all that it sums."""
    given, block = batch.attributed, node.block
    held = block.marks[given["id"]] & USED > 0 if len(given["id"]) else np.zeros(0, np.bool_)
    slots = given["id"][held].astype(np.intp)
    if not len(slots):
        return
    texts, flags = state.texts.numbers(batch.texts), block.columns["flags"][slots]
    for name in ("pid", "local", "remote", "role"):
        value = texts[given[name][held]] if name in ("local", "remote") else given[name][held]
        said = (value != 0) | (flags & Flag.FOLDED > 0)
        block.columns[name][slots] = np.where(said, value, block.columns[name][slots])
    flags = np.where(flags & Flag.FOLDED > 0, flags & np.uint8(~Flag.SURE & 0xFF), flags)  # who it is may be less known than it was
    block.set_flags(slots, flags & np.uint8(~LATER & 0xFF) | given["flags"][held] & np.uint8(LATER))
    block.mark(slots, DESCRIBED)
    place(state, node, block, slots, at)


def close(state: State, node: Node, batch: Batch, at: float) -> None:
    """Rows that ended."""
    block, given = node.block, batch.closed
    held = block.marks[given["id"]] & USED > 0 if len(given["id"]) else np.zeros(0, np.bool_)
    slots = given["id"][held].astype(np.intp)
    if not len(slots):
        return
    state.edges.closed(block.columns["cell"][slots].astype(np.intp), amounts_of(block, slots).open)
    kept = block.columns["flags"][slots] & np.uint8(Flag.FOLDED | OURS)
    block.set_flags(slots, kept | given["flags"][held] & np.uint8(GIVEN))
    block.columns["last_seen"][slots] = int(at)
