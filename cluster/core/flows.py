"""Flows: traffic between two named ends, of which every view of the map is made by lifting, filtering and folding.

The flows of workloads are the aggregate's edges. Those of pods and of nodes are summed from the rows that are held, since edges do not tell
pods apart: what was folded, or has left long ago, is not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import Columns
from cluster.core.edges import TOTALS, has_traffic
from cluster.core.ends import is_client
from cluster.core.records import Flag, format_address
from cluster.core.snapshot import Snapshot, Table

View = tuple[int, ...]  # TOTALS, as one end counts them
NOTHING: View = (0,) * len(TOTALS)
FOLDED = "folded"  # the end that stands for those of which there are too many to draw


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic between two ends, each end's view apart."""

    client: str
    server: str
    service: str
    protocol: int
    port: int  # the Service's, else the server's; 0 where several are summed
    views: tuple[View, View]  # the client's, the server's
    first_seen: float
    last_seen: float
    proof: tuple[int, int] = (0, 0)  # Proof bits of each view

    @property
    def bytes(self) -> int:
        """Both ways, as the end sees them that sees more."""
        return max(view[0] + view[1] for view in self.views)


def of_edges(snapshot: Snapshot) -> list[Flow]:
    """Between workloads, as the aggregate sums them."""
    return [
        Flow(
            edge.client,
            edge.server,
            edge.service,
            edge.protocol,
            edge.port,
            (edge.views[0][: len(TOTALS)], edge.views[1][: len(TOTALS)]),
            edge.first_seen,
            edge.last_seen,
            edge.proof,
        )
        for edge in snapshot.edges.values()
        if has_traffic(edge)
    ]


def lift(flows: Iterable[Flow], name: Callable[[str], str], *, ports: bool = True) -> list[Flow]:
    """The flows between what their ends belong to; without `ports`, Services, protocols and ports are summed, too."""
    lifted: dict[tuple[str, str, str, int, int], Flow] = {}
    for flow in flows:
        one = replace(flow, client=name(flow.client), server=name(flow.server))
        one = one if ports else replace(one, service="", port=0, protocol=0)
        key = (one.client, one.server, one.service, one.protocol, one.port)
        lifted[key] = one if key not in lifted else _sum(lifted[key], one)
    return list(lifted.values())


def _sum(one: Flow, other: Flow) -> Flow:
    views = tuple(tuple(map(sum, zip(*pair, strict=True))) for pair in zip(one.views, other.views, strict=True))
    return replace(
        one,
        views=(views[0], views[1]),
        first_seen=min(one.first_seen, other.first_seen),
        last_seen=max(one.last_seen, other.last_seen),
        proof=(one.proof[0] | other.proof[0], one.proof[1] | other.proof[1]),
    )


def fold_smallest(flows: list[Flow], budget: int) -> tuple[list[Flow], int]:
    """The flows with at most `budget` ends: those with the least traffic become one end, FOLDED; and how many it stands for."""
    weights: dict[str, int] = {}
    for flow in flows:
        for end in {flow.client, flow.server}:
            weights[end] = weights.get(end, 0) + flow.bytes
    if len(weights) <= budget:
        return flows, 0
    kept = set(sorted(weights, key=lambda end: (-weights[end], end))[: max(0, budget - 1)])
    return lift(flows, lambda end: end if end in kept else FOLDED), len(weights) - len(kept)


# From rows


def of_rows(snapshot: Snapshot, name: Callable[[str, str], str]) -> list[Flow]:
    """Between what `name(text, node)` calls the ends of each row: `text` is the workload or pod, `node` the node that it is on, "" where
    that is not known."""
    ends = _Ends(snapshot, name)
    sums: dict[tuple[int, int, int, int, int], list[Any]] = {}
    for table in snapshot.tables:
        _add(sums, table, *ends.of(table))
    return [_flow(snapshot, ends.names, key, sum_) for key, sum_ in sums.items()]


