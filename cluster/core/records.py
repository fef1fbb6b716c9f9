"""The enumerations and identities that every layer shares."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address

COUNTER_LIMIT = 1 << 61  # bytes that no socket can count: 400 Gbit/s for a year; sums of rows stop there, too, so that none wraps
SUM_LIMITS = {"sent": COUNTER_LIMIT, "recv": COUNTER_LIMIT, "retransmits": 2**32 - 1}  # where what a row sums up stops
V4_PREFIX = bytes(10) + b"\xff\xff"


class Protocol(IntEnum):
    """A tracer's `type`."""

    TCP = 0
    UDP = 1


class Direction(IntEnum):
    """A tracer's `direction` in its newer numbering (builds from 2019-03-25)."""

    UNSPECIFIED = 0
    INCOMING = 1
    OUTGOING = 2
    LOCAL = 3
    NONE = 4


class Role(IntEnum):
    """Which side of a connection the local end is."""

    UNKNOWN = 0
    CLIENT = 1
    SERVER = 2


class Flag(IntFlag):
    """Bits of a row's `flags` column."""

    CLOSED = 1
    BYTES_UNKNOWN = 2  # UDP without conntrack: the counters mean nothing and are shown as unknown
    RECV_INEXACT = 4  # the received bytes may be one too high: an unproven FIN
    FOLDED = 8  # a sum of many rows; its ephemeral port is 0
    SETTLED = 16  # the aggregate's own: the row's bytes are in an exported counter
    SURE = 32  # the aggregate's own: both ends of the row's edge are known, not guessed


class Proof(IntFlag):
    """What an edge's view rests on: how the two ends of its rows were told."""

    PROCESS = 1  # the local end, by the process that has the socket or listens on its port, and that one's cgroup
    NAMESPACE = 2  # the local end, by its network namespace, which is one container's or one pod's
    NODE = 4  # the other end, by the node itself, which has both
    ADDRESS = 8  # the other end, by who had the address then
    MATCH = 16  # the other end, by the one row that is its view of the same connection


def pack_address(text: str) -> bytes:
    """An address as 16 bytes, IPv4 as v4-mapped. Raises ValueError."""
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return V4_PREFIX + address.packed
    return address.packed


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def named_address(text: str) -> str:
    """An address as connections have it; "" for what is none, or names nobody to others (unspecified, loopback)."""
    try:
        address = format_address(pack_address(text))
    except ValueError:
        return ""
    return "" if ip_address(address).is_unspecified or ip_address(address).is_loopback else address


def format_address(packed: bytes) -> str:
    """16 bytes as people write them; v4-mapped addresses as IPv4."""
    if packed.startswith(V4_PREFIX):
        return f"{packed[12]}.{packed[13]}.{packed[14]}.{packed[15]}"
    return str(IPv6Address(packed))


def transaction_key(source: str, dest: str, sport: int, dport: int) -> str:
    """The key of a transaction: `ip_source-ip_dest-port_src-port_dest`, source being the local end."""
    return f"{source}-{dest}-{sport}-{dport}"
