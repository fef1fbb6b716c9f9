"""Netlink sockets: dumps and multicast messages as 32-bit words, with the place where each message starts.

Messages are read into one buffer and handed on a chunk at a time. They are walked one by one only to find where they start; all that is
wanted of them is taken column by column, from all messages of a chunk at once (`sockdiag`, `conntrack`).

Layouts: linux/netlink.h. A message is aligned to four bytes and begins with length u32, type u16, flags u16, sequence u32, port u32.
"""

from __future__ import annotations

import errno
import os
import select
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
CHUNK = 1 << 20  # bytes read before a chunk is handed on
SHORT_RUN = 8  # messages of the same length; in shorter runs they are found one by one
WALK = 64  # of them at a time
TIMEOUT = 5.0  # s without an answer; the kernel answers at once or not at all


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some whole messages."""

    words: NDArray[np.uint32]  # valid until the next chunk is asked for
    starts: NDArray[np.int64]  # shape (n,): the word at which each message's header begins
    lost: bool = False  # the kernel had more to tell than the receive buffer holds (ENOBUFS)


def message(kind: int, flags: int, payload: bytes, sequence: int = 0) -> bytes:
    """One netlink message."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


class Netlink:
    """One netlink socket in the network namespace that the calling thread was in when it was made. Raises OSError."""

    _buffer = bytearray()  # one for all: what is read is taken before anything else is read

    def __init__(self, protocol: int, groups: tuple[int, ...] = (), receive_buffer: int = 0):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        if not Netlink._buffer:
            Netlink._buffer = bytearray(CHUNK)
        try:
            if receive_buffer:
                set_receive_buffer(self.socket, receive_buffer)
            self.socket.bind((0, 0))
            self.socket.connect((0, 0))  # from now on only the kernel can send to us
            for group in groups:
                self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            self.socket.setblocking(False)
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
        words = np.frombuffer(self._buffer, np.uint32)
        done = False
        while not done:
            starts = find_starts(words, 0, self._fill(words) // 4)
            done = ends(words, starts)
            yield Chunk(words, starts[:-1] if done else starts)

    def ask(self, kind: int, payload: bytes) -> Chunk:
        """The one message that answers a request. Raises OSError."""
        self._sequence += 1
        self.socket.send(message(kind, NLM_F_REQUEST, payload, self._sequence))
        words = np.frombuffer(self._buffer, np.uint32)
        starts = find_starts(words, 0, self._fill(words) // 4)
        ends(words, starts)
        return Chunk(words, starts)

    def _fill(self, words: NDArray[np.uint32]) -> int:
        """Read what there is, at least one part of the answer to the last request; how many bytes. Raises OSError.

        The kernel makes the next part of a dump while we read one, so there is one as long as the dump goes on.
        """
        view, size = memoryview(self._buffer), 0
        while size <= CHUNK - LARGEST:
            try:
                end = size + round_up(self.socket.recv_into(view[size:]))
            except BlockingIOError:
                if size:
                    break
                self._wait()
                continue
            if int(words[size // 4 + 2]) == self._sequence:  # else it is left of a dump that failed
                size = end
        return size

    def _wait(self) -> None:
        if not select.select([self.socket], [], [], TIMEOUT)[0]:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer over netlink")

    def events(self) -> Chunk:
        """Multicast messages that have come, as many as fit; an empty chunk where there are none. Raises OSError."""
        view, words = memoryview(self._buffer), np.frombuffer(self._buffer, np.uint32)
        size, lost = 0, False
        while size <= CHUNK - LARGEST:
            try:
                size += round_up(self.socket.recv_into(view[size:]))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
        return Chunk(words, find_starts(words, 0, size // 4), lost)


def ends(words: NDArray[np.uint32], starts: NDArray[np.int64]) -> bool:
    """Whether the last message ends a dump. Raises OSError where it tells of an error."""
    last = int(starts[-1])
    if int(words[last + 1]) & 0xFFFF not in (NLMSG_ERROR, NLMSG_DONE):
        return False
    code = int(words[last + 4]) if words[last] > HEADER.size else 0
    if code:
        number = (1 << 32) - code
        raise OSError(number, os.strerror(number))
    return True


def round_up(size: int) -> int:
    """To the next multiple of four, where the next message may begin."""
    return size + 3 & ~3


def find_starts(words: NDArray[np.uint32], at: int, end: int) -> NDArray[np.int64]:
    """The words between `at` and `end` at which a message begins, shape (n,).

    Most messages are as long as the one before. So a run of them is found by one look at every step-th word: as long as these hold the same
    length, each proves the place of the next.
    """
    runs = [np.zeros(0, np.int64)]
    while at < end:
        length = int(words[at])
        step = words_of(length)
        other = np.flatnonzero(words[at:end:step] != length)
        count = int(other[0]) if len(other) else (end - at + step - 1) // step
        if count < SHORT_RUN:
            runs.append(np.array(walk(words, at, end), np.int64))
            last = int(runs[-1][-1])
            at = last + words_of(int(words[last]))
            continue
        runs.append(np.arange(at, at + count * step, step))
        at += count * step
    return np.concatenate(runs)


def walk(words: NDArray[np.uint32], at: int, end: int) -> list[int]:
    """Where the next messages begin, found one by one."""
    lengths = words[at:end].data
    starts: list[int] = []
    place = 0
    while place < len(lengths) and len(starts) < WALK:
        starts.append(at + place)
        place += words_of(lengths[place])
    return starts


def words_of(length: int) -> int:
    """How many words a message of `length` bytes takes. Raises TracerError where it could not even hold its header."""
    if length < HEADER.size:
        raise TracerError(f"netlink: a message of {length} bytes, shorter than its header")
    return length + 3 >> 2


def attributes(
    words: NDArray[np.uint32], at: NDArray[np.int64], end: NDArray[np.int64], wanted: tuple[int, ...]
) -> list[NDArray[np.int64]]:
    """Where the wanted attributes of many messages are.

    `at` and `end` are the words between which each message's attributes lie, shape (n,). For each wanted kind, the word of its header in
    each message, 0 where the message has none. (An attribute is length u16, kind u16, then the value.)
    """
    if not len(at):
        return [np.zeros(0, np.int64) for _ in wanted]
    offsets = layout(words, int(at[0]), int(end[0]))
    if (end - at == end[0] - at[0]).all() and all((words[at + offset] == header).all() for offset, header in offsets):
        places = {header >> 16 & KIND_MASK: at + offset for offset, header in offsets}
        return [places.get(kind, np.zeros(len(at), np.int64)) for kind in wanted]
    return attributes_apart(words, at, end, wanted)


def layout(words: NDArray[np.uint32], at: int, end: int) -> list[tuple[int, int]]:
    """The attributes of one message as (words from `at`, header)."""
    found, place = [], at
    while place < end:
        header = int(words[place])
        found.append((place - at, header))
        place += max((header & 0xFFFF) + 3 >> 2, 1)
    return found


def attributes_apart(
    words: NDArray[np.uint32], at: NDArray[np.int64], end: NDArray[np.int64], wanted: tuple[int, ...]
) -> list[NDArray[np.int64]]:
    """The same where not all messages look alike: one step for the first attribute of each message, one for the second, and so on."""
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


def set_receive_buffer(sock: socket.socket, size: int) -> None:
    """Ask for a receive buffer of `size` bytes, beyond the system's limit where we may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
