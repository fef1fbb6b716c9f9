"""The other row of a connection that stays on this node: the one with the two ends exchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]
_TUPLE = np.dtype([("near", "<u4"), ("far", "<u4"), ("near_port", "<u2"), ("far_port", "<u2"), ("protocol", "u1")])


def _tuples(columns: Columns, which: Indices, *, exchanged: bool) -> list[bytes]:
    near, far = ("dest", "source") if exchanged else ("source", "dest")
    near_port, far_port = ("dport", "sport") if exchanged else ("sport", "dport")
    keys = np.empty(len(which), _TUPLE)
    for field, name in (("near", near), ("far", far), ("near_port", near_port), ("far_port", far_port), ("protocol", "protocol")):
        keys[field] = columns[name][which]
    listed: list[bytes] = keys.view(f"S{_TUPLE.itemsize}").tolist()
    return listed


def mirrored(columns: Columns, which: Indices, among: Indices) -> Indices:
    """For each row of `which` its mirrored row among `among`, -1 for none: the one in the same namespace, else the only one there is.

    Several candidates with one owner are as good as one (two sockets of a process); with different owners there is no answer.
    """
    rows: dict[bytes, list[int]] = {}
    for key, slot in zip(_tuples(columns, among, exchanged=False), among.tolist(), strict=True):
        rows.setdefault(key, []).append(slot)
    net_ns, local = columns["net_ns"], columns["local"]
    found = np.full(len(which), -1, np.int64)
    for index, (key, slot) in enumerate(zip(_tuples(columns, which, exchanged=True), which.tolist(), strict=True)):
        candidates = [other for other in rows.get(key, ()) if other != slot]
        same = [other for other in candidates if net_ns[other] == net_ns[slot]]
        candidates = same or candidates
        if candidates and len({int(local[other]) for other in candidates}) == 1:
            found[index] = candidates[0]
    return found
