"""What the tests of the publisher need: a service account with no more rights than it is to have, content, and a look at what is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.core.publication import Publication, publication
from cluster.sources.backoff import Backoff
from cluster.stores.api_server import ApiServer
from cluster.stores.config_maps import ConfigMaps, PublishLimits
from tests.kubernetes.control_plane import ControlPlane

PATIENCE = 60.0  # s
ROW: dict[str, Any] = {
    "node": "node-1",
    "protocol": "tcp",
    "pid": 4711,
    "net_ns": 4026531840,
    "direction": "outgoing",
    "state": "open",
    "last_update_epoch": 123_456_789_012_345,
    "first_seen": 1.7e9,
    "last_seen": 1.7e9,
    "folded": False,
} | {f"{kind}_{name}": 1 for kind in ("monotonic", "total") for name in ("sent_bytes", "recv_bytes", "retransmits")}


def transaction(index: int, number: int = 1) -> dict[str, Any]:
    """A transaction, which says `number` in its counters."""
    source, dest = f"10.0.{index // 250}.{index % 250}", "10.96.0.1"
    ends = {"key": f"{source}-{dest}-40000-443", "source": source, "dest": dest}
    return ROW | ends | {"monotonic_sent_bytes": number, "total_sent_bytes": number}


@dataclass
class Content:
    """A Source whose content a test sets; `number` is in every value of it."""

    fence: int = 1
    rows: int = 4
    number: int = 1
    store: str = "one"
    metadata: dict[str, Any] = field(default_factory=lambda: {"10.96.0.1": {"apiserver": {"uid": {"kind": "service"}}}})

    def identity(self) -> str:
        return self.store

    def read(self) -> tuple[int, Publication]:
        return self.fence, publication([transaction(index, self.number) for index in range(self.rows)], self.metadata)


def allow(plane: ControlPlane, namespace: str, pages: int = 16) -> None:
    """The service account `publisher`, with the rights that the manifest gives."""
    names = [f"{kind}-{index}" if index else kind for kind in ("transactions", "metadata") for index in range(pages)]
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": names, "verbs": ["get", "patch", "update"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["rayscope-publisher"],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    role = {"metadata": {"name": "publisher"}, "rules": rules}
    binding = {
        "metadata": {"name": "publisher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "publisher"},
        "subjects": [{"kind": "ServiceAccount", "name": "publisher", "namespace": namespace}],
    }
    for path, body in (("roles", role), ("rolebindings", binding)):
        status, answer = plane.request("POST", f"{base}/{path}", body)
        assert status == 201, answer


@dataclass
class Publishing:
    """Publishers into one namespace, and what is there."""

    plane: ControlPlane
    namespace: str
    kubeconfig: Path
    made: list[ConfigMaps] = field(default_factory=list)
    apis: list[ApiServer] = field(default_factory=list)

    def publisher(self, content: Any, name: str = "first", server: str = "", **limits: Any) -> ConfigMaps:
        """A publisher with the rights of the manifest, without a wait between rounds; `server` is another way to the API server."""
        api = ApiServer(str(self._kubeconfig(server)), timeout=limits.pop("timeout", 10.0))
        clock: Callable[[], float] = limits.pop("clock", time.monotonic)
        chosen = PublishLimits(**({"interval": 0.01, "pages": 2, "lease_seconds": 15} | limits))
        self.apis.append(api)
        self.made.append(ConfigMaps(api, self.namespace, content, chosen, name, Backoff(0.01, 0.1), clock))
        return self.made[-1]

    def _kubeconfig(self, server: str) -> Path:
        if not server:
            return self.kubeconfig
        document = yaml.safe_load(self.kubeconfig.read_text())
        document["clusters"][0]["cluster"] = {"server": server}
        path = self.kubeconfig.with_suffix(f".{server.rpartition(':')[2]}")
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path

    def pages(self, kind: str = "transactions") -> dict[str, dict[str, Any]]:
        """The ConfigMaps of a kind by name, as they are."""
        status, answer = self.plane.request("GET", f"/api/v1/namespaces/{self.namespace}/configmaps")
        assert status == 200, answer
        return {item["metadata"]["name"]: item for item in answer["items"] if item["metadata"]["name"].startswith(kind)}

    def shown(self, kind: str = "transactions") -> dict[str, Any]:
        """All values by key, as a reader puts them together: of a key on two pages the one written later."""
        found: dict[str, Any] = {}
        for page in sorted(self.pages(kind).values(), key=lambda item: str(item["metadata"]["annotations"].get("rayscope/published", ""))):
            found |= {key: json.loads(value) for key, value in page.get("data", {}).items()}
        return found

    def numbers(self) -> set[int]:
        """The numbers that the transactions say."""
        return {value[0]["total_sent_bytes"] for value in self.shown().values()}

    def close(self) -> None:
        """Give all connections back."""
        for api in self.apis:
            api.close()


@contextmanager
def using(plane: ControlPlane, namespace: str) -> Iterator[Publishing]:
    """Publishers into this namespace, whose connections are closed afterwards."""
    allow(plane, namespace)
    made = Publishing(plane, namespace, plane.kubeconfig(f"{namespace}/publisher"))
    try:
        yield made
    finally:
        made.close()


def until(publisher: ConfigMaps, fence: int, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Step until the status is as wanted, in less than PATIENCE: the status."""
    deadline = time.monotonic() + PATIENCE
    while True:
        wait = publisher.step(fence)
        status = publisher.status()
        if reached(status):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(min(wait, 0.05))
