"""Rows of two tables with the same identity, found without a Python object per row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import Columns

MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(29))  # multipliers and shift, as in splitmix64


def match(old: Columns, new: Columns) -> NDArray[np.intp]:
    """For each new row the index of the old one that is equal in every column, -1 for none; no old row is taken twice.

    Of several equal rows the first new one gets the first old one, and so on. Both have the same columns.
    """
    olds, news = len(next(iter(old.values()))), len(next(iter(new.values())))
    both = {name: np.concatenate([old[name], new[name]]) for name in old}
    found = np.full(news, -1, np.intp)
    if not olds or not news:
        return found
    order, first = groups(both)
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    olds_in = np.add.reduceat((order < olds).astype(np.intp), starts)
    place = np.arange(len(order)) - starts[group]  # within the group, old rows first
    rank = place - olds_in[group]
    paired = (order >= olds) & (rank < olds_in[group])
    found[order[paired] - olds] = order[starts[group[paired]] + rank[paired]]
    return found


def groups(columns: Columns) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """An order that puts equal rows together and keeps them in order, and where in it each group begins."""
    order = np.argsort(_hash(columns), kind="stable")
    first = _differs(columns, order)
    hashed = _hash(columns)[order]
    if bool((first[1:] & (hashed[1:] == hashed[:-1])).any()):  # two identities with one hash: sort by the identities themselves
        order = np.lexsort([*columns.values()])
        first = _differs(columns, order)
    return order, first


def _differs(columns: Columns, order: NDArray[np.intp]) -> NDArray[np.bool_]:
    first = np.ones(len(order), np.bool_)
    first[1:] = False
    for column in columns.values():
        ordered = column[order]
        first[1:] |= ordered[1:] != ordered[:-1]
    return first


def _hash(columns: Columns) -> NDArray[np.uint64]:
    mixed: NDArray[Any] = np.zeros(len(next(iter(columns.values()))), np.uint64)
    for column in columns.values():
        mixed = (mixed ^ column.astype(np.uint64)) * MIX[0]
        mixed = (mixed ^ (mixed >> MIX[2])) * MIX[1]
    hashed: NDArray[np.uint64] = mixed ^ (mixed >> MIX[2])
    return hashed