class _Ends:
    """The names of the two ends of rows, as numbers of `names`."""

    def __init__(self, snapshot: Snapshot, name: Callable[[str, str], str]) -> None:
        self._snapshot, self._name = snapshot, name
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._nodes = {text: node for address in snapshot.metadata for text, node in _pods(snapshot, address)}

    def of(self, table: Table) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(local, remote) of each row."""
        columns, snapshot = table.columns, self._snapshot
        keys = np.stack([columns["local"], columns["remote"], columns["dest"], columns["cell"], table.node]).astype(np.int64)
        distinct, which = np.unique(keys, axis=1, return_inverse=True)
        pairs = []
        for local, remote, dest, cell, node in distinct.T.tolist():
            edge = snapshot.edges.get(cell >> 1)
            own, other = ("", "") if edge is None else (edge.server, edge.client) if cell & 1 else (edge.client, edge.server)
            here = snapshot.nodes[node].node
            there = snapshot.texts[remote] or self._pod_at(format_address(snapshot.addresses[dest]), other)
            pairs.append((self._number(snapshot.texts[local] or own, here), self._number(there or other, self._nodes.get(there, ""))))
        numbers = np.array(pairs, np.intp).reshape(-1, 2)[which.ravel()]
        return numbers[:, 0], numbers[:, 1]

    def _pod_at(self, address: str, workload: str) -> str:
        """The one pod at an address that is no Service's."""
        found = [text for text, _ in _pods(self._snapshot, address)]
        return found[0] if len(found) == 1 and not workload.startswith(("service/", "moved/")) else ""

    def _number(self, text: str, node: str) -> int:
        name = self._name(text, node)
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


def _pods(snapshot: Snapshot, address: str) -> list[tuple[str, str]]:
    """(text, node) of the pods at an address."""
    sources = snapshot.metadata.get(address, {})
    records = (record for by_uid in sources.values() for record in by_uid.values())
    return [(record["workload"], str(record.get("node", ""))) for record in records if record.get("kind") == "pod"]


def _add(sums: dict[tuple[int, int, int, int, int], list[Any]], table: Table, local: NDArray[np.intp], remote: NDArray[np.intp]) -> None:
    columns = table.columns
    client = is_client(columns)
    keys = np.stack(
        [
            np.where(client, local, remote),
            np.where(client, remote, local),
            columns["service"].astype(np.int64),
            columns["protocol"].astype(np.int64),
            np.where(columns["service"] != 0, 0, np.where(client, columns["dport"], columns["sport"])).astype(np.int64),
        ]
    )
    distinct, which = np.unique(keys, axis=1, return_inverse=True)
    side = 2 * which.ravel() + ~client
    values = _values(table, columns)
    totals = np.zeros((2 * distinct.shape[1], len(TOTALS)), np.uint64)
    for place, column in enumerate(values):
        np.add.at(totals[:, place], side, column)
    first, last = np.full(distinct.shape[1], np.inf), np.zeros(distinct.shape[1])
    np.minimum.at(first, which.ravel(), columns["first_seen"])
    np.maximum.at(last, which.ravel(), columns["last_seen"])
    for number, key in enumerate(map(tuple, distinct.T.tolist())):
        views = (totals[2 * number].tolist(), totals[2 * number + 1].tolist())
        held = sums.setdefault(key, [NOTHING, NOTHING, np.inf, 0.0])
        held[:2] = [tuple(map(sum, zip(*pair, strict=True))) for pair in zip(held[:2], views, strict=True)]
        held[2:] = [min(held[2], float(first[number])), max(held[3], float(last[number]))]


def _values(table: Table, columns: Columns) -> list[NDArray[np.uint64]]:
    single = columns["flags"] & Flag.FOLDED == 0
    still = single & (columns["flags"] & Flag.CLOSED == 0)
    return [table.total("sent"), table.total("recv"), table.total("retransmits"), single.astype(np.uint64), still.astype(np.uint64)]


def _flow(snapshot: Snapshot, names: list[str], key: tuple[int, int, int, int, int], held: list[Any]) -> Flow:
    client, server, service, protocol, port = key
    text, _, service_port = snapshot.texts[service].rpartition(":")
    return Flow(names[client], names[server], text, protocol, int(service_port or port), (held[0], held[1]), held[2], held[3])
