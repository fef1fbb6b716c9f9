"""The other row of a connection that stays on this node: the one with the two ends exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]
Words = NDArray[np.uint64]


def _tuples(columns: Columns, which: Indices, *, exchanged: bool) -> tuple[Words, Words]:
    """Both addresses as one number, and ports and protocol as another."""
    near, far = ("dest", "source") if exchanged else ("source", "dest")
    near_port, far_port = ("dport", "sport") if exchanged else ("sport", "dport")
    wide = {name: columns[name][which].astype(np.uint64) for name in (near, far, near_port, far_port, "protocol")}
    return wide[near] << np.uint64(32) | wide[far], wide[near_port] << np.uint64(24) | wide[far_port] << np.uint64(8) | wide["protocol"]


def _mixed(addresses: Words, ports: Words) -> Words:
    return addresses * np.uint64(0x9E3779B97F4A7C15) ^ ports


def _listed(addresses: Words, ports: Words, slots: Indices, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
    return zip(addresses[chosen].tolist(), ports[chosen].tolist(), slots[chosen].tolist(), strict=True)


def mirrored(columns: Columns, which: Indices, among: Indices) -> Indices:
    """For each row of `which` its mirrored row among `among`, -1 for none: the one in the same namespace, else the only one there is.

    Several candidates with one owner are as good as one (two sockets of a process); with different owners there is no answer.
    """
    wanted = _tuples(columns, which, exchanged=True)
    held = _tuples(columns, among, exchanged=False)
    likely = np.isin(_mixed(*held), _mixed(*wanted))  # few connections stay on the node
    hopeful = np.isin(_mixed(*wanted), _mixed(*held)[likely])
    rows: dict[tuple[int, int], list[int]] = {}
    for addresses, ports, slot in _listed(*held, among, likely):
        rows.setdefault((addresses, ports), []).append(slot)
    net_ns, local = columns["net_ns"], columns["local"]
    found = np.full(len(which), -1, np.int64)
    for index, (addresses, ports, slot) in zip(np.flatnonzero(hopeful).tolist(), _listed(*wanted, which, hopeful), strict=True):
        candidates = [other for other in rows.get((addresses, ports), ()) if other != slot]
        same = [other for other in candidates if net_ns[other] == net_ns[slot]]
        candidates = same or candidates
        if candidates and len({int(local[other]) for other in candidates}) == 1:
            found[index] = candidates[0]
    return found
