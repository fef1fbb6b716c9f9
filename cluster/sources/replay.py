"""A recording read back as a source: the same replies in the same order, so the same totals every time.

Every recorded reply is given exactly once for each reader, and never passed over: at a speed in time too, a reader that comes late gets the
next one, since a reply that nobody saw could hold the only word of a connection that closed.

Between two replies in time, and after the last one, the reply given last is repeated without the rows that say `state` "closed". Values are
cumulative, so repeating them changes no total; the connections still open in it stay open. (A reply whose rows have no state is repeated
as it is.) With `loop` it begins again instead, as another tracer instance ("...#2"): totals then grow by each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec

from cluster.core.errors import SourceMalformed
from cluster.ports import RawReply
from cluster.sources.recording import BODY_LIMIT, Recording

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)  # what decoding hostile JSON can raise
FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
ROWS = msgspec.json.Decoder(list[msgspec.Raw] | None)


class _RowState(msgspec.Struct):
    state: str = ""


ROW_STATE = msgspec.json.Decoder(_RowState)


class Cursor:
    """One reader's place in a recording. `speed` None gives the next reply at each call; else as time passes, from the first call on."""

    def __init__(
        self, recording: Recording, speed: float | None = None, loop: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not len(recording):
            raise SourceMalformed(f"{recording.path}: holds no reply; record for longer, or see that the tracer answers")
        self._recording = recording
        self._speed = speed
        self._loop = loop
        self._clock = clock
        self._offsets, self._round_length = timeline(recording)
        self._started: float | None = None
        self._given = 0  # replies, over all rounds
        self._rest: RawReply | None = None

    @property
    def ended(self) -> bool:
        """Whether every reply was given, and only the last state is left."""
        return not self._loop and self._given >= len(self._recording)

    def next(self) -> RawReply:
        """The reply that is due, or the last one again without its closed rows. Raises SourceMalformed."""
        if self.ended or not self._due():
            return self._resting()
        lap, number = divmod(self._given, len(self._recording))
        self._given += 1
        self._rest = None
        return in_lap(self._recording.read(number), lap)

    def _due(self) -> bool:
        if self._speed is None:
            return True
        if self._started is None:
            self._started = self._clock()
        lap, number = divmod(self._given, len(self._recording))
        return self._clock() - self._started >= (lap * self._round_length + self._offsets[number]) / self._speed

    def _resting(self) -> RawReply:
        if self._rest is None:
            lap, number = divmod(self._given - 1, len(self._recording))
            self._rest = without_closed(in_lap(self._recording.read(number), lap))
        return self._rest


class ReplaySource:
    """A recording as a ConnectionSource: each poll is the next reply, whatever is acked. `received_at` and `peer` are the recorded ones."""

    def __init__(self, path: str | Path, loop: bool = False, limit: int = BODY_LIMIT) -> None:
        self._path, self._loop, self._limit = path, loop, limit
        self._recording: Recording | None = None
        self._cursor: Cursor | None = None

    def poll(self, ack: str | None) -> RawReply:  # noqa: ARG002 (a recording repeats no closed rows, so none need be acked)
        """The next reply; raises SourceAbsent, SourceMalformed or SourceError where the file is no usable recording."""
        if self._recording is None:
            self._recording = Recording(self._path, self._limit)
        if self._cursor is None:
            try:
                self._cursor = Cursor(self._recording, loop=self._loop)
            except SourceMalformed:
                self.close()  # so that a file that was mended is read anew
                raise
        return self._cursor.next()

    @property
    def ended(self) -> bool:
        """Whether every reply was given, and only the last state is left."""
        return self._cursor is not None and self._cursor.ended

    def close(self) -> None:
        """Give the file back; a later poll begins at the first reply."""
        if self._recording is not None:
            self._recording.close()
        self._recording = self._cursor = None


def timeline(recording: Recording) -> tuple[list[float], float]:
    """Seconds of each reply since the first, and of a whole round. A clock that was set back while recording costs no time."""
    offsets = [0.0]
    for before, after in pairwise(recording.entries):
        step = after.at - before.at
        offsets.append(offsets[-1] + (step if 0 < step < float("inf") else 0.0))
    pause = offsets[-1] / (len(offsets) - 1) if offsets[-1] else 1.0
    return offsets, offsets[-1] + pause


def without_closed(reply: RawReply) -> RawReply:
    """The reply without its rows of `state` "closed"; one that cannot be read, or has none, as it is."""
    if b'"closed"' not in reply.body:
        return reply
    try:
        fields = FIELDS.decode(reply.body)
        rows = ROWS.decode(fields["connections"]) or []
    except (*UNREADABLE, KeyError):
        return reply
    fields["connections"] = msgspec.Raw(msgspec.json.encode([row for row in rows if not _is_closed(row)]))
    return RawReply(msgspec.json.encode(fields), reply.peer, reply.received_at)


def in_lap(reply: RawReply, lap: int) -> RawReply:
    """The reply in its first round as it is; in a later one as of another tracer instance."""
    if not lap:
        return reply
    peer = f"{reply.peer}#{lap + 1}"
    return with_instance(RawReply(reply.body, peer, reply.received_at), lambda found: f"{found}#{lap + 1}" if found else "")


def with_instance(reply: RawReply, name: Callable[[str], str]) -> RawReply:
    """The reply with `instance` = name(the instance it has, or ""); where that is "", or the body cannot be read, as it is."""
    try:
        fields = FIELDS.decode(reply.body)
        found = msgspec.json.decode(fields["instance"], type=str) if "instance" in fields else ""
    except UNREADABLE:
        return reply
    named = name(found)
    if named in ("", found):
        return reply
    fields["instance"] = msgspec.Raw(msgspec.json.encode(named))
    return RawReply(msgspec.json.encode(fields), reply.peer, reply.received_at)


def _is_closed(row: msgspec.Raw) -> bool:
    try:
        return ROW_STATE.decode(row).state == "closed"
    except UNREADABLE:
        return False
