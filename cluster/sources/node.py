"""The machine itself: its name, addresses, kernel and operating system, so that traffic to its own addresses is "node/NAME"."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.core.kinds import Node, line, plain, record
from cluster.core.records import format_address, pack_address
from cluster.sources.addresses import local_addresses

READ_LIMIT = 65_536  # bytes of one file of the system
USE = b"rayscope node"


class NodeSource:
    """A MetadataSource: one record, under each address of the machine ("node/NAME" where it has none but loopback).

    `root` is the file system whose /etc tells the operating system: in a pod, where the host's is mounted.
    """

    name = "node"

    def __init__(
        self,
        node: str,
        proc: str | Path = "/proc",
        root: str | Path = "/",
        addresses: Callable[[], Sequence[str]] = local_addresses,
    ) -> None:
        self._node = node
        self._proc = Path(proc)
        self._root = Path(root)
        self._addresses = addresses

    def read(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The record, under each address. Raises SourceError."""
        node = Node(
            uid=node_uid(self._node, self._root),
            name=plain(self._node),
            addresses=tuple(self._addresses()),
            kernel=line(first_line(self._proc / "sys/kernel/osrelease") or os.uname().release),
            os=line(os_name(self._root)),
        )
        packed = record(node)
        return {(address, node.uid): packed for address in node.addresses or (node.workload,)}

    def address(self) -> str:
        """Where records stand of what has no address of its own: the machine's first address. Raises SourceError."""
        return next(iter(self._addresses()), f"node/{plain(self._node)}")


def node_addresses(host: str = "") -> tuple[str, ...]:
    """The machine's addresses. `host`: the one that a pod is told of its node ("" outside of pods), which is all that a pod with a network
    of its own can know. Raises SourceError."""
    own = local_addresses()
    try:
        told = format_address(pack_address(host))
    except ValueError:
        return own
    return own if told in own else (told,)


def node_uid(name: str, root: Path) -> str:
    """An id that outlives a boot, 32 hexadecimal digits.

    A keyed hash of the machine id, never the machine id itself, which machine-id(5) asks to keep confidential. The name goes in too: the
    machine ids of copied machines, and of containers, can be equal.
    """
    machine = first_line(root / "etc/machine-id") or ""
    return hmac.new(machine.encode(), USE + b"\0" + name.encode(), hashlib.sha256).hexdigest()[:32]


def os_name(root: Path) -> str:
    """PRETTY_NAME of os-release(5); "" where there is none."""
    for path in (root / "etc/os-release", root / "usr/lib/os-release"):
        for entry in _text(path).splitlines():
            key, _, value = entry.partition("=")
            if key == "PRETTY_NAME":
                return value.strip().strip("\"'")
    return ""


def first_line(path: Path) -> str:
    """The first line of a file, stripped; "" where it cannot be read."""
    return next(iter(_text(path).splitlines()), "").strip()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(READ_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
