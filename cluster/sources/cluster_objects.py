"""What is kept of the API server's objects: straight from their JSON into small ones, the rest is never built.

Every field that the API calls optional may be absent or null (k8s.io/api, core/v1, discovery/v1, apps/v1, batch/v1).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from cluster.core.kinds import Job, Node, ReplicaSet, Service, line, plain
from cluster.sources.reflector import Resource

NAME_LIMIT = 253  # characters, as the API server itself allows
ADDRESSES_LIMIT = 32  # of one Service or Node
PORTS_LIMIT = 100  # of one Service
PORT_NAME_LIMIT = 63
SELECTOR_LIMIT = 16  # labels of one selector
LABEL_LIMIT = 130  # characters; a prefix may be longer, and is cut
SERVICE_LABEL = "kubernetes.io/service-name"  # on an EndpointSlice: whose it is
SLICES_PAGE = 100  # an EndpointSlice holds up to 1,000 endpoints of some hundred bytes each


Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Lenient(msgspec.Struct, gc=False, rename="camel"):
    """Part of an object as the API server writes it."""


class Owner(Lenient):
    """An owner reference."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(Lenient):
    """ObjectMeta."""

    name: str
    uid: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class ServicePort(Lenient):
    """One port of a Service."""

    port: Port
    protocol: str = "TCP"
    name: str | None = None
    target_port: Port | str | None = None
    node_port: Port | None = None


class ServiceSpec(Lenient):
    """A Service's spec."""

    type: str = "ClusterIP"
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None
    external_name: str = ""
    session_affinity: str = ""


class Ingress(Lenient):
    """One address of a load balancer."""

    ip: str | None = None


class LoadBalancer(Lenient):
    """A Service's load balancer."""

    ingress: list[Ingress] | None = None


class ServiceStatus(Lenient):
    """A Service's status."""

    load_balancer: LoadBalancer | None = None


class ServiceObject(Lenient):
    """A Service."""

    metadata: Meta
    spec: ServiceSpec
    status: ServiceStatus | None = None


class Conditions(Lenient):
    """Of an endpoint; null is not known, which counts as ready."""

    ready: bool | None = None
    serving: bool | None = None


class Endpoint(Lenient):
    """One endpoint."""

    addresses: list[str]
    conditions: Conditions | None = None


class EndpointPort(Lenient):
    """One port that all endpoints of a slice have."""

    name: str | None = None
    protocol: str | None = None
    port: Port | None = None


class SliceObject(Lenient):
    """An EndpointSlice."""

    metadata: Meta
    address_type: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class NodeAddress(Lenient):
    """One address, or name, of a node."""

    type: str = ""
    address: str = ""


class NodeInfo(Lenient):
    """What the kubelet says of its machine."""

    kernel_version: str = ""
    os_image: str = ""


class NodeStatus(Lenient):
    """A node's status."""

    addresses: list[NodeAddress] | None = None
    node_info: NodeInfo | None = None


class NodeObject(Lenient):
    """A Node."""

    metadata: Meta
    status: NodeStatus | None = None


class Partial(Lenient):
    """PartialObjectMetadata."""

    metadata: Meta


class Slice(msgspec.Struct, frozen=True, gc=False):
    """What is kept of an EndpointSlice."""

    service: str  # NAMESPACE/NAME; "" where it is nobody's
    addresses: str  # of the endpoints that take traffic, by spaces: a twentieth of a list of texts
    ports: tuple[tuple[str, int, str], ...]  # name, number (0: any), protocol ("tcp")


_service = msgspec.json.Decoder(ServiceObject)
_slice = msgspec.json.Decoder(SliceObject)
_node = msgspec.json.Decoder(NodeObject)
_partial = msgspec.json.Decoder(Partial)


def service(raw: msgspec.Raw) -> Service:
    """A Service, without its backends."""
    found = _service.decode(raw)
    meta, spec = found.metadata, found.spec
    balancer = found.status.load_balancer if found.status else None
    balanced = [one.ip or "" for one in (balancer.ingress if balancer else None) or ()]
    own = spec.cluster_ips or [spec.cluster_ip or ""]
    return Service(
        uid=_required(meta.uid),
        name=_name(meta.name),
        namespace=_name(meta.namespace),
        type=plain(spec.type),
        addresses=_addresses([*own, *(spec.external_ips or ()), *balanced]),
        ports=tuple(map(_port, (spec.ports or ())[:PORTS_LIMIT])),
        selector=_labels(spec.selector),
        external_name=_name(spec.external_name),
        affinity="" if spec.session_affinity == "None" else plain(spec.session_affinity),
    )


