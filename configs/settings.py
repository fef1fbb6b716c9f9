"""The settings: one class per concern; each field has a default and a sentence with its unit and what None means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A group of settings; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(Section):
    """Who this machine is."""

    name: str | None = Field(default=None, description="Name of this node; None takes the host name.")


class TracerSettings(Section):
    """Where connections come from."""

    socket: str | None = Field(
        default=None, description="Path of the tracer's unix socket; None is rayscope/tracer.sock in the runtime directory."
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

    interval: Positive = Field(1.0, description="Seconds between two polls of the tracer.")
    metadata_interval: Positive = Field(10.0, description="Seconds between two reads of containers and processes.")
    rows_limit: Count = Field(200_000, description="Rows held at one collector; beyond it closed connections are summed into fold rows.")
    absent_after: Positive = Field(
        120.0,
        description="Seconds that a connection may be missing from the replies of a tracer without `state` before it counts as closed.",
    )
    docker_socket: str | None = Field("/var/run/docker.sock", description="Docker's Engine API socket; None does not ask Docker.")


class AggregatorSettings(Section):
    """The one owner of transactions, metadata and edges."""

    rows_limit: Count = Field(1_000_000, description="Rows held; beyond it closed connections are summed into fold rows.")
    externals_limit: Count = Field(10_000, description="Outside addresses told apart; beyond it they are summed per /24 (IPv6 /48).")
    call_timeout: Positive = Field(10.0, description="Seconds that a caller waits for one answer of an actor.")


class StoreSettings(Section):
    """What survives."""

    path: str | None = Field(default=None, description="The SQLite file; None is rayscope/rayscope.db in the XDG state directory.")
    commit_interval: Positive = Field(2.0, description="Seconds between two commits.")
    retention: Positive = Field(
        604_800.0, description="Seconds that a closed connection stays in the store before it is summed into its fold row."
    )
    size_limit: Count = Field(2_000_000_000, description="Bytes of the store; beyond it the oldest closed connections are folded first.")


class RaySettings(Section):
    """How Ray is started or joined."""

    address: str | None = Field(default=None, description="Address of a running Ray; None starts one on this machine.")
    namespace: str = Field("rayscope", description="Ray namespace of the actors.")
    dashboard: bool = Field(default=True, description="Whether a Ray that we start has its dashboard.")
    dashboard_port: int = Field(8265, ge=0, le=65535, description="Port of that dashboard; the next free one where it is taken.")
    object_store_bytes: Count = Field(100_000_000, description="Bytes of the object store of a Ray that we start.")


class Settings(Section):
    """Everything that can be set."""

    node: NodeSettings = NodeSettings()
    tracer: TracerSettings = TracerSettings()
    collector: CollectorSettings = CollectorSettings()
    aggregator: AggregatorSettings = AggregatorSettings()
    store: StoreSettings = StoreSettings()
    ray: RaySettings = RaySettings()
