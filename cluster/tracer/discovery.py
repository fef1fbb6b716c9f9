"""Finding network namespaces, and letting go of them.

A netlink socket keeps its namespace alive. So one that no process lives in, that is mounted nowhere and of whose sockets none is open any
more is let go of, after a moment in which its last destroy events can arrive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
from pathlib import Path

from cluster.core.errors import TracerError
from cluster.tracer.namespaces import Namespace, inside, tracking_available

OWN = "/proc/thread-self/ns/net"
NAMESPACE = re.compile(r"net:\[(\d+)\]")
OCTAL = re.compile(rb"\\([0-7]{3})")

LIMIT = 1_000  # namespaces; each costs three file descriptors
LOOK_SECONDS = 1.0  # between two looks at new processes
LOOK_AGAIN_SECONDS = 5.0  # between two looks at all of them: a process may have moved
GRACE_SECONDS = 3.0  # that a namespace is kept after the last sign of life
RETRY_SECONDS = 60.0  # before one that could not be entered is tried again


class Namespaces:
    """The namespaces that are traced. Raises TracerError where the tracer's own cannot be."""

    def __init__(self, proc: str, event_buffer: int):
        if not Path(proc, "1").exists():
            raise TracerError(f"{proc} shows no processes: --proc must name where a /proc is mounted")
        self.proc = proc
        self.event_buffer = event_buffer
        self.all: dict[int, Namespace] = {}
        self.refused: dict[int, tuple[str, float]] = {}  # number -> (why it could not be entered, monotonic s when)
        self.tracking = tracking_available()
        self.arrivals = select.epoll()  # readable while any namespace has destroy events that were not read
        self._home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        self.own = os.fstat(self._home).st_ino
        self._pids: set[int] = set()
        self._looked = self._looked_again = float("-inf")
        self._alive: dict[int, str] = {}
        try:
            self._take_in(Namespace(self.own, event_buffer, self.tracking))
        except OSError as error:
            self.close()
            raise TracerError(f"this kernel gives no socket diagnostics over netlink: {error.strerror}") from error

    def close(self) -> None:
        """Let go of all."""
        for namespace in self.all.values():
            namespace.close()
        self.arrivals.close()
        os.close(self._home)

    def refresh(self, now: float, boot_ns: int) -> list[Namespace]:
        """Take in new namespaces; returns those that are to be let go of: the caller reads their last events and closes them."""
        if now - self._looked < LOOK_SECONDS:
            return []
        self._looked = now
        found = self._find(now)
        for inode, path in found.items():
            if inode not in self.all:
                self._add(inode, path, now)
        return [namespace for namespace in self.all.values() if self._is_over(namespace, found, now, boot_ns)]

    def with_events(self) -> list[Namespace]:
        """Those that have destroy events to be read, or have lost some."""
        ready = {fd for fd, _ in self.arrivals.poll(0)}
        return [namespace for namespace in self.all.values() if namespace.events.socket.fileno() in ready] if ready else []

    def remove(self, namespace: Namespace) -> None:
        """Let go of one."""
        namespace.close()
        del self.all[namespace.inode]

    def _find(self, now: float) -> dict[int, str]:
        pids = set(processes(self.proc))
        again = now - self._looked_again >= LOOK_AGAIN_SECONDS
        if again:
            self._looked_again, self._alive = now, {}
            self.refused = {inode: known for inode, known in self.refused.items() if now - known[1] < RETRY_SECONDS}
        self._alive |= lived_in(self.proc, pids if again else pids - self._pids)
        self._pids = pids
        return self._alive | mounted(self.proc)

    def _add(self, inode: int, path: str, now: float) -> None:
        if inode in self.refused:
            return
        if len(self.all) >= LIMIT:
            self.refused[inode] = (f"{LIMIT} namespaces are traced already", now)
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._refuse(inode, error, now)
            return
        try:
            if os.fstat(fd).st_ino == inode:  # else the process has moved or gone: the next look sees
                with inside(fd, self._home):
                    self._take_in(Namespace(inode, self.event_buffer, self.tracking))
        except OSError as error:
            self._refuse(inode, error, now)
        finally:
            os.close(fd)

    def _take_in(self, namespace: Namespace) -> None:
        self.all[namespace.inode] = namespace
        self.arrivals.register(namespace.events.socket, select.EPOLLIN)

    def _refuse(self, inode: int, error: OSError, now: float) -> None:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            self.refused[inode] = (error.strerror or str(error), now)

    def _is_over(self, namespace: Namespace, found: dict[int, str], now: float, boot_ns: int) -> bool:
        if namespace.inode == self.own or namespace.inode in found:
            namespace.gone_since = 0.0
            return False
        namespace.gone_since = namespace.gone_since or now
        if now - namespace.gone_since < GRACE_SECONDS:
            return False
        with contextlib.suppress(OSError):
            return not namespace.holds_sockets(boot_ns)
        return True


def processes(proc: str) -> list[int]:
    """The processes that are there now."""
    with os.scandir(proc) as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]


def lived_in(proc: str, pids: set[int]) -> dict[int, str]:
    """The namespaces of these processes, number to path. Processes that have gone, or may not be looked at, are left out."""
    found: dict[int, str] = {}
    for pid in pids:
        path = f"{proc}/{pid}/ns/net"
        with contextlib.suppress(OSError, ValueError):
            found.setdefault(int(os.readlink(path)[5:-1]), path)  # noqa: PTH115 - thousands of them: no objects
    return found


def mounted(proc: str) -> dict[int, str]:
    """Namespaces that are mounted as files, in /run/netns and elsewhere, as this process and the first one see them: number to path."""
    found: dict[int, str] = {}
    for process, root in (("1", f"{proc}/1/root"), ("self", "")):
        with contextlib.suppress(OSError):
            for line in Path(f"{proc}/{process}/mountinfo").read_bytes().splitlines():
                fields = line.split(b" ")
                match = NAMESPACE.fullmatch(fields[3].decode("latin-1")) if len(fields) > 4 else None
                if match:
                    found[int(match[1])] = root + os.fsdecode(OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), fields[4]))
    return found
