"""The kinds of metadata. A new kind is one class and one registration:

    from cluster.sources.registry import register


    class Sensors:
        "The sensors of a house, by their addresses."

        name = "sensors"

        def read(self):
            return {("192.0.2.7", "sensor-7"): {"kind": "sensor", "name": "hall", "workload": "sensor/hall"}}


    register("sensors", lambda machine: Sensors())

From then on each collector reads it with the others, and what changed of it travels to the aggregator. A record is a small map of plain
values; `workload`, of the form kind/name, is what traffic with that address belongs to. The second part of a key tells records of one
address apart and should outlive a restart of rayscope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.core.errors import RayscopeError, SourceError
from cluster.ports import MetadataRecords, MetadataSource
from cluster.sources.containers import Containers
from cluster.sources.docker import DockerSource
from cluster.sources.inside import own_pod
from cluster.sources.kubelet import KubeletSource
from cluster.sources.namespaces import Namespaces
from cluster.sources.node import NodeSource, node_addresses
from cluster.sources.pod_servers import pod_source, who
from cluster.sources.proc import Processes, ProcSource
from configs.pod import host_ip, in_pod
from configs.settings import KubeletSettings


@dataclass
class Machine:
    """One machine, and what its sources share."""

    node: str
    proc: str = "/proc"  # the host's, where rayscope runs in a pod
    root: str = ""  # file system whose /etc tells the operating system; "" finds the machine's
    docker_socket: str | None = "/var/run/docker.sock"  # None does not ask Docker
    kubelet: KubeletSettings = field(default_factory=lambda: KubeletSettings(mode="off"))
    workloads: dict[str, str] = field(default_factory=dict)  # container id or pod UID -> workload, from the sources that know containers
    identity: NodeSource = field(init=False)
    namespaces: Namespaces = field(init=False)
    processes: Processes = field(init=False)
    containers: Containers = field(init=False)

    def __post_init__(self) -> None:
        inside = own_pod()
        root = self.root or ("/" if self.proc == "/proc" else f"{self.proc}/1/root")
        host = host_ip() if in_pod(self.kubelet) else ""
        self.identity = NodeSource(self.node, self.proc, root, lambda: node_addresses(host))
        self.namespaces = Namespaces(self.proc, inside)
        self.processes = Processes(self.proc, self.workloads, inside=inside)
        self.containers = Containers(self.proc, inside)

    def address(self) -> str:
        """Where records stand of what has no address of its own. Raises SourceError."""
        return self.identity.address()


Factory = Callable[[Machine], MetadataSource | None]  # None: there is nothing to ask on this machine


def kubelet(machine: Machine) -> MetadataSource | None:
    """The node's pods, where somebody is to be asked for them."""
    asked = pod_source(machine.kubelet, machine.node)
    if asked is None:
        return None
    said = {"mode": who(machine.kubelet), "insecure_tls": machine.kubelet.insecure_tls}
    return KubeletSource(asked, machine.containers, machine.workloads, machine.namespaces, **said)


def docker(machine: Machine) -> MetadataSource | None:
    """Docker, where a socket is set; beside a kubelet the containers of pods are not Docker's."""
    if machine.docker_socket is None:
        return None
    source = DockerSource(machine.docker_socket, machine.address, machine.workloads, machine.proc, namespaces=machine.namespaces)
    source.leave_pods = who(machine.kubelet) != "off"
    return source


# In the order in which they are read: those that know containers before the processes, which are named after them.
KINDS: dict[str, Factory] = {
    "node": lambda machine: machine.identity,
    "kubelet": kubelet,
    "docker": docker,
    "proc": lambda machine: ProcSource(machine.processes, machine.address),
}


def register(name: str, factory: Factory) -> None:
    """Add a kind of metadata. Raises RayscopeError where the name is taken."""
    if name in KINDS:
        raise RayscopeError(f"metadata kind {name!r} is registered already; choose another name")
    KINDS[name] = factory


def metadata_sources(
    node: str,
    docker_socket: str | None = "/var/run/docker.sock",
    proc: str = "/proc",
    kubelet: KubeletSettings | None = None,
) -> tuple[list[Guarded], Processes, Namespaces]:
    """The sources of this machine in the order in which to read them, and what they keep named: its processes and its network namespaces
    (`workload_of` of both)."""
    machine = Machine(node, proc=proc, docker_socket=docker_socket, kubelet=kubelet or KubeletSettings(mode="off"))
    made = [(name, factory(machine)) for name, factory in KINDS.items()]
    return [Guarded(name, source) for name, source in made if source is not None], machine.processes, machine.namespaces


class Guarded:
    """A MetadataSource around another, of which every failure is a SourceError, and which knows how the last read went."""

    def __init__(self, name: str, source: MetadataSource) -> None:
        self.name = name
        self._source = source
        self._status: dict[str, Any] = {"state": "unread"}

    def read(self) -> MetadataRecords:
        """All that the source knows now. Raises SourceError, and nothing else: a kind that somebody added must not end the collector."""
        try:
            records = self._source.read()
        except Exception as error:
            self._status = {"state": "failed", "reason": str(error)}
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"metadata kind {self.name!r}: {type(error).__name__}: {error}") from error
        self._status = {"state": "ok", "records": len(records)}
        return records

    def status(self) -> dict[str, Any]:
        """`state` ("unread", "ok", "absent", "failed"), the `reason` of a failure, and the source's own counters."""
        own: dict[str, Any] = getattr(self._source, "status", dict)()
        return {**self._status, **own}
