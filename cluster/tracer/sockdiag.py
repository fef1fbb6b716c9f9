"""Socket diagnostics: what the kernel says of its sockets, as columns.

Layouts: linux/inet_diag.h, linux/sock_diag.h, linux/tcp.h. A message is, after the netlink header: family, state, timer, retrans (u8
each), the tuple (ports and addresses in network order, interface, cookie), expires, rqueue, wqueue, uid, inode (u32 each), then attributes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.messages import Chunk, attributes
from cluster.tracer.netlink import Netlink
from cluster.tracer.rows import TCP, UDP, Rows, new_rows

SOCK_DIAG_BY_FAMILY = 20
DESTROY_GROUPS = (1, 2, 3, 4)  # TCP and UDP over IPv4, TCP and UDP over IPv6

INET_DIAG_INFO = 2
INET_DIAG_PROTOCOL = 10
INET_DIAG_CGROUP_ID = 21

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = range(1, 12)
AFTER_FIN = (CLOSE_WAIT, LAST_ACK, CLOSING)  # states that a connection reaches only by the peer's FIN
TCP_STATES = sum(1 << state for state in (ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING))
TIME_WAIT_STATES = 1 << TIME_WAIT | 1 << FIN_WAIT2
UDP_STATES = 1 << ESTABLISHED | 1 << CLOSE  # connected, and not

REQUEST = struct.Struct("=BBBBI48s")
FAMILY, PORTS, SOURCE, DEST, COOKIE, RQUEUE, INODE, ATTRIBUTES = 4, 5, 6, 10, 15, 18, 21, 22  # words after the message's start
# Words of struct tcp_info; the last is there from Linux 4.19 on.
LAST_SENT, LAST_RECEIVED, LAST_ACK_RECEIVED, RETRANSMITS, BYTES_RECEIVED, BYTES_SENT, BYTES_RETRANSMITTED = 11, 13, 14, 25, 32, 50, 52
INFO_WORDS = 54
V4_MAPPED = np.uint32(0xFFFF0000)  # the third word of ::ffff:0:0/96 in memory order (little-endian)


def dump(link: Netlink, family: int, protocol: int, states: int, now: int) -> Iterator[Rows]:
    """The sockets of one family and protocol (TCP or UDP), a chunk of rows at a time. Raises OSError."""
    number = socket.IPPROTO_TCP if protocol == TCP else socket.IPPROTO_UDP
    extensions = 1 << (INET_DIAG_INFO - 1) if protocol == TCP else 0
    request = REQUEST.pack(family, number, extensions, 0, states, bytes(40) + b"\xff" * 8)
    for chunk in link.dump(SOCK_DIAG_BY_FAMILY, request):
        rows = decode(chunk, now)
        rows["protocol"] = protocol
        yield rows


def is_remains(rows: Rows) -> NDArray[np.bool_]:
    """TCP rows that stand for a socket that has died, under its cookie: one that waits for the peer's FIN after a close is kept as a
    TIME_WAIT one, and dumped as FIN_WAIT2 (tcp_time_wait and inet_twsk_diag_fill in the kernel). They have no owner and no counters."""
    remains: NDArray[np.bool_] = (rows["tcp_state"] == FIN_WAIT2) & (rows["inode"] == 0) & ~rows["bytes_known"]
    return remains


def decode(chunk: Chunk, now: int) -> Rows:
    """The rows of a chunk of socket messages, read at `now` (ns since boot). `received` is the kernel's count, a FIN included."""
    words = chunk.words
    at = chunk.starts[(words[chunk.starts + 1] & 0xFFFF) == SOCK_DIAG_BY_FAMILY]
    rows = new_rows(len(at))
    first, ports = words[at + FAMILY], words[at + PORTS]
    rows["tcp_state"] = first >> 8
    rows["sport"] = (ports & 0xFFFF).astype(np.uint16).byteswap()
    rows["dport"] = (ports >> 16).astype(np.uint16).byteswap()
    rows["cookie"] = long(words, at + COOKIE)
    rows["rqueue"] = words[at + RQUEUE]
    rows["inode"] = words[at + INODE]
    v4 = (first & 0xFF) == socket.AF_INET
    addresses(words, at + SOURCE, v4, rows["source"])
    addresses(words, at + DEST, v4, rows["dest"])
    rows["family"] = ~v4 & ((rows["source"][:, 2] != V4_MAPPED) | (rows["source"][:, 0] | rows["source"][:, 1]).astype(np.bool_))
    decode_attributes(words, at, rows, now)
    return rows


def addresses(words: NDArray[np.uint32], at: NDArray[np.int64], v4: NDArray[np.bool_], into: NDArray[np.uint32]) -> None:
    """Write the addresses at `at` as 16 bytes, IPv4 as v4-mapped, into (n, 4)."""
    v6 = everywhere(~v4)
    into[:, 2] = V4_MAPPED
    into[:, 3] = words[at]
    for word in range(4):
        into[v6, word] = words[at[v6] + word]


def decode_attributes(words: NDArray[np.uint32], at: NDArray[np.int64], rows: Rows, now: int) -> None:
    """Take what the attributes say: counters, cgroup and, in destroy events, the protocol."""
    end = at + (words[at] + 3 >> 2)
    infos, cgroups, protocols = attributes(words, at + ATTRIBUTES, end, (INET_DIAG_INFO, INET_DIAG_CGROUP_ID, INET_DIAG_PROTOCOL))
    rows["updated"] = now
    known = infos > 0
    known[known] = (words[infos[known]] & 0xFFFF) >= 4 + 4 * INFO_WORDS
    take_info(words, infos, rows, everywhere(known), now)
    which = everywhere(cgroups > 0)
    rows["cgroup_id"][which] = long(words, cgroups[which] + 1)
    which = everywhere(protocols > 0)
    rows["protocol"][which] = np.where(words[protocols[which] + 1] & 0xFF == socket.IPPROTO_TCP, TCP, UDP)


def everywhere(mask: NDArray[np.bool_]) -> NDArray[np.int64] | slice:
    """What the mask selects, as a slice where that is all or nothing: much cheaper."""
    which = np.flatnonzero(mask)
    return slice(0, len(which)) if len(which) in (0, len(mask)) else which


def take_info(words: NDArray[np.uint32], infos: NDArray[np.int64], rows: Rows, which: NDArray[np.int64] | slice, now: int) -> None:
    """Take the counters out of each struct tcp_info. Payload sent is what was sent less what was sent again."""
    place = infos[which] + 1
    sent = long(words, place + BYTES_SENT)
    rows["sent"][which] = sent - np.minimum(long(words, place + BYTES_RETRANSMITTED), sent)  # a failed resend is counted as one, too
    rows["received"][which] = long(words, place + BYTES_RECEIVED)
    rows["retransmits"][which] = words[place + RETRANSMITS]
    rows["bytes_known"][which] = True
    ago = np.minimum(np.minimum(words[place + LAST_SENT], words[place + LAST_RECEIVED]), words[place + LAST_ACK_RECEIVED])
    rows["updated"][which] = now - np.minimum(ago.astype(np.int64) * 1_000_000, now)


def long(words: NDArray[np.uint32], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The 64-bit values at `at`, which are aligned to four bytes only."""
    return words[at].astype(np.uint64) | words[at + 1].astype(np.uint64) << np.uint64(32)
