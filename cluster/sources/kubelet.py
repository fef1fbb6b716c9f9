"""The node's pods, from its kubelet or, where that may not be asked, from the API server; and which processes are theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluster.core.errors import SourceError
from cluster.core.kinds import Pod, record
from cluster.sources.containers import Containers, Place
from cluster.sources.namespaces import Namespaces, Tenant
from cluster.sources.pod_servers import PodSource
from cluster.sources.pods import ENDED, Found

Records = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the last good read found."""

    pods: int = 0
    refused: int = 0
    left_out: int = 0
    without_pid: int = 0  # running containers whose first process was not found
    unscanned: int = 0  # processes beyond the limit of one scan


class KubeletSource:
    """A MetadataSource: the pods of this node, each under its own addresses by its UID.

    `workloads` receives the pod of each container id and of each pod UID, for whoever meets their processes; `namespaces` the containers,
    for whoever meets their traffic. While nobody answers, both keep what the last answer said: what has ended is seen in /proc.
    """

    name = "kubelet"

    def __init__(
        self, source: PodSource, containers: Containers, workloads: MutableMapping[str, str], namespaces: Namespaces, **said: Any
    ) -> None:
        self._source = source
        self._containers = containers
        self._workloads = workloads
        self._namespaces = namespaces
        self._said = said
        self._named: set[str] = set()
        self._failures = 0
        self._counts = Counts()

    def status(self) -> dict[str, Any]:
        """Counters of the last good read, `failures` since the start, and what was `said` of the source at its making."""
        return {**asdict(self._counts), "failures": self._failures, **self._said}

    def read(self) -> Records:
        """The pods. Raises SourceError."""
        try:
            page = self._source.pods()
            firsts = self._containers.first_processes()
        except SourceError:
            self._failures += 1
            raise
        self._name(page.found)
        pids = {container: pid for (_, container), pid in reversed(firsts.items()) if container}
        pods = [with_pids(found.pod, pids, firsts.get((found.pod.uid, ""), 0)) for found in page.found]
        self._namespaces.update(tenants(page.found, firsts), self.name)
        running = [each for pod in pods for each in pod.containers if each.state == "running"]
        without_pid = sum(not each.pid for each in running)
        self._counts = Counts(len(pods), page.refused, page.left_out, without_pid, self._containers.left_out)
        return records_of(pods)

    def _name(self, found: Iterable[Found]) -> None:
        """Name the containers and pods that are there, and forget those that are not."""
        names = {identity: each.pod.workload for each in found for identity in (each.pod.uid, *each.containers)}
        for gone in self._named - names.keys():
            self._workloads.pop(gone, None)
        self._workloads.update(names)
        self._named = set(names)


def with_pids(pod: Pod, pids: Mapping[str, int], unnamed: int = 0) -> Pod:
    """The pod with the first process of each of its containers, by container id.

    `unnamed` is the first process of the pod's container that /proc does not name, since it is our own (`cgroup.parse`): where only one
    container is left without a process, it is that one's.
    """
    containers = [replace(each, pid=pids.get(each.id, 0)) for each in pod.containers]
    left = [place for place, each in enumerate(containers) if each.state == "running" and not each.pid]
    if unnamed and len(left) == 1:
        containers[left[0]] = replace(containers[left[0]], pid=unnamed)
    return replace(pod, containers=tuple(containers))


def tenants(found: Iterable[Found], firsts: Mapping[Place, int]) -> Iterator[Tenant]:
    """The running containers of the pods: those that the pods name, and others below a pod's cgroup, as the one that holds its network."""
    pods = {key: each.pod for each in found for key in (each.pod.uid, *each.containers)}
    for (uid, container), pid in firsts.items():
        if pod := pods.get(container) or pods.get(uid):
            yield Tenant(container, pod.workload, pid, "" if pod.host_network else pod.uid)


def records_of(pods: Iterable[Pod]) -> Records:
    """Each pod under each of its addresses; one without any under its workload.

    The address of a pod that ended is given to another one sooner or later. Where nobody knows when the pod ended, it did so when another
    one has the address: from then on its record there names no workload.
    """
    pods = list(pods)
    holders = holders_of(pods)
    records: Records = {}
    for pod in pods:
        packed = record(pod)
        formerly = {name: value for name, value in packed.items() if name != "workload"}
        for address in pod.addresses or (pod.workload,):
            lost = pod.phase in ENDED and not pod.ended and holders.get(address, pod) is not pod
            records[address, pod.uid] = formerly if lost else packed
    return records


def holders_of(pods: Iterable[Pod]) -> dict[str, Pod]:
    """Who has each address: a pod that runs, else the one that began last. The node's own addresses have none."""
    inside = [pod for pod in pods if not pod.host_network]
    order = sorted(inside, key=lambda pod: (pod.phase not in ENDED, pod.started, pod.uid))
    return {address: pod for pod in order for address in pod.addresses}
