"""The kinds of metadata: what is kept of a node, a pod, a container, a process, a Service, an owner of pods, and how it becomes a record
that travels.

A record is a map of plain values (msgpack can carry it) with `kind`, `workload` and the fields below; what is empty is left out. It holds
nothing that changes by itself (no uptime, no counters), so that a record which is equal to the last one need not travel. Nor does it hold
anything that could be a secret: no environment, no arguments, and of labels only those that a source names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

TEXT_LIMIT = 128  # characters of one name: above the longest that systemd units and images have in practice
WORKLOAD_LIMIT = 300  # characters of a workload; the rest is cut off


def plain(text: str, limit: int = TEXT_LIMIT) -> str:
    """A name as it may be shown and stored: printable, without `/`, at most `limit` characters; others become `_`."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() and character != "/" else "_" for character in cut).strip()


def line(text: str, limit: int = TEXT_LIMIT) -> str:
    """Like `plain`, for texts in which `/` is ordinary: images, versions."""
    return "/".join(plain(piece, limit) for piece in text[:limit].split("/"))


@dataclass(frozen=True, slots=True)
class Node:
    """A machine. Its record stands under each of its addresses; what has no address of its own stands under `addresses[0]`."""

    uid: str
    name: str
    addresses: tuple[str, ...] = ()
    kernel: str = ""
    os: str = ""

    @property
    def workload(self) -> str:
        """What the node's own traffic belongs to."""
        return f"node/{self.name}"


@dataclass(frozen=True, slots=True)
class Container:
    """A running container. `pid` is that of its first process as the host numbers it; 0 is not known."""

    uid: str  # its id, 64 hexadecimal digits
    name: str
    image: str = ""
    pid: int = 0
    state: str = ""  # running, paused or restarting
    started: str = ""  # RFC 3339
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # network -> its addresses there
    host_network: bool = False
    ports: tuple[str, ...] = ()  # "80/tcp"
    published: tuple[str, ...] = ()  # "0.0.0.0:8080->80/tcp"
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def workload(self) -> str:
        """What the container's traffic belongs to."""
        return f"container/{self.name}"


@dataclass(frozen=True, slots=True)
class PodContainer:
    """A container of a pod. `pid` is that of its first process as the host numbers it; 0 is not known."""

    id: str  # 64 hexadecimal digits as a rule, without the runtime's name; "" before it was made
    name: str
    image: str = ""
    ports: tuple[str, ...] = ()  # "8080/tcp"
    state: str = ""  # running, waiting or terminated
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Owner:
    """What controls a pod."""

    kind: str  # as the API writes it: ReplicaSet
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of one node. Its record stands under each of its addresses, of a host-network pod under the node's."""

    uid: str
    name: str
    namespace: str
    addresses: tuple[str, ...] = ()
    owner: Owner | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    phase: str = ""  # Pending, Running, Succeeded, Failed or Unknown
    host_network: bool = False
    started: int = 0  # s since 1970: when the kubelet took it
    ended: int = 0  # s since 1970: when its last container ended; 0 while it runs, and where that is not known
    node: str = ""
    containers: tuple[PodContainer, ...] = ()

    @property
    def workload(self) -> str:
        """What the pod's traffic belongs to."""
        return f"pod/{self.namespace}/{self.name}"[:WORKLOAD_LIMIT]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that owns sockets."""

    uid: str  # "pid-start time in ticks since boot": a pid that is used again is another process
    name: str
    workload: str
    pid: int = 0
    unit: str = ""  # systemd unit
    container: str = ""  # id
    started: int = 0  # s since 1970


@dataclass(frozen=True, slots=True)
class Service:
    """A Kubernetes Service. Its record stands under each of its addresses; without any under `workload`.

    A record holds a part of the backends where they are many: `uid` then ends in "+1", "+2" ..., and such a record has nothing else.
    """

    uid: str
    name: str
    namespace: str
    type: str = ""  # ClusterIP, NodePort, LoadBalancer or ExternalName
    addresses: tuple[str, ...] = ()  # cluster IPs, external IPs, load balancers' IPs
    ports: tuple[Mapping[str, Any], ...] = ()  # port, protocol ("tcp"), name, target (number or name), node_port
    selector: Mapping[str, str] = field(default_factory=dict)
    external_name: str = ""
    affinity: str = ""  # ClientIP; "" is none
    backends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # "80/tcp" of the Service, or "" where any port -> "IP:PORT"

    @property
    def workload(self) -> str:
        """What traffic with the Service's addresses belongs to, as far as they tell."""
        return f"service/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """Who owns pods, and by whom it is owned: `owner` has kind, name and uid, or is empty. It stands under `workload`."""

    uid: str
    name: str
    namespace: str
    owner: Mapping[str, str] = field(default_factory=dict)

    @property
    def workload(self) -> str:
        """It has no traffic but that of its pods."""
        return f"{type(self).__name__.lower()}/{self.namespace}/{self.name}"


class Job(ReplicaSet):
    """Likewise, of batch/v1."""

    __slots__ = ()


Kind = Node | Container | Pod | Process | Service | ReplicaSet | Job


def record(of: Kind) -> dict[str, Any]:
    """The record that travels."""
    return {"kind": type(of).__name__.lower(), "workload": of.workload, **_fields(of)}


def _fields(of: Any) -> dict[str, Any]:
    values = {each.name: _value(getattr(of, each.name)) for each in fields(of)}
    return {name: value for name, value in values.items() if value}


def _value(value: Any) -> Any:
    """Tuples as the lists that msgpack gives back, so that a record equals itself after the journey."""
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {name: _value(each) for name, each in value.items()}
    return [_value(each) for each in value] if isinstance(value, tuple) else value
