"""The row that everything in the tracer passes on: one socket, as the kernel last told it, with its owner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TCP, UDP = 0, 1  # a tracer's `type`
COUNTERS = ("sent", "received", "retransmits")

Rows = NDArray[np.void]  # shape (n,), dtype ROW
Keys = NDArray[np.uint64]

ROW = np.dtype(
    [
        ("key", np.uint64),  # cookie and namespace in one; see `keys_of`
        ("cookie", np.uint64),  # the kernel's number of the socket
        ("cgroup_id", np.uint64),  # 0: not known
        ("sent", np.uint64),  # payload bytes
        ("received", np.uint64),  # payload bytes; straight from the kernel a FIN counts as one
        ("raw_received", np.uint64),  # as the kernel counts
        ("updated", np.uint64),  # ns since boot of the last activity
        ("ct_sent", np.uint64),  # what that entry had counted
        ("ct_received", np.uint64),
        ("missing", np.uint64),  # ns since boot since when dumps lack it though nothing told of its end; 0: seen
        ("close_id", np.uint64),  # 0: open
        ("source", np.uint32, (4,)),  # the local end, 16 bytes in network order, IPv4 as v4-mapped
        ("dest", np.uint32, (4,)),
        ("nat_source", np.uint32, (4,)),  # conntrack's reply tuple
        ("nat_dest", np.uint32, (4,)),
        ("net_ns", np.uint32),
        ("ct_id", np.uint32),  # the conntrack entry that the bytes of a UDP row are from
        ("inode", np.uint32),  # 0: not accepted yet, or no process has it open any more
        ("pid", np.uint32),  # 0: not known
        ("retransmits", np.uint32),
        ("rqueue", np.uint32),  # bytes received and not read, a FIN included
        ("sport", np.uint16),
        ("dport", np.uint16),
        ("nat_sport", np.uint16),
        ("nat_dport", np.uint16),
        ("family", np.uint8),  # 0 IPv4, 1 IPv6
        ("protocol", np.uint8),  # TCP or UDP
        ("tcp_state", np.uint8),
        ("direction", np.uint8),  # 1 incoming, 2 outgoing, 3 local
        ("bytes_known", np.bool_),
        ("recv_exact", np.bool_),  # False: `received` may be one too high
        ("nat", np.bool_),  # whether the nat_* say something
    ]
)


def new_rows(count: int) -> Rows:
    """Rows of zeros."""
    return np.zeros(count, ROW)


def join(parts: list[Rows]) -> Rows:
    """All parts in one."""
    return np.concatenate(parts) if parts else new_rows(0)


def keys_of(rows: Rows, net_ns: int) -> Keys:
    """Numbers that tell sockets apart over all namespaces: kernels before 5.10 count cookies in each of them."""
    keys: Keys = rows["cookie"] ^ np.uint64(net_ns << 32)
    return keys


def find(keys: Keys, wanted: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each wanted key is in the sorted `keys`, and whether it is there at all (else its place means nothing)."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted


def by_key(rows: Rows) -> Rows:
    """The same rows, sorted by key."""
    ordered: Rows = rows[np.argsort(rows["key"], kind="stable")]
    return ordered


ENDS = ("net_ns", "protocol", "source", "dest", "sport", "dport")
MIX = np.random.default_rng(11).integers(1, 1 << 63, 12, np.uint64) * np.uint64(2) + np.uint64(1)


def mixed(rows: NDArray[np.void]) -> NDArray[np.uint64]:
    """One number for the two ends of each row (fields ENDS), equal where they are. Shape (n,)."""
    total: NDArray[np.uint64] = rows["net_ns"].astype(np.uint64) * MIX[0]
    total += (rows["protocol"].astype(np.uint64) << np.uint64(32)) * MIX[1]
    total += (rows["sport"].astype(np.uint64) << np.uint64(16) | rows["dport"].astype(np.uint64)) * MIX[2]
    for place, name in ((3, "source"), (7, "dest")):
        total += rows[name].astype(np.uint64) @ MIX[place : place + 4]
    total ^= total >> np.uint64(29)
    return total


def match_ends(rows: NDArray[np.void], others: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each row, the place of the first of `others` with the same two ends, and whether there is one. Both have the fields ENDS."""
    numbers = mixed(others)
    order = np.argsort(numbers, kind="stable")
    places, found = find(numbers[order], mixed(rows))
    if not len(others):
        return places, found
    places = order[places]
    for name in ENDS:
        same = rows[name] == others[name][places]
        found &= same if same.ndim == 1 else same.all(axis=1)
    return places, found
