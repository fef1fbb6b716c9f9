"""The little of a pod that is decoded. Environment, arguments, volumes, annotations and managed fields are never made a value.

Source: Kubernetes API, core/v1 PodList, as the kubelet's /pods and the API server give it. Any field may be absent or null; the kubelet's
items carry neither kind nor apiVersion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec import field

from cluster.core.errors import SourceMalformed
from cluster.core.kinds import Owner, Pod, PodContainer, line, plain
from cluster.core.records import named_address

# What the API server lets through: RFC 1123 names, and UIDs that are UUIDs, or 32 digits for a pod from a file of the node.
NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
NAMESPACE = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
UID = re.compile(r"[0-9A-Za-z][-_.0-9A-Za-z]{0,63}")
CONTAINER_ID = re.compile(r"(?:[a-z0-9.+-]{1,32}://)?([0-9a-f]{64})")  # containerd://, cri-o://, docker://
ENDED = ("Succeeded", "Failed")
ADDRESSES_LIMIT = 16
LABELS_LIMIT = 32  # of one pod, in order of their names; with all limits below 30,000 bytes, what a record may have
CONTAINERS_LIMIT = 24
PORTS_LIMIT = 16  # of one container
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # the last: brackets in brackets, thousands deep


class OwnerReference(msgspec.Struct):
    """`metadata.ownerReferences[]`."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Metadata(msgspec.Struct):
    """`metadata`."""

    uid: str
    name: str
    namespace: str = "default"
    labels: dict[str, str | None] | None = None
    owners: list[OwnerReference] | None = field(name="ownerReferences", default=None)
    deleted: str | None = field(name="deletionTimestamp", default=None)


class Port(msgspec.Struct):
    """`spec.containers[].ports[]`."""

    number: int = field(name="containerPort")
    protocol: str | None = None


class ContainerSpec(msgspec.Struct):
    """`spec.containers[]`."""

    name: str
    image: str | None = None
    ports: list[Port] | None = None


class Spec(msgspec.Struct):
    """`spec`."""

    node: str | None = field(name="nodeName", default=None)
    host_network: bool | None = field(name="hostNetwork", default=None)
    containers: list[ContainerSpec] | None = None
    init: list[ContainerSpec] | None = field(name="initContainers", default=None)
    ephemeral: list[ContainerSpec] | None = field(name="ephemeralContainers", default=None)


class Times(msgspec.Struct):
    """`status.containerStatuses[].state.{running,terminated}`."""

    finished: str | None = field(name="finishedAt", default=None)


class Waiting(msgspec.Struct):
    """`status.containerStatuses[].state.waiting`."""


class State(msgspec.Struct):
    """`status.containerStatuses[].state`: at most one of the three."""

    running: Times | None = None
    waiting: Waiting | None = None
    terminated: Times | None = None

    @property
    def name(self) -> str:
        """running, terminated or waiting; "" where none is said."""
        return "running" if self.running else "terminated" if self.terminated else "waiting" if self.waiting else ""


class ContainerStatus(msgspec.Struct):
    """`status.containerStatuses[]`."""

    name: str
    id: str | None = field(name="containerID", default=None)
    image: str | None = None
    state: State | None = None

    @property
    def identity(self) -> str:
        """The container's id without the runtime's name; "" where there is none yet."""
        found = CONTAINER_ID.fullmatch(self.id or "")
        return found[1] if found else ""


class Address(msgspec.Struct):
    """`status.podIPs[]`."""

    ip: str | None = None


class Status(msgspec.Struct):
    """`status`."""

    phase: str | None = None
    started: str | None = field(name="startTime", default=None)
    address: str | None = field(name="podIP", default=None)
    addresses: list[Address] | None = field(name="podIPs", default=None)
    host_address: str | None = field(name="hostIP", default=None)
    containers: list[ContainerStatus] | None = field(name="containerStatuses", default=None)
    init: list[ContainerStatus] | None = field(name="initContainerStatuses", default=None)
    ephemeral: list[ContainerStatus] | None = field(name="ephemeralContainerStatuses", default=None)


class PodObject(msgspec.Struct):
    """A pod."""

    metadata: Metadata
    spec: Spec = field(default_factory=Spec)
    status: Status = field(default_factory=Status)


class ListMetadata(msgspec.Struct):
    """`metadata` of a list."""

    more: str | None = field(name="continue", default=None)


class PodList(msgspec.Struct):
    """A list of pods, which are still bytes."""

    items: list[msgspec.Raw] | None
    metadata: ListMetadata | None = None


_list = msgspec.json.Decoder(PodList)
_pod = msgspec.json.Decoder(PodObject)


