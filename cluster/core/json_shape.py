"""Records of one JSON shape, read all at once.

A tracer's encoder writes every connection alike: the same fields in the same order, and between them the same bytes. So one record is taken
apart into a *shape*, literal bytes and the values between them, and all others are read along it in numpy: compare eight bytes of each
record, turn eight digits of each into a number. Nothing is assumed: a record that differs in any byte from the shape's literals, or has
anything but digits where the shape has a number, does not match, and is left to others to read. Numbers of more than 19 digits, texts of
more than 40 bytes and texts with an escape or anything but ASCII do not match either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
BLOCK = 4_096  # records read together: their bytes and the columns in work stay in the processor's cache
TEXT_WORDS = 5
_TOKEN = re.compile(rb'("[^"\\\x00-\x1f\x7f-\xff]*"):|"([^"\\\x00-\x1f\x7f-\xff]*)"|(0|[1-9][0-9]*)(?=[,}\]])|true|false|null|[{}\[\],]')


def _repeat(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * 8, "little"))


ONES, HIGH, ZEROS, QUOTES, BACKSLASHES = _repeat(0x01), _repeat(0x80), _repeat(ord("0")), _repeat(ord('"')), _repeat(ord("\\"))
SIX, NIBBLES, SPACES = _repeat(0x06), _repeat(0xF0), _repeat(0x20)
U = np.uint64
_SHIFTS = np.array([0, *range(56, -1, -8)], np.uint64)  # what brings n digits to the word's end
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # what leaves the first n bytes
_FILLS = np.array([int(SPACES) & ~((1 << 8 * size) - 1) & (1 << 64) - 1 for size in range(9)], np.uint64)  # spaces in place of the others
_REACH = {"literal": 16, "number": 24, "text": 8 * 5}  # bytes beyond its literal that a step may look at
POWERS = np.array([10**digits for digits in range(9)], np.uint64)


@dataclass(frozen=True, slots=True)
class Step:
    """One step along a record: bytes that must be there, or a value."""

    kind: str  # "literal", "number" or "text"
    name: str = ""  # where the value is wanted
    literal: bytes = b""


@dataclass(slots=True)
class Values:
    """What was read of n records: numbers u64, texts as `S40`."""

    numbers: dict[str, Words] = field(default_factory=dict)
    texts: dict[str, NDArray[np.bytes_]] = field(default_factory=dict)


def shape_of(record: bytes, numbers: Collection[str], texts: Collection[str], fixed: Collection[str]) -> list[Step] | None:
    """The shape of a record, with what follows it up to the next; None where it cannot be read along one.

    `numbers` and `texts` name the fields of the record itself that are wanted; a text in `fixed` is part of the shape. Whether the record
    is JSON at all is for the caller to find out.
    """
    steps = [Step("literal")]
    depth, position, key, seen = 0, 0, "", set[str]()
    while position < len(record):
        token = _TOKEN.match(record, position)
        if token is None:
            return None
        position = token.end()
        name, text, number = token.groups()
        if name is not None:
            key = name[1:-1].decode() if depth == 1 else ""
            if key in seen:
                return None
            seen |= {key} - {""}
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        if number is not None:
            steps += [Step("number", key if key in numbers else ""), Step("literal")]
        elif text is not None and key not in fixed:
            steps[-1] = Step("literal", literal=steps[-1].literal + b'"')
            steps += [Step("text", key if key in texts else ""), Step("literal", literal=b'"')]
        else:
            steps[-1] = Step("literal", literal=steps[-1].literal + token[0])
    return steps


class Records:
    """A document's bytes, to be read at many places at once."""

    def __init__(self, body: bytes) -> None:
        self._size = len(body)
        self._words: Words = np.ndarray(max(0, len(body) - 7), "<u8", body, strides=(1,))
        self._pairs = np.ndarray(max(0, len(body) - 15), "<c16", body, strides=(1,))  # never as complex numbers: 16 bytes at once

    def read(self, starts: NDArray[np.int64], ends: NDArray[np.int64], steps: Sequence[Step]) -> tuple[NDArray[np.bool_], Values]:
        """Read the records from `starts` to `ends` along a shape; which match, and their values (those of others mean nothing).

        A record that begins so near the document's end that a step could lead beyond it does not match.
        """
        inside = int(np.searchsorted(starts, self._size - sum(_REACH[step.kind] + len(step.literal) for step in steps)))
        matches, blocks = [], []
        for first in range(0, inside, BLOCK):
            last = min(first + BLOCK, inside)
            at, values, good = starts[first:last], Values(), np.ones(last - first, np.bool_)
            for step in steps:
                at = self._step(step, at, good, values)
            matches.append(good & (at == ends[first:last]))
            blocks.append(values)
        matches.append(np.zeros(len(starts) - inside, np.bool_))
        return np.concatenate(matches), _joined(blocks, steps)

    def _two_words(self, at: NDArray[np.int64]) -> tuple[Words, Words]:
        both = self._pairs[at].view("<u8")
        return both[0::2], both[1::2]

    def _step(self, step: Step, at: NDArray[np.int64], good: NDArray[np.bool_], values: Values) -> NDArray[np.int64]:
        if step.kind == "literal":
            return self._literal(step.literal, at, good)
        if step.kind == "number" and not step.name:
            return self._skip_number(at, good)
        if step.kind == "number":
            at, values.numbers[step.name] = self._number(at, good)
            return at
        at, text = self._text(at, good)
        if step.name:
            values.texts[step.name] = text
        return at

    def _literal(self, literal: bytes, at: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.int64]:
        size = len(literal)
        for offset in range(0, size, 16):
            piece = literal[offset : offset + 16]
            if len(piece) <= 8:
                good &= _equal(self._words[at + offset], piece)
            else:
                first, second = self._two_words(at + offset)
                good &= _equal(first, piece[:8])
                good &= _equal(second, piece[8:])
        return at + size

    def _number(self, at: NDArray[np.int64], good: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Words]:
        first, second = self._two_words(at)
        number, digits = _digits(first)
        good &= (digits == 1) | (((first & U(0xFF)) != U(ord("0"))) & (digits > 0))
        long = digits == 8
        if not long.any():
            return at + digits, number
        more, further = _digits(second)
        np.copyto(further, 0, where=~long)
        np.copyto(more, 0, where=~long)
        number *= POWERS[further]
        number += more
        digits += further
        longer = np.flatnonzero(digits == 16)
        if len(longer):
            more, further = _digits(self._words[at[longer] + 16])
            number[longer] = number[longer] * POWERS[further] + more
            digits[longer] += further
            good[longer[further > 3]] = False  # 20 digits may not fit 64 bits
        return at + digits, number

    def _skip_number(self, at: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.int64]:
        first = self._words[at]
        digits = _count(first)
        good &= (digits == 1) | (((first & U(0xFF)) != U(ord("0"))) & (digits > 0))
        long = np.flatnonzero(digits == 8)
        while len(long):
            more = _count(self._words[at[long] + digits[long]])
            digits[long] += more
            long = long[(more == 8) & (digits[long] <= 24)]
        good[digits > 24] = False
        return at + digits

    def _text(self, at: NDArray[np.int64], good: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
        """Texts up to their closing quote, which is not passed."""
        words = np.zeros((len(at), TEXT_WORDS), np.uint64)
        sizes = np.zeros(len(at), np.int64)
        rest: NDArray[np.int64] | slice = slice(None)
        for index in range(TEXT_WORDS):
            size, words[rest, index], plain = _inside(self._words[at[rest] + 8 * index])
            sizes[rest] += size
            good[rest] &= plain
            rest = np.flatnonzero(sizes == 8 * (index + 1))
            if not len(rest):
                break
        good &= sizes < 8 * TEXT_WORDS
        return at + sizes, words.view(f"S{8 * TEXT_WORDS}")[:, 0]


def _equal(words: Words, piece: bytes) -> NDArray[np.bool_]:
    """Which words begin with these bytes, eight at most."""
    if len(piece) < 8:
        words = words & U((1 << 8 * len(piece)) - 1)
    result: NDArray[np.bool_] = words == U(int.from_bytes(piece, "little"))
    return result


def _count(words: Words) -> NDArray[np.uint8]:
    """How many digits each word begins with."""
    others = words ^ ZEROS
    others |= others + SIX
    others &= NIBBLES
    count: NDArray[np.uint8] = np.bitwise_count((others & -others) - U(1)) >> np.uint8(3)
    return count


def _digits(words: Words) -> tuple[Words, NDArray[np.uint8]]:
    """The number in the leading digits of each word, eight at most (0 where there are none), and how many they are."""
    count = _count(words)
    digits = words ^ ZEROS
    digits <<= _SHIFTS[count]
    digits *= U(2561)
    digits >>= U(8)
    digits &= U(0x00FF00FF00FF00FF)
    digits *= U(6553601)
    digits >>= U(16)
    digits &= U(0x0000FFFF0000FFFF)
    digits *= U(42949672960001)
    digits >>= U(32)
    if not count.all():
        digits[count == 0] = 0
    return digits, count


def _inside(words: Words) -> tuple[NDArray[np.uint8], Words, NDArray[np.bool_]]:
    """How many bytes of each word come before a quote, the word without the others, and whether these are plain: no control character,
    no escape, nothing but ASCII."""
    quotes = words ^ QUOTES
    found = (quotes - ONES) & ~quotes & HIGH
    size: NDArray[np.uint8] = np.bitwise_count((found & -found) - U(1)) >> np.uint8(3)
    text = words & _MASKS[size]
    filled = text | _FILLS[size]
    escapes = filled ^ BACKSLASHES
    odd = (filled - SPACES) | (escapes - ONES) & ~escapes | filled
    return size, text, (odd & HIGH) == 0


def _joined(blocks: list[Values], steps: Sequence[Step]) -> Values:
    values = Values()
    for step in steps:
        if step.name and step.kind == "number":
            values.numbers[step.name] = np.concatenate([block.numbers[step.name] for block in blocks] or [np.zeros(0, np.uint64)])
        elif step.name:
            values.texts[step.name] = np.concatenate([block.texts[step.name] for block in blocks] or [np.zeros(0, f"S{8 * TEXT_WORDS}")])
    return values
