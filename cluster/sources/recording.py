"""Recorded replies of a tracer in one file: append-only, and read as far as it is whole after any crash.

The file begins with MAGIC, whose digit is the version. Then one record for each reply (little-endian):

    4 bytes    MARKER
    u32        length of the payload
    u32        CRC-32 of the payload
    payload    f64 time of receipt, s since 1970
               u16 length of the peer, the peer in UTF-8 (RawReply.peer)
               the body, compressed by zlib

A record that a crash cut short is the last one: it is dropped and said. Damage in the middle costs the records it touches: the reader goes
on at the next MARKER, and counts the places. CRC and lengths are checked at opening, so a bad file is refused before any of it is used.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from cluster.core.errors import RayscopeError, SourceAbsent, SourceError, SourceMalformed
from cluster.ports import RawReply

FAMILY = b"rayscope recording "
MAGIC = FAMILY + b"1\n"
MARKER = b"\xabRR\n"
HEAD = struct.Struct("<4sII")
FRONT = struct.Struct("<dH")
PIECE = 1_048_576  # bytes of one read while looking through a file
DAMAGE_LIMIT = 100  # damaged places; with more of them it is no recording
BODY_LIMIT = 256_000_000  # bytes of one body; as the setting tracer.reply_limit


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one good record is."""

    offset: int  # of its payload
    length: int
    at: float  # s since 1970


class Recording:
    """A recording, opened for reading: `entries` are its good records in order, `read(i)` is one of them.

    `damaged` counts the places in the middle that were passed over, `lost_tail` is the bytes after the last good record, `end` the offset
    where they begin. Raises SourceAbsent (no such file), SourceMalformed (no recording, another version), SourceError (cannot be read).
    """

    def __init__(self, path: str | Path, limit: int = BODY_LIMIT) -> None:
        self.path = str(path)
        self._limit = limit
        self._file = _open(self.path)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            check_magic(self._file.read(len(MAGIC)), self.path)
            self.entries: list[Entry] = []
            self.damaged = 0
            self.end = len(MAGIC)
            self._scan()
        except OSError as error:
            self.close()
            raise SourceError(f"{self.path}: cannot be read: {error.strerror}") from error
        except BaseException:
            self.close()
            raise
        self.lost_tail = self._size - self.end

    def __len__(self) -> int:
        return len(self.entries)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def read(self, number: int) -> RawReply:
        """The reply of that number, from 0. Raises SourceMalformed where its inside is not what was written."""
        entry = self.entries[number]
        payload = os.pread(self._file.fileno(), entry.length, entry.offset)
        try:
            at, size = FRONT.unpack_from(payload)
            peer = payload[FRONT.size : FRONT.size + size].decode()
            body = self._inflate(payload[FRONT.size + size :])
        except (struct.error, ValueError, zlib.error) as error:
            raise SourceMalformed(f"{self.path}: reply {number} at byte {entry.offset} is unusable: {error}; record it anew") from error
        return RawReply(body, peer, at)

    def _inflate(self, packed: bytes) -> bytes:
        inflater = zlib.decompressobj()
        body = inflater.decompress(packed, self._limit + 1)
        if len(body) > self._limit:
            raise ValueError(f"larger than {self._limit} bytes, the most that is read of one reply")
        if not inflater.eof:
            raise ValueError("its compressed bytes end too early")
        return body

    def _scan(self) -> None:
        """Fill `entries`; a place that is no good record is passed over to the next marker, or is the tail where there is none."""
        offset: int | None = self.end
        while offset is not None and offset < self._size:
            entry = self._entry_at(offset)
            if entry is not None:
                self.entries.append(entry)
                self.end = offset = entry.offset + entry.length
                continue
            offset = self._marker_after(offset)
            self.damaged += offset is not None
            if self.damaged > DAMAGE_LIMIT:
                raise SourceMalformed(f"{self.path}: more than {DAMAGE_LIMIT} damaged places: this file is beyond use; record it anew")

    def _entry_at(self, offset: int) -> Entry | None:
        head = os.pread(self._file.fileno(), HEAD.size + FRONT.size, offset)
        if len(head) < HEAD.size + FRONT.size:
            return None
        marker, length, crc = HEAD.unpack_from(head)
        start = offset + HEAD.size
        if marker != MARKER or not FRONT.size <= length <= self._size - start:
            return None
        at, _ = FRONT.unpack_from(head, HEAD.size)
        return Entry(start, length, at) if self._crc(start, length) == crc else None

    def _crc(self, offset: int, length: int) -> int:
        crc = 0
        while length > 0 and (piece := os.pread(self._file.fileno(), min(PIECE, length), offset)):
            crc = zlib.crc32(piece, crc)
            offset += len(piece)
            length -= len(piece)
        return crc

    def _marker_after(self, offset: int) -> int | None:
        offset += 1
        while len(piece := os.pread(self._file.fileno(), PIECE, offset)) >= len(MARKER):
            found = piece.find(MARKER)
            if found >= 0:
                return offset + found
            offset += len(piece) - len(MARKER) + 1
        return None


