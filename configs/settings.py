"""The settings: one class per concern; each field has a default and a sentence with its unit and what null means.

`configs/default.yaml` is written from this file (`rayscope config --defaults`), and a test keeps the two equal.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Interval = Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, lt=2**63)]
NodeName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$",
        json_schema_extra={"allowed": "at most 63 letters, digits, '-', '_' and '.', the first and last a letter or digit"},
    ),
]
SocketPath = Annotated[str, Field(min_length=1, max_length=107)]  # sockaddr_un.sun_path less its NUL, unix(7)
FilePath = Annotated[str, Field(min_length=1, max_length=4095)]  # PATH_MAX less its NUL


class Section(BaseModel):
    """A group of settings; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(Section):
    """Who this machine is."""

    name: NodeName | None = Field(default=None, description="Name of this node; null takes the host name.")


class TracerSettings(Section):
    """Where connections come from."""

    socket: SocketPath | None = Field(
        default=None, description="Path of the tracer's unix socket; null is rayscope/tracer.sock in the runtime directory."
    )
    start: bool = Field(default=True, description="Whether `up` starts our own tracer where nothing answers on the socket.")
    protocol: Literal["auto", "http", "document"] = Field(
        "auto", description="How the socket speaks: http, document (it writes the JSON and closes), or auto to find out."
    )
    zero_is: Literal["new", "old"] = Field(
        "new", description="Numbering of `direction` where a reply does not show it: new (1 incoming) or old (0 incoming)."
    )
    timeout: Positive = Field(10.0, description="Seconds for one whole reply.")
    reply_limit: Count = Field(256_000_000, description="Bytes of the largest reply that is read.")


class CollectorSettings(Section):
    """How a node's connections are read and sent."""

    interval: Interval = Field(1.0, description="Seconds between two polls of the tracer.")
    metadata_interval: Interval = Field(10.0, description="Seconds between two reads of containers and processes.")
    rows_limit: Count = Field(200_000, description="Rows held at one collector; beyond it closed connections are summed into fold rows.")
    absent_after: Positive = Field(
        120.0,
        description="Seconds that a connection may be missing from the replies of a tracer without `state` before it counts as closed.",
    )
    gone_after: Positive = Field(
        600.0,
        description="Seconds that a node may be away before it counts as gone and its collector is removed, to be made anew if it returns.",
    )
    docker_socket: SocketPath | None = Field(
        "/var/run/docker.sock", description="Path of Docker's Engine API socket; null does not ask Docker."
    )
    proc: str = Field(
        "/proc", min_length=1, max_length=4096, description="Path of the machine's /proc; in a pod, where the node's is mounted."
    )


class AggregatorSettings(Section):
    """The one owner of transactions, metadata and edges."""

    rows_limit: Count = Field(1_000_000, description="Rows held; beyond it closed connections are summed into fold rows.")
    externals_limit: Count = Field(10_000, description="Outside addresses told apart; beyond it they are summed per /24 (IPv6 /48).")
    call_timeout: Positive = Field(10.0, description="Seconds that a caller waits for one answer of an actor.")


class StoreSettings(Section):
    """What survives."""

    path: FilePath | None = Field(default=None, description="The SQLite file; null is rayscope/rayscope.db in the XDG state directory.")
    commit_interval: Interval = Field(2.0, description="Seconds between two commits.")
    retention: Positive = Field(
        604_800.0, description="Seconds that a closed connection stays in the store before it is summed into its fold row."
    )
    size_limit: Count = Field(2_000_000_000, description="Bytes of the store; beyond it the oldest closed connections are folded first.")


class KubernetesSettings(Section):
    """The cluster that we run in."""

    mode: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether the API server is watched and published to; auto: where a pod's service account is there."
    )
    kubeconfig: FilePath | None = Field(
        default=None, description="Path of a kubeconfig file to use instead of the pod's service account; null takes the pod's own."
    )
    namespace: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        json_schema_extra={"allowed": "a DNS label: at most 63 lower-case letters, digits and '-'"},
        description="Namespace of our ConfigMaps and Lease; null takes the pod's own.",
    )
    timeout: Positive = Field(10.0, description="Seconds for one answer of the API server; a watch may be silent for longer.")


class KubeletSettings(Section):
    """Where a node's pods come from."""

    mode: Literal["auto", "kubelet", "apiserver", "off"] = Field(
        "auto",
        description="Who is asked for the node's pods: kubelet, apiserver (a fallback that needs its own rights), nobody (off); "
        "auto: the kubelet where a pod's service account is there.",
    )
    host: str | None = Field(
        default=None, min_length=1, max_length=253, description="Address of the kubelet; null takes the variable HOST_IP of the pod."
    )
    port: int = Field(10250, ge=1, le=65535, description="Port of the kubelet.")
    ca_file: FilePath | None = Field(
        default=None, description="Path of the certificates that sign kubelets; null takes those of the service account."
    )
    insecure_tls: bool = Field(
        default=False, description="Whether the kubelet's certificate is not verified; shown in status. Set ca_file instead where you can."
    )
    service_account: FilePath = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount",
        description="Path of the directory with the service account's token and ca.crt; both are read again at each use.",
    )
    timeout: Positive = Field(10.0, description="Seconds for one whole reply.")
    reply_limit: Count = Field(64_000_000, description="Bytes of the largest reply that is read.")


class PublishSettings(Section):
    """The ConfigMaps `transactions` and `metadata`, and those that continue them."""

    enabled: bool = Field(default=True, description="Whether the ConfigMaps are written where the API server is used.")
    interval: Interval = Field(60.0, description="Seconds between two publications.")
    bytes_per_round: Count = Field(4_194_304, description="Bytes written in one publication at most; the rest waits for the next.")
    pages: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="ConfigMaps of each kind at most, of 1 MiB each; what does not fit is counted, the busiest is kept."
    )
    lease_seconds: Annotated[int, Field(ge=2, le=3600)] = Field(15, description="Seconds that the publisher's Lease lasts without renewal.")


class RaySettings(Section):
    """How Ray is started or joined."""

    address: str | None = Field(default=None, description="Address of a running Ray; null starts one on this machine.")
    namespace: str = Field("rayscope", min_length=1, max_length=100, description="Ray namespace of the actors.")
    dashboard: bool = Field(default=True, description="Whether a Ray that we start has its dashboard.")
    dashboard_port: int = Field(8265, ge=0, le=65535, description="Port of that dashboard; the next free one where it is taken.")
    temp_dir: str | None = Field(
        default=None, description="Directory of the sockets and logs of a Ray that we start; null is Ray's own default."
    )
    object_store_bytes: Annotated[int, Field(ge=78_643_200, lt=2**63)] = Field(
        100_000_000, description="Bytes of the object store of a Ray that we start; Ray refuses less than 78,643,200."
    )


class Settings(Section):
    """Everything that can be set."""

    node: NodeSettings = NodeSettings()
    tracer: TracerSettings = TracerSettings()
    collector: CollectorSettings = CollectorSettings()
    aggregator: AggregatorSettings = AggregatorSettings()
    store: StoreSettings = StoreSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    kubelet: KubeletSettings = KubeletSettings()
    publish: PublishSettings = PublishSettings()
    ray: RaySettings = RaySettings()
