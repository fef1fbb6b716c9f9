"""The messages between a collector and the aggregator: batches in parts one way, answers the other.

A *sequence* is what one poll changed. It travels as one or more *parts*, each a msgpack map of at most `PART_LIMIT` bytes, and is
applied whole at its last part. `stream` names one collector's numbering of rows; its sequence 0 is the resync, which says everything.
Bodies are not compressed: zlib makes narrowed columns a third smaller, and costs 630 ns a row to deflate and 140 ns to inflate, twice
what applying the row costs.

Sections of a body, each absent when empty (shapes: n rows, unsigned integers unless said):

    addresses   bytes, 16 x n: the IPv6 or v4-mapped addresses that this part's rows index
    texts       list[str]: the workload names that this part's rows index; index 0 is always "" (not known)
    opened      columns OPENED: the full record, once
    changed     columns CHANGED: raw counters of rows whose counters moved
    attributed  columns ATTRIBUTED: rows whose owner or flags became known, or changed, after they were opened
    closed      columns CLOSED: rows that ended (their last counters are in `opened` or `changed` of the same sequence, if they moved)
    carried     columns CARRIED: in sequence 0 of a later stream of the same collector, for each row in `opened`
    metadata    list of [source, address, uid, record or None]: parts of metadata records; None removes one
    final       only in the last part: {at: float, s since 1970; status: map; closed_through: [instance, close id]; offset: float, s;
                continues: [stream, sequence] or None}

A column travels as [dtype, bytes, low]: its values less `low`, in the smallest unsigned type that holds the largest, little-endian.
`low` is the column's minimum where that makes the type smaller (times since boot), else 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from cluster.core.errors import WireError

VERSION = 2
PART_LIMIT = 90_000  # bytes: Ray passes arguments below 100 KiB inline
SEQUENCE_PARTS_LIMIT = 4_096

Columns = dict[str, NDArray[Any]]

OPENED: dict[str, type[np.unsignedinteger[Any]]] = {
    "id": np.uint32,
    "source": np.uint32,  # index into addresses
    "dest": np.uint32,
    "sport": np.uint16,
    "dport": np.uint16,
    "protocol": np.uint8,  # Protocol
    "pid": np.uint32,
    "net_ns": np.uint32,
    "cookie": np.uint64,  # of a fold row: which collector sums it, so that its successor begins another
    "direction": np.uint8,  # Direction
    "flags": np.uint8,  # CLOSED | BYTES_UNKNOWN | RECV_INEXACT | FOLDED
    "sent": np.uint64,  # monotonic_sent_bytes, raw
    "recv": np.uint64,
    "retransmits": np.uint32,
    "generation": np.uint32,
    "last_update": np.uint64,  # ns since boot of the node
    "local": np.uint32,  # index into texts: the workload of the local end
    "remote": np.uint32,  # index into texts: the workload of the remote end where the node itself knows it
    "role": np.uint8,  # Role
}
CHANGED: dict[str, type[np.unsignedinteger[Any]]] = {
    name: OPENED[name] for name in ("id", "sent", "recv", "retransmits", "generation", "last_update")
}
ATTRIBUTED: dict[str, type[np.unsignedinteger[Any]]] = {name: OPENED[name] for name in ("id", "pid", "local", "remote", "role", "flags")}
CLOSED: dict[str, type[np.unsignedinteger[Any]]] = {name: OPENED[name] for name in ("id", "flags")}
CARRIED: dict[str, type[np.unsignedinteger[Any]]] = {
    "id": np.uint32,
    "known": np.uint8,  # 1: the row of that id as of `Final.continues`; 0: it was opened since
    "generations": np.uint32,  # how many ended since, as far as the collector still knows them
    "sent": np.uint64,  # the sums of their last counters
    "recv": np.uint64,
    "retransmits": np.uint64,
}
SECTIONS = {"opened": OPENED, "changed": CHANGED, "attributed": ATTRIBUTED, "closed": CLOSED, "carried": CARRIED}
_KINDS = ("u1", "u1", "u2", "u4", "u4", "u8", "u8", "u8", "u8")  # by bytes of the largest value


@dataclass(frozen=True, slots=True)
class Final:
    """What the last part of a sequence adds."""

    at: float  # s since 1970, the collector's clock at the poll
    status: Mapping[str, Any] = field(default_factory=dict)
    closed_through: tuple[str, int] = ("", 0)  # every close up to this id of this tracer instance is in this stream
    offset: float = 0.0  # s, the aggregator's clock less the collector's
    continues: tuple[int, int] | None = None  # stream and sequence that the aggregate's rows rest on, where this stream goes on from there


@dataclass(frozen=True, slots=True)
class Part:
    """One part of one sequence, decoded."""

    node: str
    incarnation: int
    stream: int
    sequence: int
    part: int
    last: bool
    addresses: bytes = b""
    texts: tuple[str, ...] = ("",)
    sections: Mapping[str, Columns] = field(default_factory=dict)
    metadata: tuple[tuple[str, str, str, Mapping[str, Any] | None], ...] = ()
    final: Final | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The aggregator's answer to a hello or a part."""

    verdict: (
        str  # "ok", "wait" (to a hello: not durable yet, ask again), "expect", "hello" (say hello again), "superseded" (end) or "refused"
    )
    aggregator: int  # the aggregator's own incarnation; a collector drops an answer of an older one
    incarnation: int = 0  # to a hello: the number of this collector
    stream: int = 0
    applied: int = -1  # the last sequence applied, of this stream
    durable: int = -1  # the last sequence committed to the store, of this stream
    expect: int = 0  # verdict "expect": the sequence to send next, from its part 0
    closed_through: tuple[str, int] = ("", 0)  # to a hello: closes that are applied already
    reason: str = ""  # verdict "refused": what was wrong
    rows: tuple[int, int, float] = (0, -1, 0.0)  # what the node's rows rest on: stream, sequence, and when that was polled (s since 1970)


