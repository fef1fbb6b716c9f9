"""One network namespace with its netlink sockets: dumps, destroy events and connection tracking."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cluster.core.errors import TracerError
from cluster.tracer import conntrack, sockdiag
from cluster.tracer.conntrack import FLOW, Conntrack, Flows
from cluster.tracer.netlink import NETLINK_SOCK_DIAG, Netlink
from cluster.tracer.rows import TCP, UDP, Rows, join, keys_of, new_rows

CLONE_NEWNET = 0x40000000
ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)  # what a kernel without that protocol answers
EPHEMERAL = (32_768, 60_999)  # the kernel's own choice of local ports, where the setting cannot be read

LIBC = ctypes.CDLL(None, use_errno=True)


def enter(fd: int) -> None:
    """Move this thread into the namespace. Raises OSError."""
    if LIBC.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def inside(fd: int, home: int) -> Iterator[None]:
    """Be in the namespace of `fd`, and come back to that of `home`. Raises OSError."""
    enter(fd)
    try:
        yield
    finally:
        try:
            enter(home)
        except OSError as error:  # nothing that is read from here on could be trusted
            raise TracerError(f"cannot return to the tracer's own network namespace: {error.strerror}") from error


class Namespace:
    """One network namespace. Made while the thread is in it. Raises OSError."""

    def __init__(self, inode: int, event_buffer: int, tracking: bool):
        self.inode = inode
        self.ephemeral = ephemeral_ports()
        self.lacks: dict[tuple[int, int], str] = {}  # (family, protocol) that this kernel cannot dump, and why
        self.gone_since = 0.0  # monotonic s since nobody lives in it; 0: somebody does
        self.lost_at = 0  # ns since boot, when destroy events were lost; 0: never, or made up for
        self.conntrack: Conntrack | None = None
        self.untracked = ""  # why connection tracking is not read
        self.diag = Netlink(NETLINK_SOCK_DIAG)
        try:
            self.events = Netlink(NETLINK_SOCK_DIAG, groups=sockdiag.DESTROY_GROUPS, receive_buffer=event_buffer)
        except OSError:
            self.diag.close()
            raise
        if tracking:
            self._track()

    def _track(self) -> None:
        try:
            self.conntrack = Conntrack(self.inode)
        except OSError as error:
            self.untracked = error.strerror or str(error)

    def close(self) -> None:
        """Let go of the namespace."""
        self.diag.close()
        self.events.close()
        if self.conntrack:
            self.conntrack.close()

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
        """All TCP sockets but those in TIME_WAIT, and UDP sockets that are connected or wait on a port of their own. Raises OSError."""
        udp = self.dump(UDP, sockdiag.UDP_STATES, now)
        first, last = self.ephemeral
        serves = (udp["sport"] != 0) & ((udp["sport"] < first) | (udp["sport"] > last))
        tcp = self.dump(TCP, sockdiag.TCP_STATES, now)
        return join([tcp[~sockdiag.is_remains(tcp)], udp[(udp["dport"] != 0) | serves]])

    def left_behind(self, now: int) -> Rows:
        """What is in TIME_WAIT or FIN_WAIT2 without a socket, after a close by this end. Raises OSError."""
        rows = self.dump(TCP, sockdiag.TIME_WAIT_STATES, now)
        left: Rows = rows[~rows["bytes_known"]]
        return left

    def destroyed(self, now: int) -> tuple[Rows, bool]:
        """The sockets that died since the last call, as far as they fit in a chunk, and whether events were lost. Raises OSError."""
        chunk = self.events.events()
        if chunk.lost:
            self.lost_at = now
        if not len(chunk.starts):
            return new_rows(0), chunk.lost
        return self._mine(sockdiag.decode(chunk, now)), chunk.lost

    def discard(self) -> None:
        """Throw away the destroy events that have come: nobody wants them."""
        while len(self.events.events().starts):
            pass
        self.lost_at = 0

    def flows(self) -> Flows:
        """Its tracked connections; none where it tracks nothing or may not tell."""
        if not self.conntrack:
            return np.zeros(0, FLOW)
        try:
            return self.conntrack.flows()
        except OSError as error:
            self.untracked = error.strerror or str(error)
            if error.errno in (errno.EPERM, *ABSENT):
                self.conntrack.close()
                self.conntrack = None
            return np.zeros(0, FLOW)

    def holds_sockets(self, now: int) -> bool:
        """Whether a process has a socket of this namespace open, wherever that process lives. Raises OSError."""
        return bool(self.sockets(now)["inode"].any())

    def _mine(self, rows: Rows) -> Rows:
        rows["net_ns"] = self.inode
        rows["key"] = keys_of(rows, self.inode)
        return rows


def tracking_available() -> bool:
    """Whether there is connection tracking to be read."""
    return conntrack.available()


def ephemeral_ports() -> tuple[int, int]:
    """The local ports that the kernel chooses from in this thread's namespace: a UDP socket on one of them is no server."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return EPHEMERAL
