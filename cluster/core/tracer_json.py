"""The types of a tracer's JSON, with the limits of the columns that it goes into.

Facts of the format: the tracer's API as DataDog's network-tracer serves it, and the fields that our own tracer adds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

Bit = Annotated[int, Meta(ge=0, le=1)]
U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
U64 = Annotated[int, Meta(ge=0)]  # the upper bound is beyond what Meta can say: array("Q") refuses it
Name = Annotated[str, Meta(max_length=256)]

LIMITS = {
    **dict.fromkeys(("type",), 1),
    **dict.fromkeys(("family", "direction"), 0xFF),
    **dict.fromkeys(("sport", "dport"), 0xFFFF),
    **dict.fromkeys(("pid", "net_ns", "monotonic_retransmits"), 0xFFFF_FFFF),
}  # the largest values of the types above, for those who read numbers without them
NOT_SAID = 0xFF  # family or direction of a record that has none


class Record(Struct, gc=False):
    """One connection as the tracer writes it. Unknown fields are skipped; `last_*` is among them, since it over-counts."""

    pid: U32
    type: Bit
    net_ns: U32
    source: str
    dest: str
    sport: U16
    dport: U16
    monotonic_sent_bytes: U64
    monotonic_recv_bytes: U64
    monotonic_retransmits: U32 = 0
    last_update_epoch: U64 = 0
    family: U8 = NOT_SAID
    direction: U8 = NOT_SAID
    cookie: U64 = 0
    close_id: U64 = 0
    state: Literal["open", "closed"] | None = None
    bytes: Literal["unknown"] | None = None
    recv_exact: bool | None = None


class Listener(Struct, gc=False):
    """One listening socket, as our own tracer tells it."""

    net_ns: U32
    type: Bit
    source: str
    sport: U16
    pid: U32 = 0


class Document(Struct):
    """A reply whose records are all good."""

    connections: list[Record] | None
    listeners: list[Listener] | None = None
    instance: Name | None = None
    reply_id: Name | None = None
    telemetry: Raw = Raw(b"{}")
    uncovered: Raw = Raw(b"[]")


class Envelope(Struct):
    """A reply whose records are still to be read, one by one."""

    connections: list[Raw] | None
    listeners: list[Raw] | None = None
    instance: Name | None = None
    reply_id: Name | None = None
    telemetry: Raw = Raw(b"{}")
    uncovered: Raw = Raw(b"[]")


DOCUMENT = msgspec.json.Decoder(Document)
ENVELOPE = msgspec.json.Decoder(Envelope)
RECORD = msgspec.json.Decoder(Record)
LISTENER = msgspec.json.Decoder(Listener)
