"""One sequence as the bodies of its parts, none larger than what Ray passes inline.

The rows per part are guessed from the part before; a body that comes out too large, because its columns do not narrow, is halved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from cluster.core.wire import PART_LIMIT, Final, Part, pack_body

Columns = dict[str, NDArray[Any]]
HEAD = 1_200  # bytes of a part beside its body: the map's names, five numbers and the node's name of up to 253 characters
RECORD_LIMIT = 30_000  # bytes of one metadata record with its address and uid, so that it always fits a part
ROW_EXTRA = {"opened": 40, "attributed": 12}  # bytes per row for its addresses and texts, guessed high
Metadata = tuple[str, str, str, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Content:
    """What one sequence says. `source`, `dest` index `addresses`; `local`, `remote` index `texts`."""

    sections: Mapping[str, Columns]
    metadata: Sequence[Metadata]
    final: Final
    addresses: NDArray[np.uint8]  # shape (n, 16)
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Piece:
    """Items start to stop of a section, or of the metadata."""

    section: str
    start: int
    stop: int


def bodies(content: Content) -> list[bytes]:
    """The packed bodies of a sequence's parts, in order; the last holds `final`."""
    packed: list[bytes] = []
    ratio = 0.8
    pieces = list(_pieces(content))
    while pieces:
        group, pieces = _take(pieces, content, 0.95 * (PART_LIMIT - HEAD) / ratio)
        made = _pack(group, content, last=not pieces)
        packed += made
        ratio = max(0.02, len(made[0]) / max(1.0, sum(_weight(piece, content) for piece in group) / len(made)))
    return packed or _pack([], content, last=True)


def _pieces(content: Content) -> Iterator[Piece]:
    for name, columns in content.sections.items():
        if size := len(next(iter(columns.values()))):
            yield Piece(name, 0, size)
    for index in range(len(content.metadata)):
        yield Piece("metadata", index, index + 1)


def _weight(piece: Piece, content: Content) -> float:
    """Bytes of a piece before its columns are narrowed, guessed."""
    if piece.section == "metadata":
        return len(msgpack.packb(content.metadata[piece.start]))
    columns = content.sections[piece.section]
    return (piece.stop - piece.start) * (sum(column.itemsize for column in columns.values()) + ROW_EXTRA.get(piece.section, 0))


def _take(pieces: list[Piece], content: Content, budget: float) -> tuple[list[Piece], list[Piece]]:
    """Split off what weighs up to `budget`, at least one item."""
    group: list[Piece] = []
    for index, piece in enumerate(pieces):
        weight = _weight(piece, content)
        if weight > budget:
            fits = int((piece.stop - piece.start) * budget / weight)
            cut = piece.start + (fits if group else max(1, fits))
            head = [Piece(piece.section, piece.start, cut)] if cut > piece.start else []
            tail = [Piece(piece.section, cut, piece.stop)] if cut < piece.stop else []
            return group + head, tail + pieces[index + 1 :]
        group.append(piece)
        budget -= weight
    return group, []


def _pack(group: list[Piece], content: Content, *, last: bool) -> list[bytes]:
    body = pack_body(_part(group, content, last=last))
    if len(body) <= PART_LIMIT - HEAD:
        return [body]
    left, right = _halve(group)
    return _pack(left, content, last=False) + _pack(right, content, last=last)


def _halve(group: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Two groups of half the items each; a single item is left to the last, without what is to be said at the end."""
    items = sum(piece.stop - piece.start for piece in group)
    left: list[Piece] = []
    right: list[Piece] = []
    room = max(1, items // 2)
    for piece in group:
        cut = min(piece.stop, piece.start + room)
        room -= cut - piece.start
        left += [Piece(piece.section, piece.start, cut)] if cut > piece.start else []
        right += [Piece(piece.section, cut, piece.stop)] if cut < piece.stop else []
    return left, right


def _part(group: list[Piece], content: Content, *, last: bool) -> Part:
    sections = {
        piece.section: {name: column[piece.start : piece.stop] for name, column in content.sections[piece.section].items()}
        for piece in group
        if piece.section != "metadata"
    }
    addresses = _renumber(sections, ("source", "dest"), len(content.addresses), keep_first=False)
    texts = _renumber(sections, ("local", "remote"), len(content.texts), keep_first=True)
    return Part(
        node="",
        incarnation=0,
        stream=0,
        sequence=0,
        part=0,
        last=last,
        addresses=content.addresses[addresses].tobytes(),
        texts=tuple(map(content.texts.__getitem__, texts.tolist())),
        sections=sections,
        metadata=tuple(content.metadata[piece.start] for piece in group if piece.section == "metadata"),
        final=content.final if last else None,
    )


def _renumber(sections: dict[str, Columns], names: tuple[str, ...], size: int, *, keep_first: bool) -> NDArray[np.int64]:
    """Let these columns index a table of only what they use; returns which entries that table holds."""
    used = np.zeros(size, np.bool_)
    used[:1] = keep_first
    columns = [(section, name) for section in sections.values() for name in names if name in section]
    for section, name in columns:
        used[section[name]] = True
    entries = np.flatnonzero(used)
    place = np.zeros(size, np.uint32)
    place[entries] = np.arange(len(entries))
    for section, name in columns:
        section[name] = place.take(section[name])
    return entries
