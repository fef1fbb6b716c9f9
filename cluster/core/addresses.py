"""Addresses by number: many rows share few addresses, so each text is parsed once and a row holds a u32.

Numbers are private to one collector; a part on the wire carries its own table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.records import V4_PREFIX, pack_address

Words = NDArray[np.uint64]
BAD = 0xFFFFFFFF  # the number of a text that is no address
TEXT_LIMIT = 64  # characters: the longest IPv6 text with a zone is shorter; longer ones are not even parsed


WORDS = TEXT_LIMIT // 8  # u64 of a text that comes as bytes
PLACES = 1 << 16  # of the table of recent texts
_OCTETS = {str(octet): octet for octet in range(256)}
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, WORDS + 1)], np.uint64)
_SAME = np.uint64(0x0101010101010101)  # eight words are equal


def _dotted(text: str) -> bytes | None:
    """A plain IPv4 address, as 16 bytes, in a quarter of the time that `ipaddress` takes; None for anything else."""
    octets = [_OCTETS.get(octet, -1) for octet in text.split(".")]
    return V4_PREFIX + bytes(octets) if len(octets) == 4 and -1 not in octets else None


def _grouped(text: str) -> bytes | None:
    """A plain IPv6 address, likewise; None for anything else."""
    head, gap, tail = text.partition("::")
    before, after = head.split(":") if head else [], tail.split(":") if tail else []
    missing = 8 - len(before) - len(after)
    groups = [*before, *["0"] * missing, *after]
    if (missing < 1 if gap else missing) or not all(0 < len(group) <= 4 for group in groups):
        return None
    try:
        packed = bytes.fromhex("".join([group.zfill(4) for group in groups]))
    except ValueError:
        return None
    return packed if len(packed) == 16 else None  # fewer where white space stood among the digits


def _places(words: Words) -> NDArray[np.intp]:
    mixed = words[:, 0] * _FACTORS[0]
    for index in range(1, WORDS):
        mixed += words[:, index] * _FACTORS[index]
    mixed ^= mixed >> np.uint64(32)
    mixed *= _FACTORS[0]
    mixed >>= np.uint64(64 - 16)
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
        self._recent = np.full(PLACES, BAD, np.uint32)
        self._recent_texts = np.zeros(PLACES, f"V{8 * WORDS}")  # an empty text is BAD

    def __missing__(self, text: str | bytes) -> int:
        if len(text) > TEXT_LIMIT:
            return BAD
        try:
            plain = text if isinstance(text, str) else text.decode("ascii")
            packed = _dotted(plain) or _grouped(plain) or pack_address(plain)
        except ValueError:
            return BAD
        self[text] = number = self.number_of(packed)
        return number

    def of_words(self, words: Words, wanted: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """The numbers of many texts, in which few differ, as rows of eight words (`S64`): all but the first of each are found in a table
        of recent ones. Those that are not wanted mean nothing and are not learned."""
        texts = words.view(f"V{8 * WORDS}")[:, 0]
        places = _places(words)
        numbers = self._recent.take(places)
        same = (self._recent_texts[places].view(np.uint64) == words.reshape(-1)).view(np.uint64) == _SAME
        other = np.flatnonzero(wanted & ~same)
        if len(other):
            learned = np.array([self[text] for text in texts[other].view(f"S{8 * WORDS}").tolist()], np.uint32)
            numbers[other] = learned
            good, places = learned != BAD, places[other]
            self._recent[places[good]] = learned[good]
            self._recent_texts[places[good]] = texts[other[good]]
        return numbers

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
