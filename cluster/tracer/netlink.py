"""Netlink sockets: dumps and multicast messages as 32-bit words, with the place where each message starts.

Messages are read into one buffer and handed on a chunk at a time. They are walked one by one only to find where they start; all that is
wanted of them is taken column by column, from all messages of a chunk at once (`sockdiag`, `conntrack`).

Layouts: linux/netlink.h. A message is aligned to four bytes and begins with length u32, type u16, flags u16, sequence u32, port u32.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.core.errors import TracerError

NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
SO_RCVBUFFORCE = 33

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_DUMP = 0x300

KIND_MASK = 0x3FFF  # without the bits for "nested" and "network order"

HEADER = struct.Struct("=IHHII")
HEADER_WORDS = HEADER.size // 4
LARGEST = 65_536  # bytes: the kernel's parts of a dump have at most 32 KiB
CHUNK = 262_144  # bytes read before a chunk is handed on
DUMP_TIMEOUT = 5.0  # s without a part; the kernel answers at once or not at all


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some whole messages."""

    words: NDArray[np.uint32]  # valid until the next chunk is asked for
    starts: NDArray[np.int64]  # shape (n,): the word at which each message's header begins
    raw: memoryview  # the same bytes
    lost: bool = False  # the kernel had more to tell than the receive buffer holds (ENOBUFS)


def message(kind: int, flags: int, payload: bytes, sequence: int = 0) -> bytes:
    """One netlink message."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


class Netlink:
    """One netlink socket in the network namespace that the calling thread was in when it was made. Raises OSError."""

    def __init__(self, protocol: int, groups: tuple[int, ...] = (), receive_buffer: int = 0):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        self._buffer = bytearray(0)
        try:
            if receive_buffer:
                set_receive_buffer(self.socket, receive_buffer)
            self.socket.bind((0, 0))
            self.socket.connect((0, 0))  # from now on only the kernel can send to us
            for group in groups:
                self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            self.socket.settimeout(0.0 if groups else DUMP_TIMEOUT)
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def dump(self, kind: int, payload: bytes) -> Iterator[Chunk]:
        """All messages that answer a dump request. Raises OSError with the kernel's reason; what came before it is worth nothing."""
        self._sequence += 1
        self.socket.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, payload, self._sequence))
        done = False
        while not done:
            buffer, size, starts = self._room(), 0, list[int]()
            words = memoryview(buffer).cast("I")
            while not done and size <= CHUNK - LARGEST:
                got = self.socket.recv_into(memoryview(buffer)[size:])
                before, end = len(starts), (size + got + 3) & ~3
                find_starts(words, size // 4, end // 4, starts)
                if words[starts[before] + 2] != self._sequence:  # what is left of a dump that failed
                    del starts[before:]
                    continue
                done = self._ends(words, starts)
                size = end
            yield chunk_of(buffer, size, starts)

    def ask(self, kind: int, payload: bytes) -> Chunk:
        """The one message that answers a request. Raises OSError."""
        self._sequence += 1
        self.socket.send(message(kind, NLM_F_REQUEST, payload, self._sequence))
        buffer = self._room()
        words = memoryview(buffer).cast("I")
        while True:
            size, starts = self.socket.recv_into(buffer), list[int]()
            find_starts(words, 0, (size + 3) // 4, starts)
            if words[starts[0] + 2] == self._sequence:
                self._ends(words, starts)
                return chunk_of(buffer, size, starts)

    def events(self, limit: int = CHUNK) -> Chunk:
        """Multicast messages that have come, as many as fit in `limit` bytes; an empty chunk where there are none. Raises OSError."""
        buffer, size, starts, lost = self._room(), 0, list[int](), False
        words = memoryview(buffer).cast("I")
        view = memoryview(buffer)
        while size <= limit - LARGEST:
            try:
                got = self.socket.recv_into(view[size:])
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            find_starts(words, size // 4, (size + got) // 4, starts)
            size += (got + 3) & ~3
        return chunk_of(buffer, size, starts, lost)

    def _room(self) -> bytearray:
        if not self._buffer:
            self._buffer = bytearray(CHUNK)
        return self._buffer

    @staticmethod
    def _ends(words: memoryview, starts: list[int]) -> bool:
        last = starts[-1]
        kind = words[last + 1] & 0xFFFF
        if kind not in (NLMSG_ERROR, NLMSG_DONE):
            return False
        starts.pop()
        code = words[last + 4] if words[last] > HEADER.size else 0
        if code:
            number = (1 << 32) - code
            raise OSError(number, os.strerror(number))
        return True


def find_starts(words: memoryview, at: int, end: int, starts: list[int]) -> None:
    """Append the word at which each message between `at` and `end` begins."""
    add = starts.append
    while at < end:
        length = words[at]
        if length < HEADER.size:
            raise TracerError(f"netlink: a message of {length} bytes, shorter than its header")
        add(at)
        at += (length + 3) >> 2


def attributes(
    words: NDArray[np.uint32], at: NDArray[np.int64], end: NDArray[np.int64], wanted: tuple[int, ...]
) -> list[NDArray[np.int64]]:
    """Where the wanted attributes of many messages are: one step for the first of each message, one for the second, and so on.

    `at` and `end` are the words between which each message's attributes lie, shape (n,). For each wanted kind, the word of its header in
    each message, 0 where the message has none. (An attribute is length u16, kind u16, then the value.)
    """
    found = [np.zeros(len(at), np.int64) for _ in wanted]
    which = np.arange(len(at))
    while True:
        more = at < end
        if not more.all():
            at, end, which = at[more], end[more], which[more]
        if not len(at):
            return found
        header = words[at]
        kinds = header >> 16 & KIND_MASK
        for kind, places in zip(wanted, found, strict=True):
            here = kinds == kind
            places[which[here]] = at[here]
        at = at + np.maximum((header & 0xFFFF) + 3 >> 2, 1)


def chunk_of(buffer: bytearray, size: int, starts: list[int], lost: bool = False) -> Chunk:
    """A chunk over the first `size` bytes of `buffer`."""
    return Chunk(np.frombuffer(buffer, np.uint32, (size + 3) // 4), np.array(starts, np.int64), memoryview(buffer)[:size], lost)


def set_receive_buffer(sock: socket.socket, size: int) -> None:
    """Ask for a receive buffer of `size` bytes, beyond the system's limit where we may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
