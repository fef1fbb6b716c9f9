"""Services: which address and port is one, and which endpoints stand behind it.

A Service is met at its cluster, external and load-balancer addresses by its port, and at every node's address by its node port.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cluster.core.records import Protocol

Record = Mapping[str, Any]
Endpoint = tuple[str, int]  # address, port
PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP}


class Front(NamedTuple):
    """One port of one Service."""

    service: str  # its text, service/NAMESPACE/NAME
    backends: frozenset[Endpoint]


class Services:
    """All Services, by where clients meet them."""

    def __init__(self) -> None:
        self._records: dict[str, dict[tuple[str, str], Record]] = {}  # text -> (address, uid) -> record
        self._fronts: dict[tuple[str, int, int], Front] = {}  # address, port, protocol
        self._node_ports: dict[tuple[int, int], Front] = {}  # port, protocol
        self._behind: dict[tuple[str, int], Front] = {}  # service/NAMESPACE/NAME:PORT (also the node port), protocol
        self._placed: dict[str, list[tuple[dict[Any, Front], Any]]] = {}  # what stands where for a Service

    def put(self, address: str, uid: str, record: Record) -> None:
        """A record of a Service as it is now; one that is large continues in others of the same text."""
        text = str(record.get("workload", ""))
        self._records.setdefault(text, {})[address, uid] = record
        self._place(text)

    def remove(self, address: str, uid: str, record: Record) -> None:
        """The record is gone."""
        text = str(record.get("workload", ""))
        held = self._records.get(text, {})
        held.pop((address, uid), None)
        if not held:
            self._records.pop(text, None)
        self._place(text)

    def at(self, address: str, port: int, protocol: int, *, node: bool = False) -> Front | None:
        """The Service that a client meets there; `node`: the address is a node's."""
        found = self._fronts.get((address, port, protocol))
        return found or (self._node_ports.get((port, protocol)) if node else None)

    def behind(self, service: str, protocol: int) -> frozenset[Endpoint]:
        """The endpoints behind service/NAMESPACE/NAME:PORT, where PORT may be the node port."""
        front = self._behind.get((service, protocol))
        return front.backends if front else frozenset()

    def addresses(self) -> set[str]:
        """Every address at which a Service is met, but those of nodes."""
        return {address for address, _, _ in self._fronts}

    def endpoint_addresses(self) -> set[str]:
        """Every address that stands behind a Service."""
        return {address for front in self._behind.values() for address, _ in front.backends}

    def __len__(self) -> int:
        return len(self._records)

    def _place(self, text: str) -> None:
        for table, key in self._placed.pop(text, ()):
            table.pop(key, None)
        records = list(self._records.get(text, {}).values())
        placed: list[tuple[dict[Any, Front], Any]] = []
        for (port, protocol, node_port), backends in _ports(records).items():
            front = Front(text, frozenset(backends))
            keys: list[tuple[dict[Any, Front], Any]] = [(self._fronts, (address, port, protocol)) for address in _addresses(records)]
            keys += [(self._behind, (f"{text}:{met}", protocol)) for met in {port, node_port or port}]
            keys += [(self._node_ports, (node_port, protocol))] * bool(node_port)
            for table, key in keys:
                table[key] = front
            placed += keys
        if placed:
            self._placed[text] = placed


def _addresses(records: Iterable[Record]) -> set[str]:
    return {str(address) for record in records for address in record.get("addresses", ())}


def _ports(records: Iterable[Record]) -> dict[tuple[int, int, int], set[Endpoint]]:
    """(port, protocol, node port) -> the endpoints behind it, of all records of one Service: `backends` has them by "PORT/PROTOCOL", under
    "" those of a port that is not told apart."""
    records = list(records)
    found: dict[tuple[int, int, int], set[Endpoint]] = {}
    for port in (port for record in records for port in record.get("ports", ())):
        if not isinstance(port, Mapping) or not isinstance(port.get("port"), int):
            continue
        name = str(port.get("protocol", "tcp")).lower()
        if name in PROTOCOLS:
            backends = found.setdefault((port["port"], int(PROTOCOLS[name]), int(port.get("node_port") or 0)), set())
            for listed in (record.get("backends") or {} for record in records):
                backends.update(_endpoints((*listed.get(f"{port['port']}/{name}", ()), *listed.get("", ()))))
    return found


def _endpoints(backends: Iterable[Any]) -> Iterable[Endpoint]:
    """ "ADDRESS:PORT" texts, IPv6 in brackets, as pairs; whatever is not of that form is passed over."""
    for text in backends:
        address, _, number = str(text).rpartition(":")
        if address and number.isdigit() and int(number) < 65_536:
            yield address.strip("[]"), int(number)