class Recorder:
    """A recording, opened for adding replies. A file that is one already is continued; anything else is left as it is and refused.

    `kept` is the number of replies that were there, `lost_tail` the bytes of a cut-short one that were removed. Raises RayscopeError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.kept = self.lost_tail = 0
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        except OSError as error:
            raise RayscopeError(f"{self.path}: cannot be written: {error.strerror}; name a file in a directory that is yours") from error
        try:
            self._prepare()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back; a second time changes nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def append(self, reply: RawReply) -> None:
        """Write one reply through to the disk: once this returns, a crash does not lose it. Raises RayscopeError; then nothing is added."""
        peer = reply.peer.encode()[:0xFFFF]
        payload = FRONT.pack(reply.received_at, len(peer)) + peer + zlib.compress(reply.body, 1)
        self._write(HEAD.pack(MARKER, len(payload), zlib.crc32(payload)) + payload)

    def _prepare(self) -> None:
        """Take the file for us alone, and bring its end to where a record may begin."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise RayscopeError(f"{self.path}: not a plain file; name another")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RayscopeError(f"{self.path}: another `rayscope record` writes to it; name another file") from error
        beginning = os.pread(self._fd, len(MAGIC), 0)
        if MAGIC.startswith(beginning) and len(beginning) < len(MAGIC):  # new, or a crash came before the first record
            self.end = 0
            self._write(MAGIC)
            _sync_directory(self.path)
            return
        check_magic(beginning, self.path)
        with Recording(self.path) as found:
            self.kept, self.lost_tail, self.end = len(found), found.lost_tail, found.end
        os.ftruncate(self._fd, self.end)

    def _write(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, memoryview(data)[done:], self.end + done)
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self.end)
            raise RayscopeError(f"{self.path}: cannot be written: {error.strerror}; what it holds already is whole; free space") from error
        self.end += done


def check_magic(beginning: bytes, path: str) -> None:
    """Refuse what does not begin as a recording of our version does. Raises SourceMalformed."""
    if beginning.startswith(FAMILY) and beginning != MAGIC:
        raise SourceMalformed(f"{path}: a recording of another version ({beginning[len(FAMILY) :]!r}); use the rayscope that wrote it")
    if beginning != MAGIC:
        raise SourceMalformed(f"{path}: not a recording of `rayscope record`: it begins with {beginning!r}")


def _open(path: str) -> BinaryIO:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait for its writer
    except FileNotFoundError as error:
        raise SourceAbsent(f"{path}: no such file; `rayscope record {path}` makes one") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceMalformed(f"{path}: not a plain file, so no recording")
    return os.fdopen(fd, "rb")


def _sync_directory(path: str) -> None:
    """So that the file's name, too, outlives a crash."""
    fd = os.open(Path(path).absolute().parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
