"""Random changes of a real cluster: Services, EndpointSlices, Nodes, ReplicaSets and Jobs are made, changed and removed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from types import TracebackType
from typing import Any

from cluster.sources.cluster_objects import RESOURCES, SERVICE_LABEL
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.watched import wait_for

POD = {"containers": [{"name": "c", "image": "i"}]}
DONE = (200, 201, 202, 404, 409, 422)  # gone already, made already, changed meanwhile, an address that another Service has


class Changes:
    """One who changes things, in one namespace; the Nodes are removed at the end of the context, the rest with the namespace."""

    def __init__(self, plane: ControlPlane, namespace: str, seed: int = 1) -> None:
        self._plane, self._namespace = plane, namespace
        self._chance = random.Random(seed)
        self._paths: list[str] = []
        self._ended = threading.Event()
        self.count = 0
        self.statuses: Counter[int] = Counter()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._plane.ensure()
        for path in [path for path in self._paths if "/nodes/" in path]:
            self._plane.request("DELETE", path)

    def some(self, count: int) -> None:
        """So many changes; a server that is away is waited for."""
        for _ in range(count):
            act = self._chance.random()
            if self._paths and act < 0.2:
                self._asked("DELETE", self._paths.pop(self._chance.randrange(len(self._paths))))
            elif self._paths and act < 0.5:
                self._change(self._chance.choice(self._paths))
            else:
                self._make()
            self.count += 1

    def remove(self, share: float) -> None:
        """Delete that share of all that was made."""
        for path in self._chance.sample(self._paths, int(share * len(self._paths))):
            self._paths.remove(path)
            self._asked("DELETE", path)

    def _make(self) -> None:
        resource = self._chance.choice(RESOURCES)
        prefix, _, plural = resource.path.rpartition("/")
        path = resource.path if plural == "nodes" else f"{prefix}/namespaces/{self._namespace}/{plural}"
        name = f"{self._namespace}-{self.count}"
        self._asked("POST", path, {"metadata": {"name": name}, **self._content(plural)})
        self._paths.append(f"{path}/{name}")

    def _change(self, path: str) -> None:
        plural = path.split("/")[-2]
        path += "/status" if plural == "nodes" else ""
        status, found = self._asked("GET", path)
        if status == 200:
            fresh = self._content(plural)
            labels = {**fresh.get("metadata", {}).get("labels", {}), "changed": str(self.count)}
            found["metadata"]["labels"] = labels
            if plural in ("endpointslices", "nodes", "services"):
                found.update({name: value for name, value in fresh.items() if name in ("endpoints", "ports", "status")})
            if plural == "services":
                found["spec"].update(ports=fresh["spec"]["ports"], selector=fresh["spec"]["selector"])
            if plural == "replicasets":
                found["metadata"]["ownerReferences"] = self._owners()
            self._asked("PUT", path, found)

    def _content(self, plural: str) -> dict[str, Any]:
        chance = self._chance
        if plural == "services":
            return {"spec": {"ports": [{"port": chance.randrange(1, 999)}], "selector": {"app": chance.choice("abc")}}}
        if plural == "endpointslices":
            addresses = [f"10.1.{chance.randrange(9)}.{chance.randrange(1, 99)}" for _ in range(chance.randrange(5))]
            endpoints = [{"addresses": [each], "conditions": {"ready": chance.random() < 0.8}} for each in dict.fromkeys(addresses)]
            labels = {SERVICE_LABEL: f"{self._namespace}-{chance.randrange(self.count + 1)}"}
            return {
                "metadata": {"name": f"{self._namespace}-{self.count}", "labels": labels},
                "addressType": "IPv4",
                "endpoints": endpoints,
            }
        if plural == "nodes":
            return {"status": {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{chance.randrange(99)}"}]}}
        labels = {"app": "x"}
        template = {"metadata": {"labels": labels}, "spec": POD}
        if plural == "jobs":
            return {"spec": {"suspend": True, "template": {"spec": {**POD, "restartPolicy": "Never"}}}}
        return {"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}}

    def _owners(self) -> list[dict[str, Any]]:
        name = f"owner-{self._chance.randrange(9)}"
        return [{"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": name, "controller": True}]

    def _asked(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The answer; the Background policy removes a Job at once."""
        query = "?propagationPolicy=Background" if method == "DELETE" else ""
        answered: tuple[int, Any] = wait_for(lambda: self._answer(method, path + query, body), f"{method} {path}")
        assert answered[0] in DONE, answered
        return answered

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any] | None:
        status, answer = self._plane.request(method, path, body, timeout=10.0)
        self.statuses[status] += 1
        return None if status >= 500 or status == 429 else (status, answer)
