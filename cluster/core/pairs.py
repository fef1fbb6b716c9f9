"""The two views of one connection, found by its addresses and ports: the row of the end that opened it, and that of the end it reached.

Both rows have the client's address and port (the client as its own, the server as the other end's) unless something translated it between
them, and were open at the same time. What the server's own address and port may be is the caller's to say: the endpoints behind a Service,
or just the address that the client names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
Places = NDArray[np.intp]
APART = 10.0  # s by which the times of two ends of one connection may differ: two polls, a late one, and two clocks


@dataclass(frozen=True, slots=True)
class Matched:
    """Indices into the client rows and the server rows, pair by pair, and how many client rows had several possible ends."""

    client: Places
    server: Places
    ambiguous: int


def endpoint(addresses: NDArray[Any], ports: NDArray[Any], protocol: NDArray[Any]) -> NDArray[np.uint64]:
    """(address number, port, protocol) as one number."""
    packed: NDArray[np.uint64] = addresses.astype(np.uint64) << np.uint64(24)
    packed = packed | ports.astype(np.uint64) << np.uint64(8)
    return packed | protocol.astype(np.uint64)


def pair(clients: Columns, servers: Columns, reached: Sequence[frozenset[int] | set[int]]) -> Matched:
    """Pair each client row with the one server row that can be its other end, where exactly one can and it can be no other's.

    Rows have `own` and `other` (u64, `endpoint` of each end), `since` and `until` (s since 1970); `reached[i]` holds the `own` that the
    server of client row i may have.
    """
    candidates = _candidates(clients["own"], servers["other"])
    possible = [
        (client, server)
        for client, server in zip(*(side.tolist() for side in candidates), strict=True)
        if servers["own"].item(server) in reached[client] and _together(clients, client, servers, server)
    ]
    if not possible:
        return Matched(np.zeros(0, np.intp), np.zeros(0, np.intp), 0)
    client, server = (np.array(side, np.intp) for side in zip(*possible, strict=True))
    alone = (np.bincount(client)[client] == 1) & (np.bincount(server)[server] == 1)
    return Matched(client[alone], server[alone], len(np.unique(client[~alone])))


def _candidates(client: NDArray[np.uint64], server: NDArray[np.uint64]) -> tuple[Places, Places]:
    """All pairs of indices with equal values."""
    order = np.argsort(server, kind="stable")
    ranked = server[order]
    first, last = np.searchsorted(ranked, client, "left"), np.searchsorted(ranked, client, "right")
    counts = last - first
    which = np.repeat(np.arange(len(client)), counts)
    offsets = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return which, order[np.repeat(first, counts) + offsets]


def _together(clients: Columns, client: int, servers: Columns, server: int) -> bool:
    """Whether the two may have been open at the same time."""
    return bool(
        clients["since"].item(client) <= servers["until"].item(server) + APART
        and servers["since"].item(server) <= clients["until"].item(client) + APART
    )
