"""Netlink sockets: requests, dumps and multicast messages, read into one buffer and handed on a chunk at a time."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.messages import Chunk, ends, find_starts, message, round_up

NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
SO_RCVBUFFORCE = 33

NLM_F_REQUEST = 0x1
NLM_F_DUMP = 0x300

LARGEST = 65_536  # bytes: the kernel's parts of a dump have at most 32 KiB
CHUNK = 1 << 20  # bytes read before a chunk is handed on
TIMEOUT = 5.0  # s without an answer; the kernel answers at once or not at all


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


def set_receive_buffer(sock: socket.socket, size: int) -> None:
    """Ask for a receive buffer of `size` bytes, beyond the system's limit where we may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
