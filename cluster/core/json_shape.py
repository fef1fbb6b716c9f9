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
Literal = list[tuple[int, np.uint64, np.uint64]]
BLOCK = 8_192  # records read together: their bytes and the columns in work stay in the processor's cache
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
    long: bool = False  # the first record's number has eight digits or more

    def words(self) -> list[tuple[int, np.uint64, np.uint64]]:
        """A literal as words: the place of each, its value, and the mask of what counts of it."""
        pieces = [(offset, self.literal[offset : offset + 8]) for offset in range(0, len(self.literal), 8)]
        return [(offset, U(int.from_bytes(piece, "little")), _MASKS[len(piece)]) for offset, piece in pieces]


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
            steps += [Step("number", key if key in numbers else "", long=len(number) > 7), Step("literal")]
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
        matches = np.zeros(len(starts), np.bool_)
        values = Values(
            {step.name: np.zeros(len(starts), np.uint64) for step in steps if step.name and step.kind == "number"},
            {step.name: np.zeros(len(starts), f"S{8 * TEXT_WORDS}") for step in steps if step.name and step.kind == "text"},
        )
        taken = [(step, step.words()) for step in steps]
        for first in range(0, inside, BLOCK):
            place = slice(first, min(first + BLOCK, inside))
            at, good = starts[place], np.ones(place.stop - first, np.bool_)
            for step, words in taken:
                at = self._step(step, words, at, good, values, place)
            matches[place] = good & (at == ends[place])
        return matches, values

    def _two_words(self, at: NDArray[np.int64]) -> tuple[Words, Words]:
        both = self._pairs[at].view("<u8")
        return both[0::2], both[1::2]

    def _step(
        self, step: Step, words: Literal, at: NDArray[np.int64], good: NDArray[np.bool_], values: Values, place: slice
    ) -> NDArray[np.int64]:
        if step.kind == "literal":
            self._literal(words, at, good)
            return at + len(step.literal)
        if step.kind == "text":
            at, text = self._text(at, good)
            if step.name:
                values.texts[step.name][place] = text
            return at
        if not step.name:
            return self._skip_number(at, good)
        at, values.numbers[step.name][place] = self._number(at, good, long=step.long)
        return at

    def _literal(self, words: Literal, at: NDArray[np.int64], good: NDArray[np.bool_]) -> None:
        for (offset, value, mask), following in zip(words[0::2], [*words[1::2], None], strict=False):
            if following is None:
                good &= (self._words[at + offset] & mask) == value
            else:
                first, second = self._two_words(at + offset)
                good &= first == value
                good &= (second & following[2]) == following[1]

    def _number(self, at: NDArray[np.int64], good: NDArray[np.bool_], *, long: bool) -> tuple[NDArray[np.int64], Words]:
        first, second = self._two_words(at) if long else (self._words[at], None)
        number, digits = _digits(first)
        good &= (digits == 1) | (((first & U(0xFF)) != U(ord("0"))) & (digits > 0))
        further = digits == 8
        if not further.any():
            return at + digits, number
        more, count = _digits(self._words[at + 8] if second is None else second)
        np.copyto(count, 0, where=~further)
        np.copyto(more, 0, where=~further)
        number *= POWERS[count]
        number += more
        digits += count
        longer = np.flatnonzero(digits == 16)
        if len(longer):
            more, count = _digits(self._words[at[longer] + 16])
            number[longer] = number[longer] * POWERS[count] + more
            digits[longer] += count
            good[longer[count > 3]] = False  # 20 digits may not fit 64 bits
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
        first, second = self._two_words(at)
        size, words[:, 0], plain = _inside(first)
        good &= plain
        more, second, plain = _inside(second)
        long = size == 8
        good &= plain | ~long
        np.copyto(words[:, 1], second, where=long)
        sizes = size + more * long.view(np.uint8)
        rest = np.flatnonzero(sizes == 16)
        for index in range(2, TEXT_WORDS):
            if not len(rest):
                break
            size, words[rest, index], plain = _inside(self._words[at[rest] + 8 * index])
            sizes[rest] += size
            good[rest] &= plain
            rest = rest[size == 8]
        good &= sizes < 8 * TEXT_WORDS
        return at + sizes, words.view(f"S{8 * TEXT_WORDS}")[:, 0]


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
