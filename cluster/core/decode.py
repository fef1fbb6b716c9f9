"""A tracer's JSON into columns.

Records that are alike, in a real reply nearly all, are read along their shape (`alike`). What is left over is decoded in one call into
typed rows whose types are the limits of the columns. Only when that refuses it, it is read record by record, so that a bad record costs
itself alone. What is refused is counted by reason (the field that was wrong), and the first few are kept, shortened, for the log.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from cluster.core.addresses import BAD, Addresses
from cluster.core.alike import Alike, read_alike
from cluster.core.errors import SourceMalformed
from cluster.core.records import COUNTER_LIMIT, Direction, Flag, format_address
from cluster.core.tracer_json import DOCUMENT, ENVELOPE, LISTENER, NOT_SAID, RECORD, Document, Listener, Record

Columns = dict[str, NDArray[Any]]
LISTENER_REASON = "listener "
EXAMPLES = 3  # refused records that are kept for the log
EXCERPT = 200  # bytes of each
ALIKE_FROM = 4_096  # bytes of a document that is worth looking for records that are alike
TELEMETRY = 32  # counters of the tracer's own that are passed on
LATEST = 1e11  # s since 1970: no real moment is later
UNCOVERED = 64  # intervals in which a tracer did not look that are passed on
COLUMNS: dict[str, type[np.unsignedinteger[Any]]] = {
    "protocol": np.uint8,
    "source": np.uint32,  # number in Addresses
    "dest": np.uint32,
    "sport": np.uint16,
    "dport": np.uint16,
    "pid": np.uint32,
    "net_ns": np.uint32,
    "cookie": np.uint64,  # 0: the tracer knows none
    "direction": np.uint8,  # Direction
    "flags": np.uint8,  # Flag: CLOSED, BYTES_UNKNOWN, RECV_INEXACT
    "sent": np.uint64,
    "recv": np.uint64,
    "retransmits": np.uint32,
    "last_update": np.uint64,  # ns since boot
    "close_id": np.uint64,  # of closed rows
}


_FIELDS = {  # where a field of the JSON has another name
    "protocol": "type",
    "sent": "monotonic_sent_bytes",
    "recv": "monotonic_recv_bytes",
    "retransmits": "monotonic_retransmits",
    "last_update": "last_update_epoch",
}


@dataclass(slots=True)
class Refused:
    """What was refused, by reason; the first few with an excerpt."""

    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, reason: str, record: bytes) -> None:
        """Count one record, and keep it if it is among the first."""
        self.reasons[reason] += 1
        if len(self.examples) < EXAMPLES:
            excerpt = record[:EXCERPT].decode(errors="replace")
            self.examples.append(f"{reason}: {excerpt}{'...' if len(record) > EXCERPT else ''}")

    @property
    def listeners(self) -> int:
        """How many of them were listeners."""
        return sum(count for reason, count in self.reasons.items() if reason.startswith(LISTENER_REASON))

    def merge(self, other: Refused) -> None:
        """Count what another has refused, too."""
        self.reasons.update(other.reasons)
        self.examples = (self.examples + other.examples)[:EXAMPLES]


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: n good rows as COLUMNS, and what it says of itself."""

    columns: Columns
    listeners: Columns  # net_ns, protocol, source, sport, pid
    instance: str | None  # None: the reply does not say; the socket's peer is the instance then
    reply_id: str | None
    tells_closes: bool  # it says of each row whether it is open or closed: absence means nothing
    refused: Refused
    telemetry: dict[str, int]
    uncovered: list[tuple[float, float]]  # s since 1970: when this instance did not look, the latest last

    def __len__(self) -> int:
        return len(self.columns["source"])


def decode(body: bytes, addresses: Addresses, zero_is: str = "new") -> Reply:
    """A reply's JSON as columns; raises SourceMalformed when the document as a whole is not a tracer's reply.

    `zero_is` ("new" or "old") names the numbering of `direction` where the reply does not show it.
    """
    refused = Refused()
    alike = read_alike(body, addresses) if len(body) >= ALIKE_FROM else None
    document, read = _parse(body, alike, addresses, refused)
    ours = document.instance is not None
    columns = {name: np.concatenate([part[name] for part in read]) if len(read) > 1 else column for name, column in read[0].items()}
    tells_closes = bool(columns.pop("tells").any()) or ours
    _read_direction(columns, zero_is="new" if ours else zero_is, ours=ours)
    return Reply(
        _refuse_rows(columns, addresses, refused),
        _listener_columns(document.listeners or [], addresses, refused),
        document.instance,
        document.reply_id,
        tells_closes,
        refused,
        _telemetry(document.telemetry),
        _uncovered(document.uncovered),
    )


