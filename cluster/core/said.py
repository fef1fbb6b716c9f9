"""What one sequence says of the rows: the slots of each section, and their columns as they travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.records import Flag
from cluster.core.slots import ENDED, FREE, Indices, Slots
from cluster.core.wire import SECTIONS

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Said:
    """Slots by section; `closed` ones are also in `opened` or `changed` where their last counters are news."""

    opened: Indices
    changed: Indices
    attributed: Indices
    closed: Indices

    @staticmethod
    def all(slots: Slots) -> Said:
        """Every row that is held, as if it were new."""
        return Said(np.flatnonzero(slots["state"] != FREE), _NONE, _NONE, np.flatnonzero(slots["state"] == ENDED))

    def __bool__(self) -> bool:
        return any(len(slots) for slots in (self.opened, self.changed, self.attributed, self.closed))

    def sections(self, slots: Slots) -> dict[str, Columns]:
        """The sections of the wire format, without the empty ones."""
        named = {"opened": self.opened, "changed": self.changed, "attributed": self.attributed, "closed": self.closed}
        sections = {name: _columns(name, slots, which) for name, which in named.items() if len(which)}
        if "closed" in sections:
            sections["closed"]["flags"] |= np.uint8(Flag.CLOSED)
        return sections


def _columns(section: str, slots: Slots, which: Indices) -> Columns:
    return {name: which.astype(np.uint32) if name == "id" else slots.columns[name][which] for name in SECTIONS[section]}


_NONE: Indices = np.zeros(0, np.int64)
NOTHING = Said(_NONE, _NONE, _NONE, _NONE)
