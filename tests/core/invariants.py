"""What must hold of an aggregate after every event."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.core.aggregate import Aggregate
from cluster.core.block import DESCRIBED, TOUCHED, USED, Block
from cluster.core.edges import SUMS, TOTAL_LIMIT
from cluster.core.ends import is_client
from cluster.core.placing import amounts_of
from cluster.core.records import Flag

HUGE = 1 << 60
Amount = NDArray[np.uint64]


class Invariants:
    """Checks one aggregate again and again; what never falls is remembered from one check to the next."""

    def __init__(self) -> None:
        self._departed: dict[str, Amount] = {}
        self._exported: dict[str, Amount] = {}

    def check(self, aggregate: Aggregate) -> None:
        state = aggregate.state
        edges = state.edges
        cells = 2 * len(edges.keys)
        held = {name: np.zeros(cells, np.uint64) for name in (*SUMS, "open")}
        uids: list[int] = []
        for node in state.nodes.values():
            for block, _ in node.blocks:
                check_block(block)
                slots = block.used()
                uids += block.columns["uid"][slots].tolist()
                where = block.columns["cell"][slots].astype(np.intp)
                assert where.max(initial=0) < cells
                clients = is_client({name: column[slots] for name, column in block.columns.items()})
                assert ((where == 0) | ((where & 1 == 0) == clients)).all(), "a row in the other end's view"
                settled = block.columns["flags"][slots] & Flag.SETTLED > 0
                assert not (settled & (where == 0)).any(), "a settled row without an edge"
                amounts = amounts_of(block, slots)
                for name in SUMS:
                    np.add.at(held[name], where, amounts.sums[name])
                np.add.at(held["open"], where, amounts.open)
        assert len(set(uids)) == len(uids)
        assert max(uids, default=0) < state.next_uid
        for name in SUMS:
            assert (edges.total[name] <= TOTAL_LIMIT).all()
            assert (edges.total[name] + edges.less[name] <= TOTAL_LIMIT).all()
            self._never_falls(self._exported, name, edges.total[name][:cells] + edges.less[name][:cells])
        assert (edges.total["open"][:cells] == held["open"]).all()
        for name in SUMS:
            assert (edges.total[name][cells:] == 0).all()
            if (edges.total[name] >= HUGE).any():  # sums that stop at their limits are no differences any more
                continue
            self._never_falls(self._departed, name, edges.total[name][:cells] - held[name])
            assert edges.total[name][0] == held[name][0], "a row left without an edge"
            assert not (edges.total[name][:1] + edges.less[name][:1]).any(), "something without an edge is exported"

    def _never_falls(self, before: dict[str, Amount], name: str, now: Amount) -> None:
        was = before.get(name, now[:0])
        assert (now <= TOTAL_LIMIT).all(), f"{name}: below nothing"
        assert (now[: len(was)] >= was).all(), f"{name} fell"
        before[name] = now


def check_block(block: Block) -> None:
    used = block.used()
    flags = block.columns["flags"][used]
    assert block.rows == len(used)
    assert block.closed == np.count_nonzero(flags & Flag.CLOSED)
    assert block.unsettled == np.count_nonzero(flags & Flag.SETTLED == 0)
    assert block.dirty or not (block.marks & (DESCRIBED | TOUCHED)).any()
    assert not (block.marks[block.size :] & USED).any()
