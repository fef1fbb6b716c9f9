"""What a tracer knows between two replies, and the bytes that its journal keeps of it.

A file is a head (HEAD: what it is, and until when all events had been read) and records (RECORD: kind, checksum, length; then so many
bytes). The first one is Meta as JSON, then one for each of SECTIONS, then any number of EVENTS. All but Meta are arrays as in memory.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.rows import ROW, Keys, Rows, join, new_rows

MAGIC = b"rayscope journal"
VERSION = 1
HEAD = struct.Struct("=16sIId")  # MAGIC, VERSION, LAYOUT, the beat: s since 1970
BEAT = struct.Struct("=d")
BEAT_AT = HEAD.size - BEAT.size
RECORD = struct.Struct("=IIQ")
META, OPEN, HEARD, CLOSED, COUNTED, VANISHED, EVENTS = range(1, 8)
SECTIONS = (OPEN, HEARD, CLOSED, COUNTED, VANISHED)

COUNTS = np.dtype([("entry", np.uint64), ("sent", np.uint64), ("received", np.uint64)])
Counts = NDArray[np.void]  # shape (n,), dtype COUNTS: what conntrack entries had counted for sockets that have closed


@dataclass(slots=True)
class KeptClient:
    """A client and its place in the log of closes."""

    seen: float  # monotonic s
    acked: int
    told: int
    registration: int
    lost: int


@dataclass(slots=True)
class Meta:
    """All that is no array."""

    boot: str
    turn: int  # one higher with each state: of two whole files the later one counts
    instance: str
    last: int  # the newest close id
    lost: int
    registrations: int
    clients: dict[str, KeptClient]
    uncovered: list[tuple[float, float]]  # s since 1970


LAYOUT = zlib.crc32(repr([ROW.descr, COUNTS.descr, Meta.__annotations__, KeptClient.__annotations__]).encode())


@dataclass(slots=True)
class State:
    """What a tracer knows when it has made a reply."""

    meta: Meta
    open: Rows
    heard: Rows
    closed: Rows
    counted: Counts
    vanished: Keys  # closed connections of whose end nothing told
    events: Rows = field(default_factory=lambda: new_rows(0))  # sockets that died since, as the kernel told
    beat: float = 0.0  # s since 1970: until then all events had been read


class Unusable(Exception):
    """A file that is no journal of ours, or not of this boot. The text names one of a few reasons."""


def packed(state: State) -> list[bytes | memoryview]:
    """The parts of a file."""
    meta = memoryview(json.dumps(asdict(state.meta)).encode())
    arrays = (state.open, state.heard, state.closed, state.counted, state.vanished, state.events)
    parts: list[bytes | memoryview] = [HEAD.pack(MAGIC, VERSION, LAYOUT, state.beat)]
    for kind, data in ((META, meta), *zip((*SECTIONS, EVENTS), map(contents, arrays), strict=True)):
        parts += [record(kind, data), data]
    return parts


def contents(array: NDArray[Any]) -> memoryview:
    """The bytes of an array."""
    return np.ascontiguousarray(array).view(np.uint8).data if len(array) else memoryview(b"")


def record(kind: int, data: memoryview) -> bytes:
    """What stands before the bytes of a record."""
    return RECORD.pack(kind, zlib.crc32(data, kind), len(data))


def unpacked(data: bytes, boot: str) -> State:
    """The state in a file's bytes. Raises Unusable."""
    if len(data) < HEAD.size:
        raise Unusable("cut short")
    magic, version, layout, beat = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Unusable("not a journal")
    if (version, layout) != (VERSION, LAYOUT):
        raise Unusable("of another version")
    records = list(whole_records(data))
    if [kind for kind, _ in records[: 1 + len(SECTIONS)]] != [META, *SECTIONS]:
        raise Unusable("cut short")
    try:
        meta = meta_of(records[0][1])
        opened, heard, closed = (array(part, ROW) for _, part in records[1:4])
        counted, vanished = array(records[4][1], COUNTS), array(records[5][1], np.dtype(np.uint64))
        events = join([array(part, ROW) for kind, part in records[6:] if kind == EVENTS])
        state = State(meta, opened, heard, closed, counted, vanished, events, beat)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unusable("not a journal") from error
    if meta.boot != boot:
        raise Unusable("of another boot")
    if not math.isfinite(beat):
        raise Unusable("not a journal")
    return state


def meta_of(data: memoryview) -> Meta:
    """Meta out of its JSON. Raises ValueError, TypeError, KeyError or AttributeError for any other."""
    meta = Meta(**json.loads(bytes(data)))
    meta.clients = {name: KeptClient(**fields) for name, fields in asdict(meta)["clients"].items()}
    meta.uncovered = [(float(since), float(until)) for since, until in meta.uncovered]
    return meta


def whole_records(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """The records up to the first that is not whole: a kill may come at any byte."""
    at, view = HEAD.size, memoryview(data)
    while at + RECORD.size <= len(data):
        kind, checksum, length = RECORD.unpack_from(data, at)
        at += RECORD.size
        part = view[at : at + length]
        if len(part) != length or zlib.crc32(part, kind) != checksum:
            return
        yield kind, part
        at += length


def array(data: memoryview, kind: np.dtype[Any]) -> NDArray[Any]:
    """An array that can be written to. Raises ValueError."""
    return np.frombuffer(data, kind).copy()