def narrow(column: NDArray[Any]) -> list[Any]:
    """A column as [dtype, bytes, low]; see the head of this file."""
    top = int(np.maximum.reduce(column, initial=0))
    kind = _kind(top)
    if top > 0xFF and (less := _kind(top - (low := int(np.minimum.reduce(column))))) < kind:
        return [less, (column - column.dtype.type(low)).astype(f"<{less}").tobytes(), low]
    return [kind, column.astype(f"<{kind}").tobytes(), 0]


def _kind(top: int) -> str:
    """The smallest unsigned type that holds `top`."""
    return _KINDS[(top.bit_length() + 7) // 8]


def widen(packed: Any, dtype: type[np.unsignedinteger[Any]], what: str) -> NDArray[Any]:
    """The column that `narrow` wrote, as `dtype`; raises WireError for anything else."""
    match packed:
        case [("u1" | "u2" | "u4" | "u8") as kind, bytes() as raw, int() as low] if len(raw) % int(kind[1]) == 0:
            column = np.frombuffer(raw, f"<{kind}")
        case _:
            raise WireError(f"column {what}: expected [dtype, bytes, low]")
    if column.itemsize > np.dtype(dtype).itemsize:
        raise WireError(f"column {what}: {kind} does not fit {np.dtype(dtype)}")
    if low == 0:
        return column.astype(dtype, copy=False)
    top = int(column.max()) if column.size else 0
    if low < 0 or low + top > int(np.iinfo(dtype).max):
        raise WireError(f"column {what}: {low} + {top} does not fit {np.dtype(dtype)}")
    wide = column.astype(dtype)
    wide += dtype(low)
    return wide


def pack_body(part: Part) -> bytes:
    """The body of a part, about the size of its columns once narrowed."""
    body: dict[str, Any] = {name: {column: narrow(values) for column, values in columns.items()} for name, columns in part.sections.items()}
    if part.addresses:
        body["addresses"] = part.addresses
    if len(part.texts) > 1:
        body["texts"] = part.texts
    if part.metadata:
        body["metadata"] = part.metadata
    if part.final is not None:
        final = part.final
        body["final"] = {name: getattr(final, name) for name in final.__slots__} | {"status": dict(final.status)}
    return bytes(msgpack.packb(body))


def pack_part(part: Part, body: bytes | None = None) -> bytes:
    """A part as it travels; `body` where it is packed already. The caller keeps it below PART_LIMIT."""
    return bytes(
        msgpack.packb(
            {
                "v": VERSION,
                "node": part.node,
                "incarnation": part.incarnation,
                "stream": part.stream,
                "sequence": part.sequence,
                "part": part.part,
                "last": part.last,
                "body": pack_body(part) if body is None else body,
            }
        )
    )


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{what}: expected a map, got {type(value).__name__}")
    return value


def _natural(value: Any, what: str) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise WireError(f"{what}: expected a whole number from 0 to 2^63 - 1, got {value!r:.40}")
    return value


def _section(name: str, packed: Any, schema: Mapping[str, type[np.unsignedinteger[Any]]]) -> Columns:
    packed = _mapping(packed, name)
    columns = {column: widen(packed.get(column), dtype, f"{name}.{column}") for column, dtype in schema.items()}
    if len({len(values) for values in columns.values()}) > 1:
        raise WireError(f"{name}: columns of different lengths")
    return columns


def _final(packed: Any) -> Final | None:
    match packed:
        case None:
            return None
        case {
            "at": float() as at,
            "status": dict() as status,
            "closed_through": [str() as instance, int() as close],
            "offset": float() as offset,
            "continues": None | [int(), int()] as continues,
        }:
            from_where = None if continues is None else (continues[0], continues[1])
            return Final(at, status, (instance, _natural(close, "final.closed_through")), offset, from_where)
    raise WireError("final: expected at, status, closed_through, offset and continues")


def unpack_part(raw: bytes) -> Part:
    """The part that `pack_part` wrote. Raises WireError for anything else; the indices inside are checked by `check_part`."""
    if len(raw) > PART_LIMIT:
        raise WireError(f"part: {len(raw)} bytes; at most {PART_LIMIT} are read")
    try:
        head = _mapping(msgpack.unpackb(raw), "part")
        if head.get("v") != VERSION:
            raise WireError(f"version {head.get('v')!r}: this aggregator speaks {VERSION}; bring both ends to the same release")
        body = _mapping(msgpack.unpackb(head["body"]), "body")
        part = Part(
            node=str(head["node"]),
            incarnation=_natural(head["incarnation"], "incarnation"),
            stream=_natural(head["stream"], "stream"),
            sequence=_natural(head["sequence"], "sequence"),
            part=_natural(head["part"], "part"),
            last=bool(head["last"]),
            addresses=memoryview(body.get("addresses", b"")).tobytes(),
            texts=tuple(map(str, body.get("texts", ("",)))),
            sections={name: _section(name, body[name], schema) for name, schema in SECTIONS.items() if name in body},
            metadata=tuple((str(s), str(a), str(u), r) for s, a, u, r in body.get("metadata", ())),
            final=_final(body.get("final")),
        )
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"part: {type(error).__name__}: {error}") from error
    check_part(part)
    return part


