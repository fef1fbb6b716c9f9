"""One connection to a unix socket: bytes under one deadline, and who is at the other end.

The deadline is for the whole exchange, not for each read: a peer that trickles a byte a second is given up like one that says nothing. On
unix sockets a reset says no more than an end: the peer closed before it had read all that we sent. So both end the stream, and whoever
reads it judges whether it was complete.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from errno import EACCES, EAGAIN, ECONNREFUSED, ENOENT, ENOTDIR, EPERM, EPROTOTYPE
from pathlib import Path
from time import monotonic
from types import TracebackType

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout

PATH_LIMIT = 107  # bytes of sockaddr_un.sun_path less its final zero: unix(7)
PIECE = 262_144  # bytes of one read: more than a unix socket's default buffer holds


class Stream:
    """A connected socket. `remedy` ends the messages for a socket that is absent or refuses: what to do then."""

    def __init__(self, path: str, timeout: float, remedy: str = "is the service behind it running?") -> None:
        self.path = path
        self.buffer = bytearray()  # received, not yet taken
        self.received = 0
        self._timeout = timeout
        self._end = monotonic() + timeout
        self.socket, self.peer = self._open(remedy)

    def _open(self, remedy: str) -> tuple[socket.socket, str]:
        """The connection and who is at its other end; other kinds of connection override it."""
        connection = _connect(self.path, self._timeout, remedy)
        return connection, peer_of(connection, self.path)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it. A peer that has closed already is no error: what it said before can still be read."""
        self._arm()
        try:
            self.socket.sendall(data)
        except TimeoutError as error:
            raise self._late() from error
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as error:
            raise SourceError(f"{self.path}: cannot send: {error.strerror or error}") from error

    def some(self, limit: int) -> bytes:
        """Between one byte and `limit`, as they come; b"" at the end of the stream. Raises SourceTimeout, SourceError."""
        if self.buffer:
            piece = bytes(self.buffer[:limit])
            del self.buffer[:limit]
            return piece
        self._arm()
        try:
            piece = self.socket.recv(min(limit, PIECE))
        except TimeoutError as error:
            raise self._late() from error
        except ConnectionResetError:
            return b""
        except OSError as error:
            raise SourceError(f"{self.path}: cannot read: {error.strerror or error}") from error
        self.received += len(piece)
        return piece

    def fill(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        held, self.buffer = self.buffer, bytearray()
        piece = self.some(PIECE)
        self.buffer = held + piece
        return bool(piece)

    def line(self, limit: int) -> bytes:
        """The next line without its end, which is LF or CR LF. Raises SourceMalformed beyond `limit` bytes or at the end of the stream."""
        while (end := self.buffer.find(b"\n", 0, limit)) < 0:
            if len(self.buffer) >= limit:
                raise SourceMalformed(f"{self.path}: a line of more than {limit} bytes where HTTP has a short one")
            if not self.fill():
                raise SourceMalformed(f"{self.path}: closed after {self.received} bytes, within a line of HTTP")
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line.removesuffix(b"\r")

    def _arm(self) -> None:
        left = self._end - monotonic()
        if left <= 0:
            raise self._late()
        self.socket.settimeout(left)

    def _late(self) -> SourceTimeout:
        what = "no answer" if not self.received else f"no complete answer, only {self.received} bytes,"
        return SourceTimeout(f"{self.path}: {what} within {self._timeout:g} s")


def _connect(path: str, timeout: float, remedy: str) -> socket.socket:
    if not path or "\0" in path or len(os.fsencode(path)) > PATH_LIMIT:
        raise SourceAbsent(f"{path!r}: no path of a unix socket, which has 1 to {PATH_LIMIT} bytes; name a shorter one")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Where the peer's queue is full, a connect with Python's own timeout fails at once; the kernel's waits.
        microseconds = max(1, int(timeout * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(microseconds, 1_000_000)))
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise _explain(path, timeout, error, remedy) from error
    return connection


def _explain(path: str, timeout: float, error: OSError, remedy: str) -> SourceError:
    match error.errno:
        case code if code == ENOENT:
            return SourceAbsent(f"{path}: no such socket; {remedy}")
        case code if code == ENOTDIR:
            return SourceAbsent(f"{path}: a part of this path is not a directory; correct the path")
        case code if code == ECONNREFUSED:
            return SourceAbsent(f"{path}: {_what_is_there(path, remedy)}")
        case code if code in (EACCES, EPERM):
            return SourceError(f"{path}: not permitted; run as root, or as a user who may write to this socket and enter its directory")
        case code if code == EAGAIN:
            return SourceTimeout(f"{path}: not accepted within {timeout:g} s: its queue is full; is the service behind it stuck?")
        case code if code == EPROTOTYPE:
            return SourceMalformed(f"{path}: a unix socket of another kind than stream; name the right one")
    return SourceError(f"{path}: cannot connect: {error.strerror or error}; {remedy}")


def _what_is_there(path: str, remedy: str) -> str:
    """Connecting to a plain file or a directory is "refused" too."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return f"gone while we looked; {remedy}"
    if stat.S_ISSOCK(mode):
        return f"refused, nobody listens on this socket; {remedy}"
    kind = "a directory" if stat.S_ISDIR(mode) else "a plain file" if stat.S_ISREG(mode) else "a device or pipe"
    return f"this is {kind}, not a unix socket; name the socket itself"


def peer_of(connection: socket.socket, path: str) -> str:
    """Who listens: "pid:start time in ticks since boot", so that a restart is another peer.

    The kernel tells the pid of whoever called listen(); it is 0 when that process is in a PID namespace that we do not see. Then the
    socket's file stands for it, since a restart binds a new one: "socket:inode:time of bind in ns". "" where neither is known.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", credentials)[0]
    with suppress(OSError, IndexError):
        if pid > 0:
            # Field 22 of proc_pid_stat(5); the command in field 2 may hold spaces and parentheses.
            return f"{pid}:{int(Path(f'/proc/{pid}/stat').read_bytes().rpartition(b')')[2].split()[19])}"
    with suppress(OSError):
        found = Path(path).stat()
        return f"socket:{found.st_ino}:{found.st_mtime_ns}"
    return ""
