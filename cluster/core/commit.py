"""What changed since the last commit, as one `Commit`. It holds copies: nothing of the aggregate is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import DESCRIBED, NAMED, NATIVE, TOUCHED, USED, Block
from cluster.core.checkpoint import COUNTERS, NO_SLOT, ROW, Columns, Commit, Rows
from cluster.core.intern import compact
from cluster.core.records import format_address
from cluster.core.state import Node, State


def begin(state: State, at: float) -> Commit | None:
    """Everything new, from now on in flight; None where there is nothing, or a commit is under way."""
    dirty = [node for node in state.nodes.values() if node.dirty]
    if state.in_flight is not None or not (dirty or state.metadata.changed or any(_waiting(state))):
        return None
    state.commits += 1
    commit = Commit(
        number=state.commits,
        fence=state.fence,
        at=at,
        rows=_rows(state),
        changed=_changed(state),
        nodes=tuple(node.state() for node in dirty),
        edges=tuple(map(state.edges.edge, state.edges.changed())),
        metadata={address: _record(state, address) for address in sorted(state.metadata.changed)},
        counters=dict(state.counters),
        removed=np.concatenate([np.empty(0, np.int64), *state.removed]),
    )
    state.in_flight = (commit.number, {node.name: (node.incarnation, node.applied) for node in dirty})
    _clean(state, dirty)
    return commit


def _waiting(state: State) -> Iterable[bool]:
    yield bool(state.departed or state.removed)
    yield state.counters != state.counters_kept
    yield from (block.dirty for node in state.nodes.values() for block, _ in node.blocks)


def _record(state: State, address: str) -> dict[str, dict[str, object]] | None:
    sources = state.metadata.records.get(address)
    return None if sources is None else {source: dict(by_uid) for source, by_uid in sources.items()}


def _clean(state: State, dirty: list[Node]) -> None:
    for node in dirty:
        node.dirty = False
    for node in state.nodes.values():
        for block, _ in node.blocks:
            if block.dirty:
                block.marks &= np.uint8(~(DESCRIBED | TOUCHED) & 0xFF)
                block.dirty = False
    state.departed, state.removed, state.metadata.changed = [], [], set()
    state.counters_kept = Counter(state.counters)


def _slots(block: Block, wanted: int) -> NDArray[np.intp]:
    """Slots in use whose change is exactly this: DESCRIBED whatever else, or TOUCHED alone."""
    marks = block.marks[: block.size] if block.dirty else block.marks[:0]
    mask = USED | DESCRIBED if wanted == DESCRIBED else USED | DESCRIBED | TOUCHED
    return np.flatnonzero(marks & np.uint8(mask) == (USED | wanted))


def _rows(state: State) -> Rows:
    chunks = [described(rows, NO_SLOT) for rows in state.departed]
    for node in state.nodes.values():
        for block, first in node.blocks:
            if len(slots := _slots(block, DESCRIBED)):
                rows = block.take(slots)
                chunks.append(described(rows | {"node": np.full(len(slots), node.number, np.uint32)}, slots + first))
    return with_tables(state, join(chunks))


def described(rows: Columns, slots: NDArray[np.intp] | int) -> Columns:
    """ROW columns of `Block.take` and node; addresses and texts are still the aggregate's numbers."""
    cells = rows["cell"].astype(np.int64)
    whole = rows | {"edge": np.where(cells, cells >> 1, -1), "slot": np.broadcast_to(np.uint32(0), len(cells)) + np.uint32(slots)}
    return {name: whole[name].astype(dtype, copy=False) for name, dtype in ROW.items()}


def join(chunks: list[Columns]) -> Columns:
    """Chunks of ROW columns as one."""
    return {name: np.concatenate([np.empty(0, dtype), *(chunk[name] for chunk in chunks)]) for name, dtype in ROW.items()}


def with_tables(state: State, columns: Columns) -> Rows:
    """Rows with tables that hold only what they use; text 0 stays the empty one."""
    if not len(columns["uid"]):
        return Rows(columns, node_names=tuple(state.nodes))
    (source, dest), addresses = compact([columns["source"], columns["dest"]], state.addresses.values)
    (_, *named), texts = compact([np.zeros(1, np.uint32), *(columns[name] for name in NAMED)], state.texts.values)
    columns = columns | {"source": source, "dest": dest} | dict(zip(NAMED, named, strict=True))
    return Rows(columns, tuple(map(format_address, addresses)), tuple(texts), tuple(state.nodes))


def _changed(state: State) -> Columns:
    names = ("uid", *COUNTERS)
    chunks = []
    for node in state.nodes.values():
        for block, _ in node.blocks:
            if len(slots := _slots(block, TOUCHED)):
                rows = block.take(slots, [name for name in names if name in NATIVE])
                chunks.append({name: rows[name].astype(ROW[name], copy=False) for name in names})
    return {name: np.concatenate([np.empty(0, ROW[name]), *(chunk[name] for chunk in chunks)]) for name in names}
