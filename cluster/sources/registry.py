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
from cluster.sources.docker import DockerSource
from cluster.sources.namespaces import Namespaces
from cluster.sources.node import NodeSource
from cluster.sources.proc import Processes, ProcSource


@dataclass
class Machine:
    """One machine, and what its sources share."""

    node: str
    proc: str = "/proc"  # the host's, where rayscope runs in a pod
    root: str = "/"
    docker_socket: str | None = "/var/run/docker.sock"  # None does not ask Docker
    workloads: dict[str, str] = field(default_factory=dict)  # container id -> workload, from the sources that know containers
    identity: NodeSource = field(init=False)
    namespaces: Namespaces = field(init=False)
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.identity = NodeSource(self.node, self.proc, self.root)
        self.namespaces = Namespaces(self.proc)
        self.processes = Processes(self.proc, self.workloads)

    def address(self) -> str:
        """Where records stand of what has no address of its own. Raises SourceError."""
        return self.identity.address()


Factory = Callable[[Machine], MetadataSource | None]  # None: there is nothing to ask on this machine


def docker(machine: Machine) -> MetadataSource | None:
    """Docker, where a socket is set."""
    if machine.docker_socket is None:
        return None
    return DockerSource(machine.docker_socket, machine.address, machine.workloads, machine.proc, namespaces=machine.namespaces)


# In the order in which they are read: those that know containers before the processes, which are named after them.
KINDS: dict[str, Factory] = {
    "node": lambda machine: machine.identity,
    "docker": docker,
    "proc": lambda machine: ProcSource(machine.processes, machine.address),
}


def register(name: str, factory: Factory) -> None:
    """Add a kind of metadata. Raises RayscopeError where the name is taken."""
    if name in KINDS:
        raise RayscopeError(f"metadata kind {name!r} is registered already; choose another name")
    KINDS[name] = factory


def metadata_sources(
    node: str, docker_socket: str | None = "/var/run/docker.sock", proc: str = "/proc"
) -> tuple[list[Guarded], Processes, Namespaces]:
    """The sources of this machine in the order in which to read them, and what they keep named: its processes and its network namespaces
    (`workload_of` of both)."""
    machine = Machine(node, proc=proc, docker_socket=docker_socket)
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
