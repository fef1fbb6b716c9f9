"""Addresses by number: many rows share few addresses, so each text is parsed once and a row holds a u32.

Numbers are private to one collector; a part on the wire carries its own table.
"""

from __future__ import annotations

from binascii import unhexlify
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.records import V4_PREFIX, pack_address

Words = NDArray[np.uint64]
BAD = 0xFFFFFFFF  # the number of a text that is no address
TEXT_LIMIT = 64  # characters: the longest IPv6 text with a zone is shorter; longer ones are not even parsed


WORDS = TEXT_LIMIT // 8  # u64 of a text that comes as bytes
TEXT = np.dtype(f"V{8 * WORDS}")
PLACES = 1 << 17  # of the table of recent texts
_OCTETS = {b"%d" % octet: octet for octet in range(256)}
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, WORDS + 1)], np.uint64)
_SAME = np.uint64(0x0101010101010101)  # eight words are equal


def _dotted(text: bytes) -> bytes | None:
    """A plain IPv4 address, as 16 bytes, in a quarter of the time that `ipaddress` takes; None for anything else."""
    try:
        first, second, third, fourth = text.split(b".")
        return V4_PREFIX + bytes((_OCTETS[first], _OCTETS[second], _OCTETS[third], _OCTETS[fourth]))
    except (ValueError, KeyError):
        return None


def _grouped(text: bytes) -> bytes | None:
    """A plain IPv6 address, likewise; None for anything else."""
    head, gap, tail = text.partition(b"::")
    before, after = head.split(b":") if head else [], tail.split(b":") if tail else []
    missing = 8 - len(before) - len(after)
    groups = [*before, *[b"0"] * missing, *after]
    if (missing < 1 if gap else missing) or not all(0 < len(group) <= 4 for group in groups):
        return None
    try:
        return unhexlify(b"".join([group.zfill(4) for group in groups]))
    except ValueError:
        return None


def _no_texts(count: int) -> NDArray[np.void]:
    return np.full(8 * WORDS * count, 0xFF, np.uint8).view(TEXT)  # unlike any text


def _places(words: Words) -> NDArray[np.intp]:
    mixed = words[:, 0] * _FACTORS[0]
    for index in range(1, WORDS):
        mixed += words[:, index] * _FACTORS[index]
    mixed ^= mixed >> np.uint64(32)
    mixed *= _FACTORS[0]
    mixed >>= np.uint64(64 - 17)
    places: NDArray[np.intp] = mixed.astype(np.intp)
    return places


class Addresses(dict[str | bytes, int]):
    """A dict from text (or its ASCII bytes) to number that learns what it is asked for. A text that is no address is `BAD`, and not
    remembered.

    Texts of the same address (`::ffff:10.0.0.1` and `10.0.0.1`) have the same number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[bytes, int] = {}
        self._packed = bytearray()
        self._recent = np.zeros(PLACES, np.uint32)  # by hash of a text, a number that may be its
        self._texts = _no_texts(1_024)  # by number, the last text of it

    def __missing__(self, text: str | bytes) -> int:
        if len(text) > TEXT_LIMIT:
            return BAD
        try:
            plain = text.encode() if isinstance(text, str) else text
            packed = (_grouped(plain) if b":" in plain else _dotted(plain)) or pack_address(plain.decode())
        except ValueError:
            return BAD
        self[text] = number = self.number_of(packed)
        return number

    def of_words(self, words: Words, wanted: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """The numbers of many texts, in which few differ: rows of eight words that hold a text, a quote, which no text has, and zeros.

        All but the first of each are found in a table of recent ones. Those that are not wanted mean nothing and are not learned. One
        with a zone, which may hold any character, is `BAD`, so what is not has nothing but digits, letters, colons and dots.
        """
        places = _places(words)
        numbers = self._recent.take(places)
        other = np.flatnonzero(wanted & ~self._same(numbers, words))
        if len(other):
            firsts = other[np.unique(places[other], return_index=True)[1]]
            self._learn(words[firsts], places[firsts])
            numbers[other] = self._recent.take(places[other])
            other = other[~self._same(numbers[other], words[other])]  # those that share a place with another
            numbers[other] = self._learn(words[other], places[other])
        return numbers

    def _same(self, numbers: NDArray[np.uint32], words: Words) -> NDArray[np.bool_]:
        """Which texts are the last ones of these numbers."""
        held = self._texts[numbers].view(np.uint64)
        same: NDArray[np.bool_] = (held == words.reshape(-1)).view(np.uint64) == _SAME
        return same

    def _learn(self, words: Words, places: NDArray[np.intp]) -> NDArray[np.uint32]:
        """The numbers of some texts, each asked for, and where they are to be found from now on."""
        texts = words.view(TEXT)[:, 0]
        listed = texts.view(f"S{8 * WORDS}").tolist()
        numbers = np.array([BAD if b"%" in text else self[text[:-1]] for text in listed], np.uint32)
        good = numbers != BAD
        self._remember(numbers[good], texts[good], places[good])
        return numbers

    def _remember(self, numbers: NDArray[np.uint32], texts: NDArray[np.void], places: NDArray[np.intp]) -> None:
        if len(self.numbers) > len(self._texts):
            held = self._texts
            self._texts = _no_texts(2 * len(self.numbers))
            self._texts[: len(held)] = held
        self._texts[numbers] = texts
        self._recent[places] = numbers

    def number_of(self, packed: bytes) -> int:
        """The number of an address of 16 bytes."""
        number = self.numbers.setdefault(packed, len(self.numbers))
        if 16 * number == len(self._packed):
            self._packed += packed
        return number

    @property
    def packed(self) -> NDArray[np.uint8]:
        """All addresses by number, shape (n, 16), u8; a copy."""
        return np.frombuffer(bytes(self._packed), np.uint8).reshape(-1, 16)

    def is_v6(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of these are IPv6 and not v4-mapped."""
        v6: NDArray[Any] = (self.packed[:, :12] != np.frombuffer(V4_PREFIX, np.uint8)).any(axis=1)
        result: NDArray[np.bool_] = v6[numbers]
        return result

    def forget(self, used: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Keep only the used ones, which get new numbers; returns the new number of each old one."""
        packed = self.packed
        self.__init__()  # type: ignore[misc]
        self.clear()
        numbers = np.zeros(len(used), np.uint32)
        numbers[used] = [self.number_of(packed[old].tobytes()) for old in np.flatnonzero(used).tolist()]
        return numbers
