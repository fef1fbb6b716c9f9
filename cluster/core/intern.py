"""Values that many rows share, kept once under a small number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", str, bytes)
LOOK = 65_536


class Interned(Generic[T]):
    """Values by number, numbers by value. Number 0 is `first`, for ever."""

    def __init__(self, first: T) -> None:
        self.values: list[T] = [first]
        self.worth_a_look = LOOK  # how many values make it worth to look for unused ones
        self._numbers: dict[T, int] = {first: 0}

    def __len__(self) -> int:
        return len(self.values)

    def number(self, value: T) -> int:
        """The number of a value, a new one if it is new."""
        found = self._numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found

    def numbers(self, values: Sequence[T]) -> NDArray[np.intp]:
        """The numbers of many values; those that are known already cost no Python call each."""
        found = np.fromiter(map(self._numbers.get, values, repeat(-1)), np.intp, len(values))
        for place in np.flatnonzero(found < 0).tolist():
            found[place] = self.number(values[place])
        return found

    def find(self, value: T) -> int | None:
        """The number of a value, None where it has none."""
        return self._numbers.get(value)

    def keep(self, used: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Forget the values that are not `used` (one bool each) and renumber the others; returns the new number of each old one."""
        used[0] = True
        renumbered = (np.cumsum(used) - 1).astype(np.uint32)
        self.values = [self.values[old] for old in np.flatnonzero(used)]
        self._numbers = {value: number for number, value in enumerate(self.values)}
        self.worth_a_look = 2 * len(self.values) + LOOK
        return renumbered


def compact(indices: Sequence[NDArray[Any]], values: Sequence[T]) -> tuple[list[NDArray[np.uint32]], list[T]]:
    """Index columns, and the table that they point into, less what none of them uses."""
    used, places = np.unique(np.concatenate(indices), return_inverse=True)
    cuts = np.cumsum([len(column) for column in indices])[:-1]
    return [part.astype(np.uint32) for part in np.split(places, cuts)], [values[old] for old in used]
