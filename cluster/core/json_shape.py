"""Records of one JSON shape, read all at once.

A tracer's encoder writes every connection alike: the same fields in the same order, and between them the same bytes. So one record is taken
apart into a *shape*, literal bytes and the values between them, and all others are read along it in numpy: compare eight bytes of each
record, turn eight digits of each into a number. Nothing is assumed: a record that differs in any byte from the shape's literals, or has
anything but digits where the shape has a number, does not match, and is left to others to read. Numbers of more than 19 digits or beyond
their limit, texts of more than 63 bytes and texts with an escape or anything but ASCII do not match either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
NumberOf = Callable[[Words, NDArray[np.bool_]], NDArray[np.uint32]]
BLOCK = 8_192  # records read together: their bytes and the columns in work stay in the processor's cache
WINDOW = 64  # bytes of each record that are fetched at once, which costs hardly more than fetching eight
DIGITS = 24  # bytes that a number may lead on by
UNLIMITED = 0xFFFF_FFFF_FFFF_FFFF
_TOKEN = re.compile(rb'("[^"\\\x00-\x1f\x7f-\xff]*"):|"([^"\\\x00-\x1f\x7f-\xff]*)"|(0|[1-9][0-9]*)(?=[,}\]])|true|false|null|[{}\[\],]')


def _repeat(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * 8, "little"))


U = np.uint64
ZEROS, SIX, NIBBLES = _repeat(ord("0")), _repeat(0x06), _repeat(0xF0)
_SHIFTS = np.array([64 - 8 * digits for digits in range(9)], np.uint64)  # what brings n digits to the word's end
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # what leaves the first n bytes
_TEXTS = np.array([[0xFF] * (size + 1) + [0] * (WINDOW - size - 1) for size in range(WINDOW)] + [[0] * WINDOW], np.uint8)
_TEXT_MASKS = _TEXTS.view(f"V{WINDOW}")[:, 0]  # what leaves a text and its quote; nothing of one whose quote is not in sight
_QUOTE, _BACKSLASH = np.uint8(ord('"')), np.uint8(ord("\\"))
_NOTHING = np.zeros(0, np.uint8)
POWERS = np.array([10**digits for digits in range(9)], np.uint64)


@dataclass(frozen=True, slots=True)
class Step:
    """One step along a record: bytes that must be there, or a value."""

    kind: str  # "literal", "number" or "text"
    name: str = ""  # where the value is wanted
    literal: bytes = b""

    @property
    def reach(self) -> int:
        """The most bytes that it leads on by."""
        return {"literal": len(self.literal), "number": DIGITS, "text": WINDOW}[self.kind]


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
        self._windows = np.ndarray(max(0, len(body) - WINDOW + 1), f"V{WINDOW}", body, strides=(1,))

    def read(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64], steps: Sequence[Step], limits: Mapping[str, int], number_of: NumberOf
    ) -> tuple[NDArray[np.bool_], dict[str, NDArray[Any]]]:
        """Read the records from `starts` to `ends` along a shape; which match, and their values (those of others mean nothing).

        Numbers come in the smallest type for their limit. A text comes as what `number_of` makes of it: it is given texts, each with its
        closing quote, as rows of eight words, filled up with zeros, and which of them are worth a look; it must refuse those with escapes
        or control characters. A record that begins so near the document's end that a step could lead beyond it does not match.
        """
        inside = int(np.searchsorted(starts, self._size - WINDOW - sum(step.reach for step in steps)))
        matches = np.zeros(len(starts), np.bool_)
        largest = {step.name: limits.get(step.name, UNLIMITED) if step.kind == "number" else 0xFFFF_FFFF for step in steps if step.name}
        values: dict[str, NDArray[Any]] = {name: np.zeros(len(starts), np.min_scalar_type(limit)) for name, limit in largest.items()}
        for first in range(0, inside, BLOCK):
            place = slice(first, min(first + BLOCK, inside))
            block = Block(self._windows, starts[place])
            for step in steps:
                if step.kind == "literal":
                    block.literal(step.literal)
                elif step.kind == "text" and step.name:
                    values[step.name][place] = number_of(block.text(), block.good)
                elif step.kind == "text":
                    block.skip_text()
                elif step.name:
                    values[step.name][place] = block.number(largest[step.name])
                else:
                    block.skip_number()
            matches[place] = block.good & block.ended(ends[place])
        return matches, values


class Block:
    """Records that are read in step. As long as all of them have passed the same number of bytes, one window of each serves."""

    def __init__(self, windows: NDArray[np.void], at: NDArray[np.int64]) -> None:
        self.good = np.ones(len(at), np.bool_)
        self._windows = windows
        self._at = at  # where the windows begin
        self._passed = 0  # bytes of them
        self._seen = _NOTHING  # the windows, one after the other

    def ended(self, ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which have come to their end."""
        ended: NDArray[np.bool_] = self._at + self._passed == ends
        return ended

    def literal(self, literal: bytes) -> None:
        """Pass bytes that must be there."""
        self._look(min(WINDOW, len(literal) + 7))
        for offset in range(0, len(literal), 8):
            piece = literal[offset : offset + 8]
            self._look(8)
            word = self._word(0) if len(piece) == 8 else self._word(0) & _MASKS[len(piece)]
            self.good &= word == U(int.from_bytes(piece, "little"))
            self._passed += len(piece)

    def number(self, limit: int) -> Words:
        """Pass numbers of up to 19 digits that are within the limit."""
        self._look(8)
        number, digits = _digits(self._word(0))
        self._check_number(digits)
        further = digits == 8
        if further.any():
            self._look(DIGITS)
            for offset in (8, 16):
                more, count = _digits(self._word(offset))
                count *= further
                number *= POWERS.take(count)
                number += more * further
                digits += count
                further = count == 8
                if not further.any():
                    break
            self.good &= digits < 20  # 20 digits may not fit 64 bits
        if limit < UNLIMITED:
            self.good &= number <= U(limit)
        self._pass(digits)
        return number

    def skip_number(self) -> None:
        """Pass numbers of up to 23 digits."""
        self._look(8)
        digits = _count(self._word(0) ^ ZEROS)
        self._check_number(digits)
        further = digits == 8
        if further.any():
            self._look(DIGITS)
            for offset in (8, 16):
                digits += _count(self._word(offset) ^ ZEROS) * further
                further = digits == offset + 8
            self.good &= ~further
        self._pass(digits)

    def text(self) -> Words:
        """Pass texts up to their closing quote; returns them, with it, as rows of eight words, plain or not."""
        self._look(WINDOW)
        sizes = _first(self._seen == _QUOTE)
        words = self._seen.view(np.uint64) & _TEXT_MASKS[sizes].view(np.uint64)
        self._pass(sizes)
        return words.reshape(-1, WINDOW // 8)

    def skip_text(self) -> None:
        """Pass texts up to their closing quote, or to whatever is not plain in them."""
        self._look(WINDOW)
        odd = (self._seen - np.uint8(0x20)) > np.uint8(0x5F)
        self._pass(_first(odd | (self._seen == _BACKSLASH) | (self._seen == _QUOTE)))

    def _check_number(self, digits: NDArray[np.uint8]) -> None:
        """JSON has no number without digits, nor one with a zero before others."""
        leading = np.ndarray(len(digits), np.uint8, self._seen, self._passed, (WINDOW,))
        self.good &= (digits == 1) | ((digits > 0) & (leading != np.uint8(ord("0"))))

    def _look(self, size: int) -> None:
        """Have this many bytes to come in the windows."""
        if self._seen is _NOTHING or self._passed + size > WINDOW:
            self._at = self._at + self._passed
            self._passed = 0
            self._seen = self._windows[self._at].view(np.uint8)

    def _word(self, offset: int) -> Words:
        return np.ndarray(len(self._at), "<u8", self._seen, self._passed + offset, (WINDOW,))

    def _pass(self, sizes: NDArray[np.uint8]) -> None:
        least = int(sizes.min())
        if least == int(sizes.max()):
            self._passed += least
        else:
            self._at = self._at + (sizes + np.uint8(self._passed))
            self._passed = 0
            self._seen = _NOTHING


def _first(found: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How many bytes of each window come before the first that is found, WINDOW where none is."""
    flags = found.view(np.uint64).reshape(-1, WINDOW // 8)
    sizes = _before(flags[:, 0])
    going = sizes == 8
    for index in range(1, WINDOW // 8):
        if not going.any():
            break
        size = _before(flags[:, index])
        sizes += size * going
        going &= size == 8
    return sizes


def _before(words: Words) -> NDArray[np.uint8]:
    """How many bytes of each word come before the one with its lowest bit, 8 where it has none."""
    lower = words - U(1)
    lower &= ~words
    count: NDArray[np.uint8] = np.bitwise_count(lower)
    count >>= np.uint8(3)
    return count


def _count(values: Words) -> NDArray[np.uint8]:
    """How many digits each word begins with; of words less ZEROS."""
    others = values + SIX
    others |= values
    others &= NIBBLES
    return _before(others)


def _digits(words: Words) -> tuple[Words, NDArray[np.uint8]]:
    """The number in the leading digits of each word, eight at most (0 where there are none), and how many they are."""
    digits = words ^ ZEROS
    count = _count(digits)
    digits <<= _SHIFTS.take(count)
    digits *= U(2561)
    digits >>= U(8)
    digits &= U(0x00FF00FF00FF00FF)
    digits *= U(6553601)
    digits >>= U(16)
    digits &= U(0x0000FFFF0000FFFF)
    digits *= U(42949672960001)
    digits >>= U(32)
    return digits, count
