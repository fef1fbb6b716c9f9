"""Which edge a row belongs to, and when its bytes enter what is exported.

A row has an edge once its local end is known, and is settled once both ends are; after SETTLE_AFTER it is settled with what is known then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import DESCRIBED, USED, Block
from cluster.core.checkpoint import Columns
from cluster.core.edges import Amounts, Key
from cluster.core.ends import UNATTRIBUTED, is_client
from cluster.core.records import Flag
from cluster.core.state import Node, State

SETTLE_AFTER = 60  # s
ENDS = ("local", "remote", "dest", "protocol", "sport", "dport", "role", "direction", "cell", "flags")
Slots = NDArray[np.intp]


def place(state: State, node: Node, block: Block, slots: Slots, at: float, *, fresh: bool = False, force: bool = False) -> None:
    """Put rows on the edge that they belong to now, and settle those that are ready; with `force`, all of them. `fresh`: they are new."""
    if not len(slots):
        return
    rows = {name: block.columns[name][slots] for name in ENDS}
    cells, sure = _cells(state, node, rows, at, force=force)
    moved = np.ones(len(slots), np.bool_) if fresh else cells != rows["cell"]
    if moved.any():
        _move(state, block, slots[moved], rows["cell"][moved], cells[moved], fresh=fresh)
    settle = (sure | force) & (rows["flags"] & Flag.SETTLED == 0)
    _settle(state, block, slots[settle], cells[settle])


def _move(state: State, block: Block, slots: Slots, old: NDArray[np.uint32], new: NDArray[np.uint32], *, fresh: bool) -> None:
    amounts = amounts_of(block, slots)
    if fresh:
        state.edges.join(new.astype(np.intp), amounts)
        state.edges.hide(new.astype(np.intp), amounts.sums)
    else:
        state.edges.move(old.astype(np.intp), new.astype(np.intp), amounts)
        state.counters["moved"] += int(np.count_nonzero(old))
    block.columns["cell"][slots] = new
    block.mark(slots, DESCRIBED)


def _settle(state: State, block: Block, slots: Slots, cells: NDArray[np.uint32]) -> None:
    if len(slots):
        state.edges.show(cells.astype(np.intp), amounts_of(block, slots).sums)
        block.set_flags(slots, block.columns["flags"][slots] | np.uint8(Flag.SETTLED))


def amounts_of(block: Block, slots: Slots) -> Amounts:
    """What these rows bring to an edge. A fold row brings bytes alone: how many connections it sums is not known."""
    flags = block.columns["flags"][slots]
    single = (flags & Flag.FOLDED == 0).astype(np.uint64)
    still = (flags & (Flag.FOLDED | Flag.CLOSED) == 0).astype(np.uint64)
    return Amounts({**block.totals(slots), "opened": single}, still)


def _cells(state: State, node: Node, rows: Columns, at: float, *, force: bool) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """The cell of each row, 0 where the local end is not known, and whether both ends are."""
    local, remote = rows["local"], rows["remote"].copy()
    sure = local != 0
    unsaid = np.flatnonzero(remote == 0)
    if len(unsaid):
        remote[unsaid], known = state.ends.remotes(node.name, rows["dest"][unsaid])
        sure[unsaid] &= known
    unknown = (local == 0) & (force | (rows["cell"] != 0))  # once it has an edge, a row always has one
    if unknown.any():
        local = np.where(unknown, np.uint32(state.texts.number(UNATTRIBUTED)), local)
    cells = np.zeros(len(local), np.uint32)
    named = np.flatnonzero(local)
    ends = {name: column[named] for name, column in (rows | {"local": local, "remote": remote}).items()}
    cells[named] = _numbered(state, ends, at)
    return cells, sure


def _numbered(state: State, rows: Columns, at: float) -> NDArray[np.uint32]:
    """The cell of each row; each distinct edge is looked up once."""
    client_side = is_client(rows)
    ends = np.where(client_side, rows["local"], rows["remote"]).astype(np.uint64) << np.uint64(32)
    ends |= np.where(client_side, rows["remote"], rows["local"]).astype(np.uint64)
    pairs, pair = np.unique(ends, return_inverse=True)
    port = np.where(client_side, rows["dport"], rows["sport"]).astype(np.uint64)
    how = rows["protocol"].astype(np.uint64) << np.uint64(17) | port << np.uint64(1) | ~client_side
    distinct, which = np.unique(pair.astype(np.uint64) << np.uint64(25) | how, return_inverse=True)
    texts = state.texts.values
    cells = np.empty(len(distinct), np.uint32)
    for index, packed in enumerate(distinct.tolist()):
        pair_of = int(pairs[packed >> 25])
        key = Key(texts[pair_of >> 32], texts[pair_of & 0xFFFFFFFF], "", packed >> 17 & 0xFF, packed >> 1 & 0xFFFF)
        cells[index] = 2 * state.edges.number(key, at) + (packed & 1)
    return cells[which]


def settle_due(state: State, node: Node, at: float) -> None:
    """Settle the rows whose time has come, with what is known."""
    block = node.block
    if not block.unsettled:
        return
    columns = block.columns
    waiting = (block.marks[: block.size] & USED > 0) & (columns["flags"][: block.size] & Flag.SETTLED == 0)
    due = np.flatnonzero(waiting & (columns["first_seen"][: block.size] <= at - SETTLE_AFTER))
    place(state, node, block, due, at, force=True)


def place_moved(state: State, at: float) -> None:
    """Metadata changed who some addresses are: place the rows that rest on it again."""
    moved, state.metadata.moved = state.metadata.moved, set()
    numbers = state.numbers_of_addresses(sorted(moved))
    if not len(numbers):
        return
    state.ends.forget(numbers)
    concerned = np.zeros(len(state.addresses), np.bool_)
    concerned[numbers] = True
    for node in state.nodes.values():
        columns, size = node.block.columns, node.block.size
        rests = (node.block.marks[:size] & USED > 0) & (columns["remote"][:size] == 0) & concerned[columns["dest"][:size]]
        place(state, node, node.block, np.flatnonzero(rests), at)
