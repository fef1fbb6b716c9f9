"""Connection tracking over ctnetlink: what UDP sockets sent and received, and where translated connections really go.

Only where a namespace tracks already: nothing is loaded, no setting is changed and no rule is added. Layouts:
linux/netfilter/nfnetlink_conntrack.h; all values are in network order. A message is the netlink header, family u8, version u8, resource
u16, then attributes. The counters are there only where net.netfilter.nf_conntrack_acct is 1; they count whole packets, headers included.
"""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.messages import Chunk, attributes
from cluster.tracer.netlink import NETLINK_NETFILTER, Netlink
from cluster.tracer.rows import TCP, UDP
from cluster.tracer.sockdiag import V4_MAPPED

SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
GET, GET_STATS = SUBSYSTEM | 1, SUBSYSTEM | 5
NFGENMSG = bytes(4)
BODY = 5  # words from a message's start to its attributes

ORIG, REPLY, COUNTERS_ORIG, COUNTERS_REPLY, ID = 1, 2, 9, 10, 12
TUPLE_IP, TUPLE_PROTO = 1, 2
V4_SRC, V4_DST, V6_SRC, V6_DST = 1, 2, 3, 4
PROTO_NUM, PROTO_SRC_PORT, PROTO_DST_PORT = 1, 2, 3
PACKETS, BYTES = 1, 2
GLOBAL_ENTRIES = 1
PROTOCOLS = {socket.IPPROTO_TCP: TCP, socket.IPPROTO_UDP: UDP}
HEADERS = (28, 48)  # bytes of the IP and UDP headers of one packet, IPv4 and IPv6

ENTRIES_LIMIT = 200_000  # entries of one namespace; where there are more, they are not read

FLOW = np.dtype(
    [
        ("net_ns", np.uint32),
        ("id", np.uint32),
        ("source", np.uint32, (4,)),
        ("dest", np.uint32, (4,)),
        ("nat_source", np.uint32, (4,)),  # the other direction as it is on the far side of the translation
        ("nat_dest", np.uint32, (4,)),
        ("sent", np.uint64),  # payload bytes from source to dest; UDP only
        ("received", np.uint64),
        ("sport", np.uint16),
        ("dport", np.uint16),
        ("nat_sport", np.uint16),
        ("nat_dport", np.uint16),
        ("protocol", np.uint8),
        ("counted", np.bool_),
        ("nat", np.bool_),  # whether the other direction is not just the reverse
    ]
)
Flows = NDArray[np.void]  # shape (n,), dtype FLOW


def available() -> bool:
    """Whether this kernel tracks connections and can tell of them without a module being loaded for us."""
    modules = {line.split(" ", 1)[0] for line in lines("/proc/modules")}
    if "nf_conntrack" in modules:
        return "nf_conntrack_netlink" in modules
    return Path("/proc/net/stat/nf_conntrack").exists()


def lines(path: str) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


class Conntrack:
    """The tracked connections of one namespace. Made while the thread is in it. Raises OSError."""

    def __init__(self, net_ns: int):
        self.net_ns = net_ns
        self.link = Netlink(NETLINK_NETFILTER)
        self.entries = 0  # when last asked
        self.counts = False  # whether the last entries that were read had counters

    def close(self) -> None:
        """Close the socket."""
        self.link.close()

    def flows(self) -> Flows:
        """Each tracked TCP or UDP connection twice, once from each of its ends. Raises OSError."""
        self.entries = self._entries()
        if not 0 < self.entries <= ENTRIES_LIMIT:
            return np.zeros(0, FLOW)
        parts = [decode(chunk, self.net_ns) for chunk in self.link.dump(GET, NFGENMSG)]
        flows = np.concatenate(parts) if parts else np.zeros(0, FLOW)
        self.counts = bool(flows["counted"].any())
        return flows

    def _entries(self) -> int:
        chunk = self.link.ask(GET_STATS, NFGENMSG)
        end = chunk.starts + (chunk.words[chunk.starts] + 3 >> 2)
        (place,) = attributes(chunk.words, chunk.starts + BODY, end, (GLOBAL_ENTRIES,))
        return int(chunk.words[place + 1].byteswap()[0]) if len(place) and place[0] else 0


