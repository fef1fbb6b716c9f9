"""Whose a connection is that neither a process nor a listener explains: of the one container that its network namespace holds, if all
else that is known of the namespace is that container's, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.attribution import Texts, WorkloadOf
from cluster.core.records import Flag
from cluster.core.slots import FREE, OPEN, Indices, Slots

Columns = dict[str, NDArray[Any]]
OwnerOf = Callable[[int], str]  # net_ns -> the workload of the one container in it, "" for any other namespace


def nobody(_: int) -> str:
    """No namespace is known to hold exactly one container."""
    return ""


def by_namespace(slots: Slots, opened: Indices, listeners: Columns, texts: Texts, workload_of: WorkloadOf, owner_of: OwnerOf) -> Indices:
    """Fill `local` of rows that have none, open or just closed; returns them. `listeners` has net_ns and pid."""
    single = (slots["state"] != FREE) & ((slots["flags"] & Flag.FOLDED) == 0)
    asked = (slots["pid"] == 0) | (slots["tries"] != 0)  # a pid that has only now become known comes first
    asked[opened] = True
    unowned = np.flatnonzero((slots["state"] == OPEN) & single & asked & (slots["local"] == 0))
    distinct, place = np.unique(slots["net_ns"][unowned], return_inverse=True)
    owners = {net_ns: owner for net_ns in distinct.tolist() if (owner := owner_of(net_ns))}
    if not owners:
        return unowned[:0]
    named = single & (slots["local"] != 0) & np.isin(slots["net_ns"], list(owners))
    for net_ns, local in _pairs(slots["net_ns"][named], slots["local"][named]):
        _check(owners, net_ns, texts.listed[local])
    listening = np.isin(listeners["net_ns"], list(owners)) & (listeners["pid"] != 0)
    for net_ns, pid in _pairs(listeners["net_ns"][listening], listeners["pid"][listening]):
        _check(owners, net_ns, workload_of(pid))
    numbers = np.array([texts.number(owners.get(net_ns, "")) for net_ns in distinct.tolist()], np.uint32)
    slots.columns["local"][unowned] = numbers[place]
    filled: Indices = unowned[numbers[place] != 0]
    return filled


def _pairs(first: NDArray[Any], second: NDArray[Any]) -> list[tuple[int, int]]:
    """The distinct pairs of two columns of u32."""
    return [(pair >> 32, pair & 0xFFFFFFFF) for pair in np.unique(first.astype(np.uint64) << np.uint64(32) | second).tolist()]


def _check(owners: dict[int, str], net_ns: int, workload: str) -> None:
    """Where something else is in a namespace, too, it has no one owner."""
    if workload and owners.get(net_ns, workload) != workload:
        del owners[net_ns]
