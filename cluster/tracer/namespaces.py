"""Network namespaces: finding them, and one of them with its netlink sockets.

A netlink socket keeps its namespace alive. So a namespace that no process lives in and that is mounted nowhere is let go of, after a
moment in which its last destroy events can arrive.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from cluster.core.errors import TracerError
from cluster.tracer import sockdiag
from cluster.tracer.netlink import NETLINK_SOCK_DIAG, Netlink
from cluster.tracer.rows import TCP, UDP, Rows, join, keys_of, new_rows

CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"
NAMESPACE = re.compile(r"net:\[(\d+)\]")
ABSENT = (
    errno.ENOENT,
    errno.EOPNOTSUPP,
    errno.EAFNOSUPPORT,
    errno.EPROTONOSUPPORT,
    errno.EINVAL,
)  # what a kernel without the module answers

LIBC = ctypes.CDLL(None, use_errno=True)


def enter(fd: int) -> None:
    """Move this thread into the namespace. Raises OSError."""
    if LIBC.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def inside(path: str, home: int) -> Iterator[None]:
    """Be in the namespace at `path`, and come back to that of `home` (a file descriptor). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(fd)
    finally:
        os.close(fd)
    try:
        yield
    finally:
        try:
            enter(home)
        except OSError as error:  # nothing that is read from here on could be trusted
            raise TracerError(f"cannot return to the tracer's own network namespace: {error.strerror}") from error


class Namespace:
    """One network namespace: its dumps and its destroy events. Made while the thread is in it. Raises OSError."""

    def __init__(self, inode: int, event_buffer: int):
        self.inode = inode
        self.diag = Netlink(NETLINK_SOCK_DIAG)
        try:
            self.events = Netlink(NETLINK_SOCK_DIAG, groups=sockdiag.DESTROY_GROUPS, receive_buffer=event_buffer)
        except OSError:
            self.diag.close()
            raise
        self.lacks: dict[tuple[int, int], str] = {}  # (family, protocol) that this kernel cannot dump, and why
        self.gone_since = 0.0  # monotonic s; 0: alive

    def close(self) -> None:
        """Let go of the namespace."""
        self.diag.close()
        self.events.close()

    def dump(self, protocol: int, states: int, now: int) -> Rows:
        """Its sockets of one protocol in any of `states`, both families. Raises OSError."""
        parts: list[Rows] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            if (family, protocol) in self.lacks:
                continue
            try:
                parts.extend(sockdiag.dump(self.diag, family, protocol, states, now))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                self.lacks[family, protocol] = os.strerror(error.errno)
        return self._mine(join(parts))

    def sockets(self, now: int) -> Rows:
        """All TCP and UDP sockets, listening and unconnected ones too, without those in TIME_WAIT. Raises OSError."""
        return join([self.dump(TCP, sockdiag.TCP_STATES, now), self.dump(UDP, sockdiag.UDP_STATES, now)])

    def destroyed(self, now: int) -> tuple[Rows, bool]:
        """The sockets that died since the last call, as far as they fit in a chunk, and whether events were lost. Raises OSError."""
        chunk = self.events.events()
        if not len(chunk.starts):
            return new_rows(0), chunk.lost
        return self._mine(sockdiag.decode(chunk, now)), chunk.lost

    def _mine(self, rows: Rows) -> Rows:
        rows["net_ns"] = self.inode
        rows["key"] = keys_of(rows, self.inode)
        return rows


def mounted() -> dict[int, str]:
    """Namespaces that are mounted as files, /run/netns and elsewhere: number to path."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            fields = line.split(" ")
            match = NAMESPACE.fullmatch(fields[3]) if len(fields) > 4 else None
            if match:
                found[int(match[1])] = fields[4].encode().decode("unicode_escape")
    return found


def lived_in(pids: list[int]) -> dict[int, str]:
    """Namespaces in which these processes live: number to path. Processes that may not be looked at, or are gone, are left out."""
    found: dict[int, str] = {}
    for pid in pids:
        path = f"/proc/{pid}/ns/net"
        with contextlib.suppress(OSError, ValueError):
            found.setdefault(int(os.readlink(path)[5:-1]), path)  # noqa: PTH115 - many thousands of them: no objects
    return found


def processes() -> list[int]:
    """The processes that /proc shows now."""
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]