def _parse(body: bytes, alike: Alike | None, addresses: Addresses, refused: Refused) -> tuple[Document, list[Columns]]:
    """The document, and the columns of its good records; those that were read along their shapes are not in it any more."""
    if alike is not None:
        try:
            document, columns = _typed_document(alike.rest, addresses, left := Refused())
        except SourceMalformed:
            return _parse(body, None, addresses, refused)
        if len(columns["source"]) + left.reasons.total() - left.listeners == alike.left:
            refused.merge(left)
            return document, [*map(_alike_columns, alike.fields), columns]
    document, columns = _typed_document(body, addresses, refused)
    return document, [columns]


def _typed_document(body: bytes, addresses: Addresses, refused: Refused) -> tuple[Document, Columns]:
    """All records at once, or one by one where one is bad."""
    try:
        document = DOCUMENT.decode(body)
        return document, _addressed(document.connections or [], addresses, refused)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        document = _one_by_one(body, refused)
        return document, _addressed(document.connections or [], addresses, refused)


def _one_by_one(body: bytes, refused: Refused) -> Document:
    try:
        envelope = ENVELOPE.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SourceMalformed(f"not a tracer's reply: {error}; {len(body)} bytes beginning {body[:80]!r}") from error
    records = [record for raw in envelope.connections or [] if (record := _read(RECORD, raw, refused, "")) is not None]
    listeners = [record for raw in envelope.listeners or [] if (record := _read(LISTENER, raw, refused, LISTENER_REASON)) is not None]
    return Document(records, listeners, envelope.instance, envelope.reply_id, envelope.telemetry, envelope.uncovered)


def _read(decoder: msgspec.json.Decoder[Any], raw: Raw, refused: Refused, what: str) -> Any:
    """One record; a field that is null counts as missing. None when it is refused."""
    text = bytes(raw)
    try:
        return _check_u64(_typed(decoder, text))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        refused.add(what + _reason(str(error)), text)
        return None


def _typed(decoder: msgspec.json.Decoder[Any], text: bytes) -> Any:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        fields = msgspec.json.decode(text)
        if not isinstance(fields, dict) or None not in fields.values():
            raise
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, decoder.type)


def _check_u64(record: Any) -> Any:
    if isinstance(record, Record):
        for name in ("monotonic_sent_bytes", "monotonic_recv_bytes", "last_update_epoch", "cookie", "close_id"):
            if getattr(record, name) > 0xFFFF_FFFF_FFFF_FFFF:
                raise msgspec.ValidationError(f"more than 64 bits - at `$.{name}`")
    return record


def _reason(message: str) -> str:
    """The field that was wrong, out of msgspec's message; a fixed set of reasons, so that a hostile tracer cannot make new ones."""
    if missing := re.search(r"missing required field `(\w+)`", message):
        return f"{missing[1]} missing"
    if wrong := re.search(r"at `\$\.(\w+)`", message):
        return wrong[1]
    return "not a record"


def _addressed(rows: list[Record], addresses: Addresses, refused: Refused) -> Columns:
    """The rows as columns, without those of which an address is none: only here its text is known."""
    columns = _columns(rows, addresses)
    bad = {end: columns[end] == BAD for end in ("source", "dest")}
    for row in np.flatnonzero(bad["source"] | bad["dest"]).tolist():
        reason = "source" if bad["source"][row] else "dest"
        refused.add(reason, b"%b in %b" % (msgspec.json.encode(getattr(rows[row], reason)), msgspec.json.encode(rows[row])))
    keep = ~(bad["source"] | bad["dest"])
    return columns if keep.all() else {name: column[keep] for name, column in columns.items()}


def _columns(rows: list[Record], number: Addresses) -> Columns:
    """The rows as columns. List comprehensions and array(): measured at half the cost of attrgetter and np.fromiter.

    Raises OverflowError for what does not fit 64 bits.
    """
    columns = {
        "protocol": array("B", [r.type for r in rows]),
        "source": array("I", [number[r.source] for r in rows]),
        "dest": array("I", [number[r.dest] for r in rows]),
        "sport": array("H", [r.sport for r in rows]),
        "dport": array("H", [r.dport for r in rows]),
        "pid": array("I", [r.pid for r in rows]),
        "net_ns": array("I", [r.net_ns for r in rows]),
        "cookie": array("Q", [r.cookie for r in rows]),
        "direction": array("B", [r.direction for r in rows]),
        "family": array("B", [r.family for r in rows]),
        "sent": array("Q", [r.monotonic_sent_bytes for r in rows]),
        "recv": array("Q", [r.monotonic_recv_bytes for r in rows]),
        "retransmits": array("I", [r.monotonic_retransmits for r in rows]),
        "last_update": array("Q", [r.last_update_epoch for r in rows]),
    }
    result: Columns = {name: np.frombuffer(values, COLUMNS.get(name, np.uint8)) for name, values in columns.items()}
    return result | _state(rows)