def check_part(part: Part) -> None:
    """Refuse indices that point outside the part's own tables. Raises WireError."""
    if len(part.addresses) % 16:
        raise WireError("addresses: not a multiple of 16 bytes")
    bounds = {
        "source": len(part.addresses) // 16,
        "dest": len(part.addresses) // 16,
        "local": len(part.texts),
        "remote": len(part.texts),
    }
    for name, columns in part.sections.items():
        for column, bound in bounds.items():
            values = columns.get(column)
            if values is not None and values.size and int(values.max()) >= bound:
                raise WireError(f"{name}.{column}: index {int(values.max())} of {bound}")
    if part.last and part.final is None:
        raise WireError("final: missing in the last part")


def pack_answer(answer: Answer) -> bytes:
    """An answer as it travels."""
    return bytes(msgpack.packb({"v": VERSION, **{name: getattr(answer, name) for name in answer.__slots__}}))


def unpack_answer(raw: bytes) -> Answer:
    """The answer that `pack_answer` wrote. Raises WireError."""
    try:
        fields = _mapping(msgpack.unpackb(raw), "answer")
        if fields.pop("v", None) != VERSION:
            raise WireError("answer: another version; bring both ends to the same release")
        fields |= {name: tuple(fields[name]) for name in ("closed_through", "rows")}
        return Answer(**fields)
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"answer: {type(error).__name__}: {error}") from error
