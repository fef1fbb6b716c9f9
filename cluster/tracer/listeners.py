"""Listening sockets: they tell which end of a connection is the server, and who owns a connection that died before anyone looked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.rows import Rows

INCOMING, OUTGOING, LOCAL = 1, 2, 3  # a tracer's `direction`, builds from 2019-03-25 on

ANY = bytes(16)  # "::", which takes IPv4 too
ANY_V4 = bytes(10) + b"\xff\xff" + bytes(4)
LOOPBACK = bytes(15) + b"\x01"
V4_MAPPED = np.uint32(0xFFFF0000)
LOOPBACK_V4 = 127


class Listeners:
    """The listening sockets of one dump, found by the local end of a connection."""

    def __init__(self, rows: Rows):
        self.rows = rows
        self._codes = codes_of(rows)
        self._by_end: dict[tuple[int, bytes], int] = {}
        for place, (code, source) in enumerate(zip(self._codes.tolist(), packed(rows["source"]), strict=True)):
            self._by_end.setdefault((code, source), place)

    def matches(self, rows: Rows) -> NDArray[np.int64]:
        """For each row, the place in `self.rows` of the listener on its local end; -1 where there is none. Shape (n,)."""
        found = np.full(len(rows), -1, np.int64)
        codes = codes_of(rows)
        likely = np.flatnonzero(np.isin(codes, self._codes))
        for place, code, source in zip(likely.tolist(), codes[likely].tolist(), packed(rows["source"][likely]), strict=True):
            found[place] = self._at(code, source)
        return found

    def _at(self, code: int, source: bytes) -> int:
        ends = (source, ANY_V4, ANY) if source.startswith(ANY_V4[:12]) else (source, ANY)
        return next((self._by_end[code, end] for end in ends if (code, end) in self._by_end), -1)


def codes_of(rows: Rows) -> NDArray[np.uint64]:
    """Namespace, protocol and local port as one number."""
    codes: NDArray[np.uint64] = rows["net_ns"].astype(np.uint64) << np.uint64(17)
    codes |= rows["protocol"].astype(np.uint64) << np.uint64(16)
    codes |= rows["sport"].astype(np.uint64)
    return codes


def packed(addresses: NDArray[np.uint32]) -> list[bytes]:
    """Addresses of shape (n, 4) as 16 bytes each."""
    raw = np.ascontiguousarray(addresses).tobytes()
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def directions(rows: Rows, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The direction of each row; `places` is what `Listeners.matches` says of them. Shape (n,)."""
    return np.where(inside_one_host(rows), LOCAL, np.where(places >= 0, INCOMING, OUTGOING)).astype(np.uint8)


def inside_one_host(rows: Rows) -> NDArray[np.bool_]:
    """Rows whose remote end is a loopback address or the local end's own."""
    dest = rows["dest"]
    prefix = ~dest[:, :2].any(axis=1)
    v4 = prefix & (dest[:, 2] == V4_MAPPED) & (dest[:, 3] & 0xFF == LOOPBACK_V4)
    v6 = prefix & (dest[:, 2] == 0) & (dest[:, 3] == np.frombuffer(LOOPBACK[12:], np.uint32)[0])
    inside: NDArray[np.bool_] = v4 | v6 | (dest == rows["source"]).all(axis=1)
    return inside