def _state(rows: list[Record]) -> Columns:
    """`flags` and `close_id`, and which rows say whether they are open: what only some tracers tell, and is then worth reading."""
    count = len(rows)
    states = [r.state for r in rows]
    inexact = [r.recv_exact for r in rows]
    unknown = [r.bytes for r in rows]
    flags = np.zeros(count, np.uint8)
    if inexact.count(None) < count:
        flags[[said is False for said in inexact]] |= np.uint8(Flag.RECV_INEXACT)
    if unknown.count(None) < count:
        flags[[said is not None for said in unknown]] |= np.uint8(Flag.BYTES_UNKNOWN)
    if states.count(None) == count:
        return {"flags": flags, "close_id": np.zeros(count, np.uint64), "tells": np.zeros(count, np.bool_)}
    flags[[said == "closed" for said in states]] |= np.uint8(Flag.CLOSED)
    ids = np.frombuffer(array("Q", [r.close_id for r in rows]), np.uint64)
    return {"flags": flags, "close_id": ids, "tells": np.array([said is not None for said in states])}


def _alike_columns(fields: Columns) -> Columns:
    columns = {name: fields[_FIELDS.get(name, name)].astype(kind, copy=False) for name, kind in COLUMNS.items() if name != "flags"}
    flags = np.zeros(len(fields["source"]), np.uint8)
    for flag, said in (
        (Flag.CLOSED, fields["state"] == "closed"),
        (Flag.BYTES_UNKNOWN, fields["unknown"]),
        (Flag.RECV_INEXACT, fields["inexact"]),
    ):
        flags[said] |= np.uint8(flag)
    return columns | {"flags": flags, "family": fields["family"].astype(np.uint8), "tells": fields["state"] != ""}


def _read_direction(columns: Columns, zero_is: str, *, ours: bool) -> None:
    """Bring `direction` into the newer numbering. With any 3 or 4 a reply is newer, else with any 0 older; else `zero_is` decides."""
    said = columns["direction"]
    newer = ours or bool(((said == Direction.LOCAL) | (said == Direction.NONE)).any())
    older = not newer and (zero_is == "old" or bool((said == 0).any()))
    known = said <= (2 if older else Direction.NONE)
    columns["direction"] = np.where(known, said + np.uint8(older), np.uint8(Direction.UNSPECIFIED))


def _refuse_rows(columns: Columns, addresses: Addresses, refused: Refused) -> Columns:
    """What types cannot say: a family that contradicts the addresses, a close without its id, bytes that no socket can have moved."""
    source, dest, family = columns["source"], columns["dest"], columns.pop("family")
    closed = (columns["flags"] & np.uint8(Flag.CLOSED)) != 0
    bad = {"close_id": closed & (columns["close_id"] == 0), "family": (family > 1) & (family != NOT_SAID)}
    bad |= {f"monotonic_{name}_bytes": columns[name] > COUNTER_LIMIT for name in ("sent", "recv")}
    v4 = np.flatnonzero(family == 0)
    bad["family"][v4] = addresses.is_v6(source[v4]) | addresses.is_v6(dest[v4])
    keep = ~np.logical_or.reduce([*bad.values()])
    if keep.all():
        return columns
    packed = addresses.packed
    for row in np.flatnonzero(~keep).tolist():
        told: dict[str, Any] = {name: int(column[row]) for name, column in columns.items()}
        told |= {end: format_address(packed[told[end]].tobytes()) for end in ("source", "dest")}
        told["family"] = int(family[row])
        refused.add(next(reason for reason, rows in bad.items() if rows[row]), msgspec.json.encode(told))
    return {name: column[keep] for name, column in columns.items()}


def _listener_columns(rows: list[Listener], number: Addresses, refused: Refused) -> Columns:
    columns: Columns = {
        "net_ns": np.array([r.net_ns for r in rows], np.uint32),
        "protocol": np.array([r.type for r in rows], np.uint8),
        "source": np.array([number[r.source] for r in rows], np.uint32),
        "sport": np.array([r.sport for r in rows], np.uint16),
        "pid": np.array([r.pid for r in rows], np.uint32),
    }
    good = columns["source"] != BAD
    for row in np.flatnonzero(~good):
        refused.add(LISTENER_REASON + "source", msgspec.json.encode(rows[row]))
    return {name: column[good] for name, column in columns.items()}


def _telemetry(raw: Raw) -> dict[str, int]:
    try:
        said = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    numbers = {name[:64]: value for name, value in said.items() if type(value) is int and 0 <= value < 1 << 63}
    return dict(list(numbers.items())[:TELEMETRY])


def _uncovered(raw: Raw) -> list[tuple[float, float]]:
    try:
        said = msgspec.json.decode(raw, type=list[tuple[float, float]])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    return [(since, until) for since, until in said if 0 <= since <= until < LATEST][-UNCOVERED:]
