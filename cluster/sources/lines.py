"""Lines out of a stream of bytes, each of bounded length."""

from __future__ import annotations

from collections.abc import Iterator


class Lines:
    """Cuts what is fed into lines. One that is longer than `limit` bytes is skipped to its end and counted in `overlong`."""

    def __init__(self, limit: int) -> None:
        self.overlong = 0
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that this chunk ends, without their end; empty ones are left out."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            if (line := self._end(piece)) is not None and line.strip():
                yield line
        if not self._skipping:
            self._rest += rest
            if len(self._rest) > self._limit:
                self._rest.clear()
                self._skipping = True

    def _end(self, piece: bytes) -> bytes | None:
        line = bytes(self._rest) + piece
        skipped, self._skipping = self._skipping or len(line) > self._limit, False
        self._rest.clear()
        self.overlong += skipped
        return None if skipped else line
