"""A small cluster to say to an aggregate: two nodes' collectors and the watcher of the API server, rows in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.core import query
from cluster.core.aggregate import AggregateLimits
from cluster.core.events import BatchReceived
from cluster.core.metadata import WATCHER
from cluster.core.records import Flag, Role, pack_address
from cluster.core.wire import Final, Part, pack_part
from tests.core.stream import AT, Talk, section

OWNED = {"kind": "ReplicaSet", "name": "cart-7f"}


def pod(name: str, address: str, owner: Mapping[str, str] | None = None, **more: Any) -> tuple[str, str, str, dict[str, Any]]:
    """A pod's record as its kubelet's node says it."""
    record = {"kind": "pod", "namespace": "shop", "name": name, "workload": f"pod/shop/{name}", "started": AT - 100}
    return "kubelet", address, f"uid-{name}", record | ({"owner": dict(owner)} if owner else {}) | more


def replicaset(name: str, deployment: str) -> tuple[str, str, str, dict[str, Any]]:
    record = {"kind": "replicaset", "namespace": "shop", "name": name, "owner": {"kind": "Deployment", "name": deployment}}
    return "apiserver", f"replicaset/shop/{name}", f"uid-{name}", record | {"workload": f"replicaset/shop/{name}"}


def service(name: str, addresses: list[str], *ports: Mapping[str, Any], **more: Any) -> tuple[str, str, str, dict[str, Any]]:
    record = {"kind": "service", "namespace": "shop", "name": name, "workload": f"service/shop/{name}", "addresses": addresses}
    backends = {f"{port['port']}/tcp": port["backends"] for port in ports}
    return "apiserver", addresses[0], f"uid-{name}", record | {"ports": [dict(port) for port in ports], "backends": backends} | more


def row(slot: int, source: str, dest: str, local: str, **values: Any) -> dict[str, Any]:
    """A client's row: `source` and `dest` as address:port."""
    (own, sport), (other, dport) = (end.rsplit(":", 1) for end in (source, dest))
    usual = {"id": slot, "source": own, "sport": int(sport), "dest": other, "dport": int(dport), "local": local, "cookie": 100 + slot}
    return usual | {"role": int(Role.CLIENT)} | values


def served(slot: int, source: str, dest: str, local: str, **values: Any) -> dict[str, Any]:
    """A server's row."""
    return row(slot, source, dest, local, role=int(Role.SERVER), **values)


class Cluster(Talk):
    """Nodes speak by name; each has its own sequence."""

    def __init__(self, *nodes: str, limits: AggregateLimits | None = None) -> None:
        super().__init__(limits)
        self._known: dict[str, tuple[int, int]] = {}
        self._next: dict[str, int] = {}
        for node in nodes or ("one", "two", WATCHER):
            self.join(node)

    def join(self, node: str) -> None:
        stream = len(self._known) + 1 + 100 * self._next.get(node, 0)
        self._known[node] = (self.greet(node, stream), stream)
        self._next[node] = 0

    def tell(self, node: str, *rows: Mapping[str, Any], metadata: tuple[Any, ...] = (), closed: tuple[int, ...] = (), **more: Any) -> None:
        """One sequence of a node; it must be applied."""
        addresses, texts = [], [""]
        opened = []
        for one in rows:
            addresses += [one["source"], one["dest"]]
            texts.append(one["local"])
            opened.append({**one, "source": len(addresses) - 2, "dest": len(addresses) - 1, "local": len(texts) - 1})
        sections = {"opened": section("opened", *opened)} if opened else {}
        if closed:
            sections["closed"] = section("closed", *({"id": slot, "flags": int(Flag.CLOSED)} for slot in closed))
        sections |= {name: section(name, *values) for name, values in more.items()}
        incarnation, stream = self._known[node]
        part = Part(
            node,
            incarnation,
            stream,
            self._next[node],
            0,
            True,
            addresses=b"".join(map(pack_address, addresses)),
            texts=tuple(texts),
            sections=sections,
            metadata=metadata,
            final=Final(self.at, {}, ("t", 0)),
        )
        answer = self.receive(pack_part(part))
        assert (answer.verdict, answer.applied) == ("ok", self._next[node]), answer
        self._next[node] += 1

    def receive(self, raw: bytes) -> Any:
        return self.answer(BatchReceived(raw, self.at))

    def edges(self) -> dict[tuple[str, str, str, int], tuple[dict[str, int], dict[str, int]]]:
        """(client, server, service, port) -> the two views, of edges with traffic."""
        self.commit()
        found = query.edges(self.aggregate.snapshot())
        return {(e["client"], e["server"], e["service"], e["port"]): (e["client_view"], e["server_view"]) for e in found}

    def seen(self) -> dict[tuple[str, str, str, int], tuple[int, int]]:
        """(client, server, service, port) -> bytes sent as the client's and the server's views have them."""
        return {key: (client["sent"], server["sent"]) for key, (client, server) in self.edges().items()}
