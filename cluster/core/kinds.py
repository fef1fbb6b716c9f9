"""The kinds of metadata: what is kept of a node, a container and a process, and how it becomes a record that travels.

A record is a map of plain values (msgpack can carry it) with `kind`, `workload` and the fields below; what is empty is left out. It holds
nothing that changes by itself (no uptime, no counters), so that a record which is equal to the last one need not travel. Nor does it hold
anything that could be a secret: no environment, no arguments, and of labels only those that a source names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

TEXT_LIMIT = 128  # characters of one name: above the longest that systemd units and images have in practice


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
class Process:
    """A process that owns sockets."""

    uid: str  # "pid-start time in ticks since boot": a pid that is used again is another process
    name: str
    workload: str
    pid: int = 0
    unit: str = ""  # systemd unit
    container: str = ""  # id
    started: int = 0  # s since 1970


Kind = Node | Container | Process


def record(of: Kind) -> dict[str, Any]:
    """The record that travels."""
    values = {each.name: _value(getattr(of, each.name)) for each in fields(of)}
    return {"kind": type(of).__name__.lower(), "workload": of.workload, **{name: value for name, value in values.items() if value}}


def _value(value: Any) -> Any:
    """Tuples as the lists that msgpack gives back, so that a record equals itself after the journey."""
    if isinstance(value, Mapping):
        return {name: _value(each) for name, each in value.items()}
    return [_value(each) for each in value] if isinstance(value, tuple) else value