def endpoint_slice(raw: msgspec.Raw) -> Slice:
    """An EndpointSlice: addresses of the endpoints that are ready, or serve their last connections."""
    found = _slice.decode(raw)
    name = (found.metadata.labels or {}).get(SERVICE_LABEL, "")
    if not name or found.address_type not in ("IPv4", "IPv6"):
        return Slice("", "", ())
    texts = (text for endpoint in found.endpoints or () if _serves(endpoint.conditions) for text in endpoint.addresses)
    ports = tuple((one.name or "", one.port or 0, _protocol(one.protocol)) for one in found.ports or ())
    return Slice(_shared(f"{found.metadata.namespace}/{name}"), " ".join(filter(None, map(address, texts))), _shared(ports))


def node(raw: msgspec.Raw) -> Node:
    """A Node."""
    found = _node.decode(raw)
    status = found.status or NodeStatus()
    info = status.node_info or NodeInfo()
    return Node(
        uid=_required(found.metadata.uid),
        name=_name(found.metadata.name),
        addresses=_addresses(one.address for one in status.addresses or () if one.type.endswith("IP")),
        kernel=line(info.kernel_version),
        os=line(info.os_image),
    )


def replica_set(raw: msgspec.Raw) -> ReplicaSet:
    """A ReplicaSet and who owns it."""
    return ReplicaSet(**_owned(raw))


def job(raw: msgspec.Raw) -> Job:
    """A Job and who owns it."""
    return Job(**_owned(raw))


RESOURCES: tuple[Resource[Any], ...] = (
    Resource("services", "", "/api/v1/services", service),
    Resource("endpointslices", "discovery.k8s.io", "/apis/discovery.k8s.io/v1/endpointslices", endpoint_slice, page=SLICES_PAGE),
    Resource("nodes", "", "/api/v1/nodes", node),
    Resource("replicasets", "apps", "/apis/apps/v1/replicasets", replica_set, metadata_only=True),
    Resource("jobs", "batch", "/apis/batch/v1/jobs", job, metadata_only=True),
)


def address(text: str) -> str:
    """An address as it is written everywhere in rayscope; "" for what is none ("None", a host name)."""
    try:
        if "." in text and ":" not in text:
            socket.inet_pton(socket.AF_INET, text)
            return text
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text)).removeprefix("::ffff:")
    except (OSError, ValueError):
        return ""


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(address, texts))))[:ADDRESSES_LIMIT]


def _port(one: ServicePort) -> Mapping[str, Any]:
    values = {
        "port": one.port,
        "protocol": _protocol(one.protocol),
        "name": plain(one.name or "", PORT_NAME_LIMIT),
        "target": plain(one.target_port, PORT_NAME_LIMIT) if isinstance(one.target_port, str) else one.target_port,
        "node_port": one.node_port,
    }
    return {name: value for name, value in values.items() if value}


def _protocol(text: str | None) -> str:
    return str(_shared(plain((text or "TCP").lower(), 16)))


def _labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    few = sorted((labels or {}).items())[:SELECTOR_LIMIT]
    return {_shared(line(name, LABEL_LIMIT)): line(value, LABEL_LIMIT) for name, value in few}


def _owned(raw: msgspec.Raw) -> dict[str, Any]:
    meta = _partial.decode(raw).metadata
    owner = next((one for one in meta.owner_references or () if one.controller), None)
    named = {"kind": _shared(plain(owner.kind)), "name": _name(owner.name), "uid": _required(owner.uid)} if owner else {}
    return {"uid": _required(meta.uid), "name": _name(meta.name), "namespace": _shared(_name(meta.namespace)), "owner": named}


def _serves(conditions: Conditions | None) -> bool:
    return conditions is None or conditions.ready is not False or conditions.serving is True


def _name(text: str) -> str:
    return plain(text, NAME_LIMIT)


def _required(uid: str) -> str:
    if not uid:
        raise ValueError("it has no uid")
    return plain(uid)


@lru_cache(maxsize=65_536)
def _shared(value: Any) -> Any:
    """The same object for equal values, of which thousands are held."""
    return value
