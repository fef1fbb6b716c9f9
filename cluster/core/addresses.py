"""Addresses by number: many rows share few addresses, so each text is parsed once and a row holds a u32.

Numbers are private to one collector; a part on the wire carries its own table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.records import V4_PREFIX, pack_address

BAD = 0xFFFFFFFF  # the number of a text that is no address
TEXT_LIMIT = 64  # characters: the longest IPv6 text with a zone is shorter; longer ones are not even parsed


class Addresses(dict[str, int]):
    """A dict from text to number that learns what it is asked for; `BAD` for a text that is no address, which is not remembered.

    Texts of the same address (`::ffff:10.0.0.1` and `10.0.0.1`) have the same number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[bytes, int] = {}
        self._packed = bytearray()

    def __missing__(self, text: str) -> int:
        if len(text) > TEXT_LIMIT:
            return BAD
        try:
            packed = pack_address(text)
        except ValueError:
            return BAD
        self[text] = number = self.number_of(packed)
        return number

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
