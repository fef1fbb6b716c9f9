"""The addresses of this machine, from the kernel by rtnetlink (rtnetlink(7), RTM_GETADDR)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

from cluster.core.errors import SourceMalformed, SourceTimeout
from cluster.core.records import format_address, pack_address

RTM_NEWADDR, RTM_GETADDR = 20, 22
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFA_ADDRESS, IFA_LOCAL = 1, 2
ADDRESSES_LIMIT = 128  # each is in the node's record, and the record stands under each
TIMEOUT = 2.0  # s; the kernel answers at once
SHARED = ("kube-ipvs0", "nodelocaldns")  # interfaces whose addresses every node of a Kubernetes cluster has: they name no machine


def local_addresses() -> tuple[str, ...]:
    """The machine's own addresses, by interface number: at most ADDRESSES_LIMIT, the main interface's first as a rule.

    Left out are those that name no machine to another one: loopback, link-local, and those of the SHARED interfaces.
    Raises SourceError.
    """
    own = [found for found in _dump() if _names_us(found[2])]
    own.sort(key=lambda found: (found[1], found[0]))  # by interface, IPv4 first; else as the kernel lists them
    texts = (text for _, index, text in own if _interface(index) not in SHARED)
    return tuple(dict.fromkeys(texts))[:ADDRESSES_LIMIT]


def _names_us(text: str) -> bool:
    address = ip_address(text)
    return not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it went away meanwhile
        return ""


def _dump() -> Iterator[tuple[int, int, str]]:
    """(family, interface number, address) of every address in this network namespace."""
    request = struct.pack("=IHHIIBxxxi", 24, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, socket.AF_UNSPEC, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(TIMEOUT)
        try:
            kernel.send(request)
            while True:
                for kind, body in _messages(kernel.recv(262_144)):
                    if kind == NLMSG_DONE:
                        return
                    if kind == NLMSG_ERROR:
                        raise SourceMalformed("the kernel refused to list this machine's addresses (rtnetlink RTM_GETADDR)")
                    if kind == RTM_NEWADDR:
                        yield from _address(body)
        except TimeoutError as error:
            raise SourceTimeout(f"the kernel did not list this machine's addresses within {TIMEOUT:g} s (rtnetlink)") from error


def _messages(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(buffer):
        length, kind = struct.unpack_from("=IH", buffer, at)
        if length < 16:
            return
        yield kind, buffer[at + 16 : at + length]
        at += (length + 3) & ~3


def _address(body: bytes) -> Iterator[tuple[int, int, str]]:
    family, index = struct.unpack_from("=BxxxI", body)
    attributes: dict[int, bytes] = {}
    at = 8
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        attributes[kind] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    packed = attributes.get(IFA_LOCAL, attributes.get(IFA_ADDRESS))  # point to point: IFA_ADDRESS is the other end
    if family in (socket.AF_INET, socket.AF_INET6) and packed is not None:
        yield family, index, format_address(pack_address(socket.inet_ntop(family, packed)))
