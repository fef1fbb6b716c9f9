"""Who the two ends of a row are: the one place that decides it.

On one machine: the local end is the workload that the collector gives; the remote end is what the collector gives, else who has that
address by metadata, else an address outside. A loopback address that the collector could not resolve is unattributed. The joins of the
service map (Services, endpoints, the two views of one connection) belong into `remote`.
"""

from __future__ import annotations

from ipaddress import ip_network

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import Columns
from cluster.core.intern import Interned
from cluster.core.metadata import Metadata
from cluster.core.records import Direction, Role, format_address

UNATTRIBUTED = "unattributed"  # an end on the node that stayed unknown
EXTERNAL = "external/"
UNKNOWN, GUESSED, KNOWN, PER_NODE = range(4)  # how sure the cached answer for an address is


def is_client(rows: Columns) -> NDArray[np.bool_]:
    """Whether the local end is the client: by role, else by direction, else the lower port is the server's (0 stands for a folded high
    one)."""
    role, direction = rows["role"], rows["direction"]
    ports = [np.where(rows[port] == 0, 65_536, rows[port]) for port in ("sport", "dport")]
    by_direction = np.where(direction == Direction.OUTGOING, True, np.where(direction == Direction.INCOMING, False, ports[0] >= ports[1]))
    known: NDArray[np.bool_] = np.where(role == Role.CLIENT, True, np.where(role == Role.SERVER, False, by_direction))
    return known


class Ends:
    """Names remote ends; answers are cached by address until metadata moves it."""

    def __init__(self, addresses: Interned[bytes], texts: Interned[str], metadata: Metadata, externals_limit: int) -> None:
        self._addresses, self._texts, self._metadata = addresses, texts, metadata
        self._limit = externals_limit
        self._text: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._sure: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.externals: set[str] = set()

    def remote(self, node: str, address: str) -> tuple[str, bool]:
        """The workload at `address` as seen on `node`, and whether it is known (else it is only the best guess so far)."""
        if _is_loopback(address):  # whose it is in that namespace, only the collector can tell
            return UNATTRIBUTED, False
        found = self._metadata.workload(node, address)
        return (found, True) if found else (self._external(address), False)

    def _external(self, address: str) -> str:
        for text in (EXTERNAL + address, EXTERNAL + _network(address)):
            if text in self.externals or len(self.externals) < self._limit * (2 if text.count("/") > 1 else 1):
                self.externals.add(text)
                return text
        return EXTERNAL + "other"

    def remotes(self, node: str, dest: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """For address numbers: the text number of who is there, and whether it is known."""
        self._reserve()
        for number in np.unique(dest[self._sure[dest] == UNKNOWN]):
            self._ask(node, int(number))
        texts, sure = self._text[dest], self._sure[dest]
        known = sure == KNOWN
        for place in np.flatnonzero(sure == PER_NODE):
            text, known[place] = self.remote(node, format_address(self._addresses.values[dest[place]]))
            texts[place] = self._texts.number(text)
        return texts, known

    def _reserve(self) -> None:
        missing = len(self._addresses) - len(self._text)
        if missing > 0:
            self._text = np.concatenate([self._text, np.zeros(missing, np.uint32)])
            self._sure = np.concatenate([self._sure, np.zeros(missing, np.uint8)])

    def _ask(self, node: str, number: int) -> None:
        address = format_address(self._addresses.values[number])
        text, known = self.remote(node, address)
        self._text[number] = self._texts.number(text)
        self._sure[number] = PER_NODE if self._metadata.is_shared(address) else KNOWN if known else GUESSED

    def forget(self, numbers: NDArray[np.intp]) -> None:
        """These addresses may be somebody else now."""
        self._reserve()
        self._sure[numbers] = UNKNOWN

    def forget_all(self) -> None:
        """The tables were renumbered."""
        self._text, self._sure = self._text[:0], self._sure[:0]


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _network(address: str) -> str:
    """The /24 or /48 that an address is in."""
    return str(ip_network(f"{address}/{24 if '.' in address else 48}", strict=False))
