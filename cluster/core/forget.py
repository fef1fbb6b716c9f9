"""Shared tables stay as large as what the rows use: addresses and texts that no row has any more are dropped, and the others renumbered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import NAMED, Block
from cluster.core.state import State


def forget_unused(state: State) -> None:
    """Drop addresses and texts that no row has any more, once they are the greater part. Not while departed rows wait to be committed."""
    if state.departed:
        return
    blocks = [block for node in state.nodes.values() for block, _ in node.blocks]
    for table, names in ((state.addresses, ("source", "dest")), (state.texts, NAMED)):
        if len(table) < table.worth_a_look:
            continue
        renumbered = table.keep(_used(blocks, names, len(table)))
        for block in blocks:
            for name in names:
                block.columns[name][: block.size] = renumbered[block.columns[name][: block.size]]
            block.version += 1
            block.description += 1
        state.ends.forget_all()


def _used(blocks: list[Block], names: tuple[str, ...], size: int) -> NDArray[np.bool_]:
    """Which numbers of a table these columns use."""
    used = np.zeros(size, np.bool_)
    for block in blocks:
        slots = block.used()
        for name in names:
            used[block.columns[name][slots]] = True
    return used
