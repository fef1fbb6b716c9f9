"""Containers, from Docker's Engine API on its unix socket.

Paths carry no version: the daemon then answers in its own, and the few fields that are read are the same in all of them. The list tells
all but the pid; a container is inspected only when it is new or no longer runs under the pid that was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from cluster.core.errors import SourceAbsent, SourceError
from cluster.core.kinds import record
from cluster.sources.docker_api import Listed, State, container_of, decode_inspected, decode_list, decode_version, networks_of
from cluster.sources.namespaces import Namespaces, Tenant
from cluster.sources.proc import read_membership
from cluster.sources.unix_http import get

CONTAINERS_LIMIT = 5_000
LIST_LIMIT = 32_000_000  # bytes: 5,000 containers have about 10 MB
INSPECT_LIMIT = 2_000_000
INSPECT_TIME = 2.0  # s of one read; the containers left over have their turn in the next
SHARING_LIMIT = 4  # containers that share a network in a row
REMEDY = "is Docker running?"

Records = dict[tuple[str, str], dict[str, Any]]


@dataclass(slots=True)
class Life:
    """What inspecting a container told, and at which read it was last tried."""

    state: State = field(default_factory=State)
    tried: int = 0


class DockerSource:
    """A MetadataSource: the running containers, each under its own addresses.

    A container in the host's network, or without any, stands under the node's address; one that shares another's network under that
    one's. `workloads` receives the workload of each container id, for whoever meets its processes, and `namespaces` the containers, for
    whoever meets their traffic. A machine without Docker has no containers: that is a state ("absent"), not an error.
    """

    name = "docker"

    def __init__(
        self,
        socket: str,
        address: Callable[[], str],
        workloads: MutableMapping[str, str] | None = None,
        proc: str | Path = "/proc",
        timeout: float = 5.0,
        namespaces: Namespaces | None = None,
    ) -> None:
        self._socket = socket
        self._address = address
        self._workloads = {} if workloads is None else workloads
        self._proc = str(proc)
        self._timeout = timeout
        self._namespaces = namespaces or Namespaces(self._proc)
        self.leave_pods = False  # whether a kubelet is asked: a pod's containers are then its own
        self._lives: dict[str, Life] = {}
        self._reads = 0
        self._status: dict[str, Any] = {"state": "unread"}

    def status(self) -> dict[str, Any]:
        """`state` ("unread", "ok", "absent", "failed") and `reason`, and of the last good read the daemon's version and counters."""
        return dict(self._status)

    def read(self) -> Records:
        """The running containers. Raises SourceError where Docker is there and does not answer as Docker does."""
        try:
            return self._read()
        except SourceAbsent as error:
            self._keep(())
            self._namespaces.update(())
            self._status = {"state": "absent", "reason": str(error)}
            return {}
        except SourceError as error:
            self._namespaces.update(())
            self._status = {**self._status, "state": "failed", "reason": str(error)}
            raise

    def _read(self) -> Records:
        listed, refused, left_out = decode_list(self._get("/containers/json", LIST_LIMIT), CONTAINERS_LIMIT)
        by_id = {each.id: each for each in listed if not self._is_a_pods(each)}
        self._keep(by_id.values())
        self._look_for_pids()
        self._namespaces.update(() if refused or left_out else self._tenants(by_id))  # alone is who has no other, also none unread
        self._status = {
            "state": "ok",
            "version": self._status.get("version") or self._version(),
            "containers": len(by_id),
            "of_pods": len(listed) - len(by_id),
            "without_pid": sum(not life.state.pid for life in self._lives.values()),
            "refused": refused,
            "left_out": left_out,
        }
        return self._records(by_id)

    def _is_a_pods(self, listed: Listed) -> bool:
        """One container has one claim: the kubelet's where it names the container, or Docker says that it is a pod's."""
        if not self.leave_pods:
            return False
        return self._workloads.get(listed.id, "").startswith("pod/") or bool(listed.labels and listed.labels.pod_uid)

    def _records(self, by_id: dict[str, Listed]) -> Records:
        node = self._address()
        records: Records = {}
        for each in by_id.values():
            owner = network_owner(each, by_id)
            packed = record(container_of(each, self._lives[each.id].state, owner.network_mode == "host"))
            own = [address for addresses in networks_of(owner).values() for address in addresses]
            records.update({(address, each.id): packed for address in own or [node]})
        return records

    def _tenants(self, by_id: dict[str, Listed]) -> Iterator[Tenant]:
        for each in by_id.values():
            owner = network_owner(each, by_id)
            network = "" if owner.network_mode == "host" or owner.network_mode.startswith("container:") else owner.id
            yield Tenant(each.id, f"container/{each.name}", self._lives[each.id].state.pid, network)

    def _keep(self, listed: Iterable[Listed]) -> None:
        """Forget the containers that ended, and name those that run."""
        names = {each.id: f"container/{each.name}" for each in listed}
        for gone in self._lives.keys() - names:
            del self._lives[gone]
            if self._workloads.get(gone, "").startswith("container/"):
                del self._workloads[gone]
        for identity, workload in names.items():
            self._lives.setdefault(identity, Life())
            self._workloads[identity] = workload

    def _look_for_pids(self) -> None:
        self._reads += 1
        end = monotonic() + INSPECT_TIME
        doubtful = [identity for identity, life in self._lives.items() if not self._runs(identity, life.state.pid)]
        for identity in sorted(doubtful, key=lambda each: self._lives[each].tried):
            left = end - monotonic()
            if left <= 0:
                return
            life = self._lives[identity]
            life.tried = self._reads
            with suppress(SourceError):  # it ended meanwhile, or Docker is slow: the next read asks again
                life.state = decode_inspected(self._get(f"/containers/{identity}/json", INSPECT_LIMIT, left))

    def _runs(self, identity: str, pid: int) -> bool:
        return pid > 0 and identity in read_membership(self._proc, pid).containers

    def _version(self) -> str:
        with suppress(SourceError):
            return decode_version(self._get("/version", INSPECT_LIMIT))
        return ""

    def _get(self, target: str, limit: int, timeout: float | None = None) -> bytes:
        return get(self._socket, target, timeout or self._timeout, limit, REMEDY)


def network_owner(container: Listed, by_id: dict[str, Listed]) -> Listed:
    """The container whose network it is in: mostly itself."""
    for _ in range(SHARING_LIMIT):
        kind, _, other = container.network_mode.partition(":")
        if kind != "container" or other not in by_id:
            break
        container = by_id[other]
    return container
