"""Which transactions a question is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network

import numpy as np
from numpy.typing import NDArray

from cluster.core.errors import QueryError
from cluster.core.records import V4_PREFIX, Flag, Protocol
from cluster.core.snapshot import Snapshot, Table

STATES = ("open", "closed")
Matcher = Callable[[Table], NDArray[np.intp]]
Condition = Callable[[Table], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Filter:
    """Each field that is not None must hold."""

    node: str | None = None
    workload: str | None = None  # part of the name of either end
    address: str | None = None  # of either end: an address or a network ("10.0.0.0/8")
    port: int | None = None  # of either end
    protocol: str | None = None  # tcp or udp
    state: str | None = None  # open or closed
    since: float | None = None  # s since 1970: seen at or after it

    def compiled(self, snapshot: Snapshot) -> Matcher:
        """A function from a table to the indices of its matching rows. Raises QueryError for a field that makes no sense."""
        conditions = [make(snapshot, self) for make in MAKERS]
        wanted = [condition for condition in conditions if condition is not None]

        def matching(table: Table) -> NDArray[np.intp]:
            mask = np.ones(len(table), np.bool_)
            for condition in wanted:
                mask &= condition(table)
            return np.flatnonzero(mask)

        return matching


def protocol_name(protocol: int) -> str:
    """tcp, udp, or the number of another."""
    return Protocol(protocol).name.lower() if protocol in tuple(Protocol) else str(protocol)


def _node(snapshot: Snapshot, where: Filter) -> Condition | None:
    if where.node is None:
        return None
    chosen = np.array([state.node == where.node for state in snapshot.nodes], np.bool_)
    return lambda table: chosen[table.node]


def _workload(snapshot: Snapshot, where: Filter) -> Condition | None:
    if where.workload is None:
        return None
    text = where.workload
    named = np.array([text in known for known in snapshot.texts], np.bool_)
    edges = np.zeros(max(snapshot.edges, default=0) + 1, np.bool_)
    for number, edge in snapshot.edges.items():
        edges[number] = text in edge.client or text in edge.server
    return lambda table: edges[table.columns["cell"] >> 1] | named[table.columns["local"]] | named[table.columns["remote"]]


def _address(snapshot: Snapshot, where: Filter) -> Condition | None:
    if where.address is None:
        return None
    try:
        network = ip_network(where.address, strict=False)
    except ValueError as error:
        raise QueryError(f"address {where.address!r}: {error}; expected an address or a network such as 10.0.0.0/8") from None
    first = V4_PREFIX + network.network_address.packed if isinstance(network, IPv4Network) else network.network_address.packed
    bits = network.prefixlen + (96 if isinstance(network, IPv4Network) else 0)
    mask = np.frombuffer(((1 << 128) - (1 << (128 - bits))).to_bytes(16, "big"), np.uint8)
    packed = np.frombuffer(b"".join(snapshot.addresses), np.uint8).reshape(-1, 16)
    inside = ((packed & mask) == np.frombuffer(first, np.uint8)).all(axis=1)
    return lambda table: inside[table.columns["source"]] | inside[table.columns["dest"]]


def _port(_: Snapshot, where: Filter) -> Condition | None:
    port = where.port
    if port is None:
        return None
    if not 0 <= port <= 65_535:
        raise QueryError(f"port {port}: expected 0 to 65535")
    return lambda table: (table.columns["sport"] == port) | (table.columns["dport"] == port)


def _protocol(_: Snapshot, where: Filter) -> Condition | None:
    if where.protocol is None:
        return None
    if where.protocol.upper() not in Protocol.__members__:
        raise QueryError(f"protocol {where.protocol!r}: choose tcp or udp")
    number = Protocol[where.protocol.upper()]
    return lambda table: table.columns["protocol"] == number


def _state(_: Snapshot, where: Filter) -> Condition | None:
    if where.state is None:
        return None
    if where.state not in STATES:
        raise QueryError(f"state {where.state!r}: choose {' or '.join(STATES)}")
    closed = where.state == "closed"
    return lambda table: ((table.columns["flags"] & Flag.CLOSED) != 0) == closed


def _since(_: Snapshot, where: Filter) -> Condition | None:
    since = where.since
    return None if since is None else lambda table: table.columns["last_seen"] >= since


MAKERS = (_node, _workload, _address, _port, _protocol, _state, _since)
