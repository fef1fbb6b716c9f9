"""The little of Docker's answers that is decoded. Everything else, environment, arguments and most labels among it, is never made a value.

Source: Docker Engine API, `GET /containers/json` (ContainerSummary) and `GET /containers/{id}/json` (ContainerInspectResponse). Fields
may be null, and more of them come with every version.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import field

from cluster.core.errors import SourceMalformed
from cluster.core.kinds import Container, line, plain
from cluster.core.records import named_address

ID = re.compile(r"[0-9a-f]{64}")
NETWORKS_LIMIT = 16  # of one container
PORTS_LIMIT = 64
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # the last: brackets in brackets, thousands deep


class Port(msgspec.Struct):
    """A port that the image exposes, and where it is published."""

    private: int = field(name="PrivatePort")
    protocol: str = field(name="Type", default="tcp")
    address: str | None = field(name="IP", default=None)
    public: int | None = field(name="PublicPort", default=None)


class Endpoint(msgspec.Struct):
    """A container's place in one network."""

    v4: str | None = field(name="IPAddress", default=None)
    v6: str | None = field(name="GlobalIPv6Address", default=None)


class Networks(msgspec.Struct):
    """`NetworkSettings`."""

    by_name: dict[str, Endpoint | None] | None = field(name="Networks", default=None)


class Host(msgspec.Struct):
    """`HostConfig`: "host", "none", "container:<id>", or the name of a network."""

    network: str = field(name="NetworkMode", default="")


class Labels(msgspec.Struct):
    """The only labels that are read: those by which Compose, Swarm and Kubernetes say what a container is part of."""

    project: str | None = field(name="com.docker.compose.project", default=None)
    service: str | None = field(name="com.docker.compose.service", default=None)
    swarm_service: str | None = field(name="com.docker.swarm.service.name", default=None)
    pod: str | None = field(name="io.kubernetes.pod.name", default=None)
    pod_namespace: str | None = field(name="io.kubernetes.pod.namespace", default=None)
    pod_uid: str | None = field(name="io.kubernetes.pod.uid", default=None)
    pod_container: str | None = field(name="io.kubernetes.container.name", default=None)


class Listed(msgspec.Struct):
    """One container of the list."""

    id: str = field(name="Id")
    names: list[str] | None = field(name="Names", default=None)
    image: str | None = field(name="Image", default=None)
    state: str | None = field(name="State", default=None)
    ports: list[Port] | None = field(name="Ports", default=None)
    labels: Labels | None = field(name="Labels", default=None)
    host: Host | None = field(name="HostConfig", default=None)
    networks: Networks | None = field(name="NetworkSettings", default=None)

    @property
    def network_mode(self) -> str:
        """`HostConfig.NetworkMode`."""
        return self.host.network if self.host else ""

    @property
    def name(self) -> str:
        """Its own name: of several, links among them ("/other/alias"), the one without a second slash."""
        own = [name.removeprefix("/") for name in self.names or () if "/" not in name.removeprefix("/")]
        return plain(next(iter(own), "")) or self.id[:12]


class State(msgspec.Struct):
    """`State` of an inspected container."""

    pid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = field(name="Pid", default=0)
    started: str = field(name="StartedAt", default="")


class Inspected(msgspec.Struct):
    """An inspected container."""

    state: State = field(name="State")


class Version(msgspec.Struct):
    """`GET /version`."""

    version: str = field(name="Version", default="")
    api: str = field(name="ApiVersion", default="")


_array = msgspec.json.Decoder(list[msgspec.Raw])
_listed = msgspec.json.Decoder(Listed)
_inspected = msgspec.json.Decoder(Inspected)
_version = msgspec.json.Decoder(Version)


def decode_list(body: bytes, limit: int) -> tuple[list[Listed], int, int]:
    """(containers, how many were refused, how many beyond `limit` were not looked at). Raises SourceMalformed where it is no list."""
    try:
        each = _array.decode(body)
    except UNREADABLE as error:
        raise SourceMalformed(f"/containers/json: not a JSON list: {error}") from error
    good = [container for raw in each[:limit] if (container := _decode_one(raw))]
    return good, len(each[:limit]) - len(good), len(each) - len(each[:limit])


def _decode_one(raw: msgspec.Raw) -> Listed | None:
    try:
        container = _listed.decode(raw)
    except UNREADABLE:
        return None
    return container if ID.fullmatch(container.id) else None


def decode_inspected(body: bytes) -> State:
    """Pid and start of one container. Raises SourceMalformed."""
    try:
        return _inspected.decode(body).state
    except UNREADABLE as error:
        raise SourceMalformed(f"/containers/ID/json: {error}") from error


def decode_version(body: bytes) -> str:
    """Docker's version for people. Raises SourceMalformed."""
    try:
        found = _version.decode(body)
    except UNREADABLE as error:
        raise SourceMalformed(f"/version: {error}") from error
    return f"{plain(found.version)} (API {plain(found.api)})"


def container_of(listed: Listed, state: State, host_network: bool) -> Container:
    """The container as it is kept: bounded, sorted, printable."""
    ports = sorted({(port.private, plain(port.protocol, 8)) for port in listed.ports or ()})
    return Container(
        uid=listed.id,
        name=listed.name,
        image=line(listed.image or "", 255),
        pid=state.pid,
        state=plain(listed.state or "", 16),
        started=plain(state.started, 40),
        networks=networks_of(listed),
        host_network=host_network,
        ports=tuple(f"{number}/{protocol}" for number, protocol in ports[:PORTS_LIMIT]),
        published=_published(listed),
        labels=_labels(listed.labels or Labels()),
    )


def networks_of(listed: Listed) -> dict[str, tuple[str, ...]]:
    """Network -> the container's addresses in it, for the networks in which it has any."""
    by_name = (listed.networks and listed.networks.by_name) or {}
    found = ((plain(name), _addresses(endpoint)) for name, endpoint in sorted(by_name.items()) if endpoint)
    return dict(islice(((name, addresses) for name, addresses in found if addresses), NETWORKS_LIMIT))


def _addresses(endpoint: Endpoint) -> tuple[str, ...]:
    return tuple(address for text in (endpoint.v4, endpoint.v6) if (address := named_address(text or "")))


def _published(listed: Listed) -> tuple[str, ...]:
    found = sorted({(port.private, _where(port)) for port in listed.ports or () if port.public})
    return tuple(text for _, text in found)[:PORTS_LIMIT]


def _where(port: Port) -> str:
    address = plain(port.address or "", 45)
    return f"{f'[{address}]' if ':' in address else address}:{port.public}->{port.private}/{plain(port.protocol, 8)}"


def _labels(labels: Labels) -> dict[str, str]:
    return {name: plain(value) for name, value in sorted(msgspec.to_builtins(labels).items()) if value}
