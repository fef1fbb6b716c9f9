"""Who the two ends of a row are: the one place that decides it.

The local end is the workload that the collector gives, or what that pod belongs to. The remote end is what the collector gives; else the
Service that a client meets there; else who had that address then; else a name for what is outside. A loopback address that the collector
could not resolve is unattributed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import Columns
from cluster.core.identities import MOVED
from cluster.core.intern import Interned
from cluster.core.metadata import Metadata
from cluster.core.networks import Networks
from cluster.core.pairs import endpoint
from cluster.core.records import Direction, Role, format_address, is_address, pack_address

UNATTRIBUTED = "unattributed"  # an end on the node that stayed unknown
EXTERNAL = "external/"
UNSURE = (UNATTRIBUTED, MOVED, EXTERNAL)
# What is noted of a cached answer: how sure it is (ASKED: each row is asked for), and bits.
UNKNOWN, GUESSED, KNOWN, ASKED, SURENESS = 0, 1, 2, 3, 3
TIMED = 4  # it holds only from a time on
CONTESTED = 8  # several workloads have had the address
Texts = NDArray[np.uint32]
Bools = NDArray[np.bool_]


def is_client(rows: Columns) -> Bools:
    """Whether the local end is the client: by role, else by direction, else the lower port is the server's (0 stands for a folded high
    one)."""
    role, direction = rows["role"], rows["direction"]
    ports = [np.where(rows[port] == 0, 65_536, rows[port]) for port in ("sport", "dport")]
    by_direction = np.where(direction == Direction.OUTGOING, True, np.where(direction == Direction.INCOMING, False, ports[0] >= ports[1]))
    known: Bools = np.where(role == Role.CLIENT, True, np.where(role == Role.SERVER, False, by_direction))
    return known


class Ends:
    """Names ends; answers are cached by address and by text until metadata moves them."""

    def __init__(
        self,
        addresses: Interned[bytes],
        texts: Interned[str],
        metadata: Metadata,
        externals_limit: int,
        networks: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._addresses, self._texts, self._metadata = addresses, texts, metadata
        self._limit = externals_limit
        self._networks = Networks(networks or {})
        self._text: Texts = np.zeros(0, np.uint32)  # by address number
        self._notes: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._front: Bools = np.zeros(0, np.bool_)  # whether a Service may be met there
        self._back: Bools = np.zeros(0, np.bool_)  # whether an endpoint of a Service has it
        self._since: NDArray[np.uint32] = np.zeros(0, np.uint32)  # s since 1970, of TIMED ones; no longer than these need
        self._owner: Texts = np.zeros(0, np.uint32)  # by text number
        self._owned: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._fronts_of = -1  # the version of the records that `_front` shows
        self._fronting: frozenset[bytes] = frozenset()
        self._backing: frozenset[bytes] = frozenset()
        self.externals: set[str] = set()

    # The remote end, by its address

    def remote(self, node: str, address: str, at: float) -> tuple[str, bool]:
        """The workload that had `address` at that time as seen on `node`, and whether it is known (else it is the best guess)."""
        if _is_loopback(address):  # whose it is in that namespace, only the collector can tell
            return UNATTRIBUTED, False
        found = self._metadata.identities.who(node, address, at)
        if found is not None:
            return found, not found.startswith(MOVED)
        named = self._networks.name_of(address)
        return (EXTERNAL + named, True) if named else (self._external(address), False)

    def _external(self, address: str) -> str:
        for text in (EXTERNAL + address, EXTERNAL + _network(address)):
            if text in self.externals or len(self.externals) < self._limit * (2 if text.count("/") > 1 else 1):
                self.externals.add(text)
                return text
        return EXTERNAL + "other"

    def remotes(self, node: str, dest: Texts, at: NDArray[np.uint32], now: float) -> tuple[Texts, Bools]:
        """For address numbers, and the times at which their rows were first seen: the text number of who was there, and whether it is
        known."""
        self._reserve()
        for number in np.unique(dest[self._notes[dest] & SURENESS == UNKNOWN]).tolist():
            self._ask(node, number, now)
        texts, notes = self._text[dest], self._notes[dest]
        known = notes & SURENESS == KNOWN
        asked = notes & SURENESS == ASKED
        if len(timed := np.flatnonzero(notes & TIMED)):
            asked[timed] |= at[timed] < self._since[dest[timed]]
        for place in np.flatnonzero(asked):
            text, known[place] = self.remote(node, format_address(self._addresses.values[dest[place]]), float(at[place]))
            texts[place] = self._texts.number(text)
        return texts, known

    def _reserve(self) -> None:
        missing = len(self._addresses) - len(self._text)
        if missing > 0:
            self._text = np.concatenate([self._text, np.zeros(missing, np.uint32)])
            self._notes = np.concatenate([self._notes, np.zeros(missing, np.uint8)])

    def _ask(self, node: str, number: int, now: float) -> None:
        address = format_address(self._addresses.values[number])
        identities = self._metadata.identities
        since = identities.steady_since(address, now)
        text, known = self.remote(node, address, max(now, since))
        self._text[number] = self._texts.number(text)
        notes = ASKED if identities.depends_on_node(address, now) else KNOWN if known else GUESSED
        if since > 0:
            notes |= TIMED
            if number >= len(self._since):
                self._since = np.concatenate([self._since, np.zeros(len(self._addresses) - len(self._since), np.uint32)])
            self._since[number] = math.ceil(since)
        self._notes[number] = notes | (CONTESTED if identities.is_contested(address) else 0)

    # Services

    def fronted(self, dest: Texts) -> Bools:
        """For address numbers: whether a client may meet a Service there."""
        return self._look_at_services()[0][dest]

    def behind_services(self, source: Texts) -> Bools:
        """For address numbers: whether an endpoint of some Service has it."""
        return self._look_at_services()[1][source] if self._metadata.services else np.zeros(len(source), np.bool_)

    def _look_at_services(self) -> tuple[Bools, Bools]:
        services = self._metadata.services
        if self._fronts_of != self._metadata.fronts:
            self._fronts_of = self._metadata.fronts
            met = [*services.addresses(), *self._metadata.identities.machines()] if services else []
            self._fronting, self._backing = _packed(met), _packed(services.endpoint_addresses())
            self._front, self._back = self._front[:0], self._back[:0]
        fresh = self._addresses.values[len(self._front) :]
        if fresh:
            self._front = np.concatenate([self._front, np.fromiter(map(self._fronting.__contains__, fresh), np.bool_, len(fresh))])
            self._back = np.concatenate([self._back, np.fromiter(map(self._backing.__contains__, fresh), np.bool_, len(fresh))])
        return self._front, self._back

    def contested(self, dest: Texts) -> Bools:
        """For address numbers: whether more than one workload has had it."""
        self._reserve()
        return self._notes[dest] & CONTESTED > 0

    def services(self, dest: Texts, port: NDArray[np.uint16], protocol: NDArray[np.uint8]) -> Texts:
        """For address numbers with ports and protocols: the text number of the Service and port that a client meets there, as
        service/NAMESPACE/NAME:PORT; 0 where there is none."""
        places, which = np.unique(endpoint(dest, port, protocol), return_inverse=True)
        return np.array([self._service(one >> 24, one >> 8 & 0xFFFF, one & 0xFF) for one in places.tolist()], np.uint32)[which]

    def _service(self, address: int, port: int, protocol: int) -> int:
        text = format_address(self._addresses.values[address])
        front = self._metadata.services.at(text, port, protocol, node=self._metadata.identities.is_machine(text))
        return self._texts.number(f"{front.service}:{port}") if front else 0

    def endpoints(self, service: str, protocol: int) -> frozenset[int]:
        """The endpoints behind a row's `service` text, as `pairs.endpoint` numbers of addresses that some row has."""
        found = self._metadata.services.behind(service, protocol)
        numbers = ((self._addresses.find(pack_address(address)), port) for address, port in found if is_address(address))
        return frozenset(number << 24 | port << 8 | protocol for number, port in numbers if number is not None)

    # What a pod belongs to

    def owners(self, texts: Texts) -> tuple[Texts, Bools]:
        """For text numbers: those of the workloads that they belong to, and whether these are known."""
        if (missing := len(self._texts) - len(self._owner)) > 0:
            self._owner = np.concatenate([self._owner, np.zeros(missing, np.uint32)])
            self._owned = np.concatenate([self._owned, np.zeros(missing, np.uint8)])
        for number in np.unique(texts[self._owned[texts] == UNKNOWN]).tolist():
            owner, known = self._metadata.owners.workload(self._texts.values[number])
            self._owner[number] = self._texts.number(owner)
            self._owned[number] = KNOWN if known else GUESSED
        return self._owner[texts], self._owned[texts] == KNOWN

    # Forgetting

    def forget(self, numbers: NDArray[np.intp]) -> None:
        """These addresses may be somebody else now."""
        self._reserve()
        self._notes[numbers] = UNKNOWN

    def forget_owners(self, texts: set[str]) -> Bools:
        """These pods, and those of these owners, may belong to something else now; by text number, which they are."""
        numbers = [number for text in self._metadata.owners.below(texts) if (number := self._texts.find(text)) is not None]
        concerned = np.zeros(len(self._texts), np.bool_)
        concerned[numbers] = True
        self._owned[concerned[: len(self._owned)]] = UNKNOWN
        return concerned

    def forget_all(self) -> None:
        """The tables were renumbered."""
        self._text, self._notes, self._since = self._text[:0], self._notes[:0], self._since[:0]
        self._front, self._back = self._front[:0], self._back[:0]
        self._owner, self._owned = self._owner[:0], self._owned[:0]


def is_guess(text: str) -> bool:
    """Whether a text stands for an end that is not known."""
    return text.startswith(UNSURE)


def _packed(addresses: Iterable[str]) -> frozenset[bytes]:
    return frozenset(pack_address(text) for text in addresses if is_address(text))


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _network(address: str) -> str:
    """The /24 or /48 that an address is in."""
    return str(ip_network(f"{address}/{24 if '.' in address else 48}", strict=False))
