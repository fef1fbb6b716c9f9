"""A collector that begins a new stream, and goes on from what the aggregate has of an earlier one: nothing is inferred, it is said.

For every row it says whether it is the one of the same slot, and the sum of the generations that ended since. Where the store was put
back to an older state, the collector has forgotten what was durable; how many generations are missing is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import COUNTED, NATIVE, USED, Block
from cluster.core.checkpoint import Columns
from cluster.core.errors import WireError
from cluster.core.sequence import Batch
from cluster.core.state import Node


@dataclass(frozen=True, slots=True)
class Carried:
    """What is said of each opened row, in their order."""

    said: NDArray[np.bool_]  # that anything is
    known: NDArray[np.bool_]  # the row of the same slot goes on
    first: NDArray[np.int64]  # the generation that the sums begin with
    sums: Columns  # COUNTED, of the generations that ended since


def carried(batch: Batch) -> Carried:
    """The section, spread over the opened rows."""
    given, count = batch.carried, len(batch.opened["id"])
    places = np.searchsorted(batch.opened["id"], given["id"])

    def spread(column: NDArray[np.generic], kind: type[np.generic]) -> NDArray[np.generic]:
        whole = np.zeros(count, kind)
        whole[places] = column
        return whole

    first = batch.opened["generation"].astype(np.int64)
    first[places] -= given["generations"]
    said = spread(np.ones(len(places)), np.bool_).astype(np.bool_)
    sums = {name: spread(given[name], NATIVE[name]) for name in COUNTED}
    return Carried(said, spread(given["known"], np.bool_).astype(np.bool_), first, sums)


def check_carried(batch: Batch, node: Node) -> None:
    """Refuse what does not go on from this node's rows. Raises WireError."""
    if batch.final.continues is None or not batch.resync:
        if len(batch.carried["id"]):
            raise WireError("carried: only for the first sequence of a stream that goes on from another")
        return
    if batch.final.continues != node.rests_on[:2]:
        raise WireError(f"final: goes on from {batch.final.continues}, and the rows are of {node.rests_on[:2]}")
    _check_counters(batch, node.block, carried(batch))


def _check_counters(batch: Batch, old: Block, said: Carried) -> None:
    given = batch.opened
    known = np.flatnonzero(said.known)
    known = known[holds(old, given["id"][known].astype(np.intp))]
    slots = given["id"][known].astype(np.intp)
    skipped = said.first[known] - old.columns["generation"][slots]
    if (said.first < 0).any() or (skipped < 0).any():
        raise WireError("carried: more generations than have ended")
    for name in COUNTED:
        before, now = old.columns[name][slots].astype(np.uint64), said.sums[name][known].astype(np.uint64) + given[name][known]
        fell = np.flatnonzero((skipped == 0) & (now + np.uint64(name == "recv") < before))  # recv: an inexact count, corrected
        if len(fell):
            raise WireError(f"carried: {name} of row {int(slots[fell[0]])} is less than it was")


def holds(block: Block, slots: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of these slots hold a row."""
    held: NDArray[np.bool_] = slots < block.size
    held[held] = block.marks[slots[held]] & USED > 0
    return held