@dataclass(frozen=True, slots=True)
class Found:
    """A pod, and the ids of all containers that it has or had, those that ended and those that are not kept included."""

    pod: Pod
    containers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Page:
    """One reply: its pods, how many were refused, how many beyond the limit were left out, and where the list goes on ("": nowhere)."""

    found: tuple[Found, ...]
    refused: int
    left_out: int
    more: str


def decode_pods(body: bytes, limit: int) -> Page:
    """At most `limit` pods of a PodList. Raises SourceMalformed where it is none; a bad pod costs only itself."""
    try:
        decoded = _list.decode(body)
    except UNREADABLE as error:
        raise SourceMalformed(f"not a list of pods: {error}") from error
    items = decoded.items or []
    found = tuple(each for raw in items[:limit] if (each := _decode_one(raw)))
    looked_at = min(len(items), limit)
    more = (decoded.metadata and decoded.metadata.more) or ""
    return Page(found, looked_at - len(found), len(items) - looked_at, more)


def _decode_one(raw: msgspec.Raw) -> Found | None:
    try:
        decoded = _pod.decode(raw)
    except UNREADABLE:
        return None
    metadata = decoded.metadata
    if not (NAME.fullmatch(metadata.name) and NAMESPACE.fullmatch(metadata.namespace) and UID.fullmatch(metadata.uid)):
        return None
    ids = frozenset(identity for status in _statuses(decoded.status) if (identity := status.identity))
    return Found(pod_of(decoded), ids)


def pod_of(decoded: PodObject) -> Pod:
    """The pod as it is kept: bounded, sorted, printable."""
    metadata, spec, status = decoded.metadata, decoded.spec, decoded.status
    return Pod(
        uid=metadata.uid,
        name=metadata.name,
        namespace=metadata.namespace,
        addresses=_addresses(spec, status),
        owner=_owner(metadata.owners or []),
        labels={line(name, 320): line(value or "", 64) for name, value in sorted((metadata.labels or {}).items())[:LABELS_LIMIT]},
        phase=plain(status.phase or "", 16),
        host_network=bool(spec.host_network),
        started=_seconds(status.started),
        ended=_ended(metadata, status),
        node=plain(spec.node or "", 253),
        containers=tuple(_containers(spec, status))[:CONTAINERS_LIMIT],
    )


def _addresses(spec: Spec, status: Status) -> tuple[str, ...]:
    """Each once, in the API's order: the main one is first. A host-network pod has the node's."""
    own = [status.address, *(each.ip for each in status.addresses or ())]
    if spec.host_network:
        own.append(status.host_address)
    return tuple(dict.fromkeys(address for text in own if (address := named_address(text or ""))))[:ADDRESSES_LIMIT]


def _owner(owners: list[OwnerReference]) -> Owner | None:
    found = next((owner for owner in owners if owner.controller), None)
    return Owner(plain(found.kind, 63), plain(found.name, 253), plain(found.uid, 64)) if found else None


def _ended(metadata: Metadata, status: Status) -> int:
    """The end of the last container of a pod that is over or is deleted; one that is deleted and runs still has its addresses."""
    states = [each.state for each in _statuses(status) if each.state]
    if not (metadata.deleted or status.phase in ENDED) or any(state.running for state in states):
        return 0
    return max((_seconds(state.terminated.finished) for state in states if state.terminated), default=_seconds(metadata.deleted))


def _seconds(text: str | None) -> int:
    """RFC 3339, as the API writes times, in s since 1970; 0 for what is no time."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return 0
    return max(0, int(at.timestamp())) if at.tzinfo else 0


def _containers(spec: Spec, status: Status) -> Iterator[PodContainer]:
    """Those of the specification; of those that prepare the pod and those for debugging only what has not ended."""
    states = {each.name: each for each in reversed(list(_statuses(status)))}
    for passing, each in _specified(spec):
        said = states.get(each.name)
        state = said.state.name if said and said.state else ""
        if passing and state in ("terminated", ""):
            continue
        yield PodContainer(
            id=said.identity if said else "",
            name=plain(each.name, 63),
            image=line(each.image or (said.image if said else "") or "", 255),
            ports=_ports(each.ports or []),
            state=state,
        )


def _specified(spec: Spec) -> Iterator[tuple[bool, ContainerSpec]]:
    yield from ((False, each) for each in spec.containers or ())
    yield from ((True, each) for each in (*(spec.init or ()), *(spec.ephemeral or ())))


def _statuses(status: Status) -> Iterator[ContainerStatus]:
    yield from status.containers or ()
    yield from status.init or ()
    yield from status.ephemeral or ()


def _ports(ports: list[Port]) -> tuple[str, ...]:
    found = sorted({(port.number, plain(port.protocol or "TCP", 8).lower()) for port in ports if 0 < port.number < 65_536})
    return tuple(f"{number}/{protocol}" for number, protocol in found[:PORTS_LIMIT])