def decode(chunk: Chunk, net_ns: int) -> Flows:
    """The flows of a chunk of conntrack messages."""
    words, at = chunk.words, chunk.starts
    end = at + (words[at] + 3 >> 2)
    orig, reply, sent, received, ids = attributes(words, at + BODY, end, (ORIG, REPLY, COUNTERS_ORIG, COUNTERS_REPLY, ID))
    there = np.zeros(len(at), FLOW)
    there["net_ns"] = net_ns
    there["id"] = words[ids + 1]
    known = take_tuple(words, orig, there)
    back = there.copy()
    known &= take_tuple(words, reply, back)
    family = np.where(there["source"][:, 2] == V4_MAPPED, *HEADERS)
    there["counted"] = back["counted"] = (sent > 0) & (received > 0)
    there["sent"] = back["received"] = payload(words, sent, family)
    there["received"] = back["sent"] = payload(words, received, family)
    turned = (there["source"] == back["dest"]).all(axis=1) & (there["dest"] == back["source"]).all(axis=1)
    turned &= (there["sport"] == back["dport"]) & (there["dport"] == back["sport"])
    for one, other in ((there, back), (back, there)):
        one["nat"] = ~turned
        for name in ("source", "dest", "sport", "dport"):
            one[f"nat_{name}"] = other[name]
    return np.concatenate([there[known], back[known]])


def take_tuple(words: NDArray[np.uint32], at: NDArray[np.int64], into: Flows) -> NDArray[np.bool_]:
    """Take one direction's addresses and ports; where that could be done. `at`: its attribute in each message, 0 for none."""
    ip, proto = nested(words, at, (TUPLE_IP, TUPLE_PROTO))
    v4_source, v4_dest, v6_source, v6_dest = nested(words, ip, (V4_SRC, V4_DST, V6_SRC, V6_DST))
    number, sport, dport = nested(words, proto, (PROTO_NUM, PROTO_SRC_PORT, PROTO_DST_PORT))
    v4 = v4_source > 0
    for name, four, six in (("source", v4_source, v6_source), ("dest", v4_dest, v6_dest)):
        into[name][:, 2] = V4_MAPPED
        into[name][:, 3] = words[four + 1]
        for word in range(4):
            into[name][~v4, word] = words[six[~v4] + 1 + word]
    into["sport"] = (words[sport + 1] & 0xFFFF).astype(np.uint16).byteswap()
    into["dport"] = (words[dport + 1] & 0xFFFF).astype(np.uint16).byteswap()
    numbers = words[number + 1] & 0xFF
    into["protocol"] = np.where(numbers == socket.IPPROTO_TCP, TCP, UDP)
    whole: NDArray[np.bool_] = (v4 & (v4_dest > 0) | (v6_source > 0) & (v6_dest > 0)) & (number > 0) & (sport > 0) & (dport > 0)
    return whole & np.isin(numbers, list(PROTOCOLS))


def nested(words: NDArray[np.uint32], at: NDArray[np.int64], wanted: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """The wanted attributes inside the attribute at `at` of each message; 0 where there is none."""
    end = np.where(at > 0, at + ((words[at] & 0xFFFF) + 3 >> 2), 0)
    return attributes(words, at + 1, end, wanted)


def payload(words: NDArray[np.uint32], at: NDArray[np.int64], header: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Bytes of one direction less the headers of its packets; 0 where there are no counters."""
    packets, size = (wide(words, place) for place in nested(words, at, (PACKETS, BYTES)))
    heads = packets * header.astype(np.uint64)
    return np.where((at > 0) & (size >= heads), size - np.minimum(heads, size), 0)


def wide(words: NDArray[np.uint32], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The 64-bit values of the attributes at `at`."""
    high, low = words[at + 1].byteswap().astype(np.uint64), words[at + 2].byteswap().astype(np.uint64)
    return high << np.uint64(32) | low
