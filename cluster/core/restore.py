"""The aggregate as a checkpoint left it."""

from __future__ import annotations

import numpy as np

from cluster.core.block import COUNTED, NAMED, NATIVE
from cluster.core.checkpoint import NO_SLOT, Checkpoint, Columns, Rows
from cluster.core.ends import EXTERNAL, is_client
from cluster.core.placing import amounts_of
from cluster.core.records import SUM_LIMITS, pack_address
from cluster.core.state import FOLD_SLOT, AggregateLimits, State


def restore(checkpoint: Checkpoint, limits: AggregateLimits) -> State:
    """Everything as at that commit; what a node has applied is what is durable."""
    state = State(checkpoint.fence, limits)
    state.next_uid = checkpoint.next_uid
    state.counters.update(checkpoint.counters)
    state.counters_kept.update(checkpoint.counters)
    state.edges.restore(checkpoint.edges)
    state.ends.externals.update(name for key in state.edges.keys for name in (key.client, key.server) if name.startswith(EXTERNAL))
    state.metadata.restore(checkpoint.metadata)
    for kept in checkpoint.nodes:
        node = state.node(kept.node)
        node.incarnation, node.stream, node.applied = kept.incarnation, kept.stream, kept.applied
        node.instance, node.closed_through, node.status = kept.instance, kept.closed_through, kept.status
        node.durable = (kept.incarnation, kept.applied)
    if len(checkpoint.rows):
        _restore_rows(state, checkpoint.rows)
    _restore_unplaced(state)
    return state


def native(rows: Rows, addresses: np.ndarray[tuple[int], np.dtype[np.intp]], texts: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Columns:
    """ROW columns as NATIVE ones and `base_*`; `addresses` and `texts` renumber the rows' tables."""
    given = rows.columns
    columns = dict(given)
    for name, numbers in (("source", addresses), ("dest", addresses), *((name, texts) for name in NAMED)):
        columns[name] = numbers[given[name]]
    edge = given["edge"]
    columns["cell"] = np.where(edge < 0, 0, 2 * edge + ~is_client(given))
    for name in ("first_seen", "last_seen"):
        columns[name] = np.clip(given[name], 0, np.iinfo(np.uint32).max)
    wanted = {name: columns[name].astype(dtype) for name, dtype in NATIVE.items()}
    return wanted | {f"base_{name}": given[f"base_{name}"] for name in COUNTED}


def _restore_rows(state: State, rows: Rows) -> None:
    addresses = state.addresses.numbers([*map(pack_address, rows.addresses)])
    texts = state.texts.numbers(rows.texts)
    columns = native(rows, addresses, texts)
    for name, limit in SUM_LIMITS.items():  # an older release did not stop its sums
        columns |= {each: np.minimum(columns[each], columns[each].dtype.type(limit)) for each in (name, f"base_{name}")}
    slots = rows.columns["slot"].astype(np.intp)
    for index, name in enumerate(rows.node_names):
        for folds in (False, True):
            here = (rows.columns["node"] == index) & (slots != NO_SLOT) & ((slots >= FOLD_SLOT) == folds)
            if here.any():
                node = state.node(name)
                block = node.folds if folds else node.block
                places = slots[here] - FOLD_SLOT * folds
                chosen = {name: column[here] for name, column in columns.items()}
                block.fill(places, chosen)
                based = np.logical_or.reduce([chosen[f"base_{name}"] > 0 for name in COUNTED])
                block.bases.add(places[based], {name: chosen[f"base_{name}"][based] for name in COUNTED})
                block.marks[places] = 1
                block.dirty = False


def _restore_unplaced(state: State) -> None:
    """Cell 0, the rows without an edge, is not stored: it is summed anew; so is nothing of it exported."""
    for block in (block for node in state.nodes.values() for block, _ in node.blocks):
        slots = block.used()
        slots = slots[block.columns["cell"][slots] == 0]
        amounts = amounts_of(block, slots)
        cells = np.zeros(len(slots), np.intp)
        state.edges.join(cells, amounts)
        state.edges.hide(cells, amounts.sums)
