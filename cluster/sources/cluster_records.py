"""The records that the API server's objects become: Services with their backends, Nodes, and owners. Pure; incremental, since a rolling
update changes a few of thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgpack

from cluster.core.kinds import Kind, Node, Service, record
from cluster.core.metadata import RECORDS_LIMIT
from cluster.core.parts import RECORD_LIMIT
from cluster.sources.cluster_objects import Slice

RECORD_BYTES = RECORD_LIMIT - 1_000  # for a record; the rest is its address and uid
SERVICE_RECORDS_LIMIT = 64  # of one Service under one address: about 80,000 backends
ANY = ""  # the port of a backend where its slice names none

Key = tuple[str, str]  # address, uid
Record = Mapping[str, Any]
Objects = Mapping[str, Mapping[str, Any]]  # resource -> NAMESPACE/NAME -> what is kept of it


class ClusterRecords:
    """`records` are those of all objects that `update` was told of. `left_out` counts objects without a record, for want of room."""

    def __init__(self, limit: int = RECORDS_LIMIT) -> None:
        self.records: dict[Key, Record] = {}
        self.left_out: set[Key] = set()  # resource, NAMESPACE/NAME
        self.cut: set[str] = set()  # Services of which not all backends fit
        self._limit = limit
        self._keys: dict[Key, list[Key]] = {}  # resource and NAMESPACE/NAME -> keys of its records
        self._service_of: dict[str, str] = {}  # slice -> Service
        self._slices_of: dict[str, set[str]] = {}  # Service -> slices

    def update(self, objects: Objects, changed: Mapping[str, set[str]]) -> None:
        """Make the records of what changed anew; `changed` names objects by resource and NAMESPACE/NAME."""
        again, self.left_out = self.left_out, set()
        services = set(changed.get("services", ()))
        for key in changed.get("endpointslices", ()):
            services |= self._assign(key, objects["endpointslices"].get(key))
        renewed = {("services", key) for key in services} | again
        renewed |= {(resource, key) for resource, keys in changed.items() if resource not in ("services", "endpointslices") for key in keys}
        for resource, key in sorted(renewed, key=_order):
            self._renew(resource, key, objects)

    def _assign(self, key: str, found: Slice | None) -> set[str]:
        """Note whose slice this is; the Services whose backends changed by it."""
        before, now = self._service_of.pop(key, ""), found.service if found else ""
        if before != now and before:
            self._slices_of[before].discard(key)
            if not self._slices_of[before]:
                del self._slices_of[before]
        if now:
            self._service_of[key] = now
            self._slices_of.setdefault(now, set()).add(key)
        return {service for service in (before, now) if service}

    def _renew(self, resource: str, key: str, objects: Objects) -> None:
        for old in self._keys.pop((resource, key), ()):
            self.records.pop(old, None)
        found = objects[resource].get(key)
        self.cut.discard(key)
        if found is None:
            return
        made = list(self._service(key, found, objects) if isinstance(found, Service) else _under(found, found.uid, record(found)))
        if len(self.records) + len(made) > self._limit:
            self.left_out.add((resource, key))
            return
        self.records.update(made)
        self._keys[resource, key] = [each for each, _ in made]

    def _service(self, key: str, service: Service, objects: Objects) -> Iterator[tuple[Key, Record]]:
        slices = [found for name in sorted(self._slices_of.get(key, ())) if (found := objects["endpointslices"].get(name))]
        room = RECORD_BYTES - len(msgpack.packb(record(service)))
        groups = list(_split(backends(service.ports, slices), room, RECORD_BYTES - 1_000))
        if len(groups) > SERVICE_RECORDS_LIMIT:
            self.cut.add(key)
        for number, group in enumerate(groups[:SERVICE_RECORDS_LIMIT]):
            if number == 0:
                part = replace(service, backends=group)
            else:
                part = Service(f"{service.uid}+{number}", service.name, service.namespace, backends=group)
            yield from _under(service, part.uid, record(part))


def backends(ports: Sequence[Mapping[str, Any]], slices: Sequence[Slice]) -> dict[str, list[str]]:
    """Who stands behind each port of a Service: "80/tcp" -> "IP:PORT", sorted, each once.

    A slice's port belongs to the Service's port of the same name and protocol; where there is none (a headless Service needs none), it
    stands under its own number.
    """
    numbers = {(one.get("name", ""), one["protocol"]): one["port"] for one in ports}
    found: dict[str, set[str]] = {}
    for each in slices:
        addresses = each.addresses.split()
        for name, number, protocol in each.ports:
            port = numbers.get((name, protocol), number)
            found.setdefault(f"{port}/{protocol}" if port else ANY, set()).update(_joined(addresses, number))
        if not each.ports:
            found.setdefault(ANY, set()).update(addresses)
    return {port: sorted(texts) for port, texts in sorted(found.items()) if texts}


def _joined(addresses: list[str], port: int) -> Iterator[str]:
    for text in addresses:
        shown = f"[{text}]" if ":" in text and port else text
        yield f"{shown}:{port}" if port else shown


def _split(found: Mapping[str, Sequence[str]], room: int, further: int) -> Iterator[dict[str, tuple[str, ...]]]:
    """Groups that take at most `room` bytes in the first record and `further` in each other one."""
    group: dict[str, list[str]] = {}
    for port, texts in found.items():
        for text in texts:
            room -= len(text) + 2 + (0 if port in group else len(port) + 6)
            if room < 0:
                yield {name: tuple(some) for name, some in group.items()}
                group, room = {}, further - len(text)
            group.setdefault(port, []).append(text)
    yield {name: tuple(some) for name, some in group.items()}


def _under(of: Kind, uid: str, made: Record) -> Iterator[tuple[Key, Record]]:
    """A record under each address that it has, else under its own name."""
    addresses = of.addresses if isinstance(of, Service | Node) else ()
    for address in addresses or (of.workload,):
        yield (address, uid), made


def _order(which: Key) -> tuple[bool, bool, str, str]:
    """Services first, then Nodes, then owners: for those there is room."""
    return which[0] != "services", which[0] != "nodes", *which
