"""Whose a connection is: the workload of its local end, that of its remote end where the node itself knows it, and which of the two serves.

Nothing is guessed: an end that is not known has text 0, the empty one, and is asked for again a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.kinds import WORKLOAD_LIMIT
from cluster.core.listeners import Listeners
from cluster.core.mirror import mirrored
from cluster.core.records import Direction, Flag, Role
from cluster.core.slots import FREE, OPEN, Indices, Slots

Columns = dict[str, NDArray[Any]]
WorkloadOf = Callable[[int], str]
TRIES = 5  # polls after the first that ask for an owner again
ASKED_AGAIN = 256  # distinct pids asked for again per poll
PID_MAX = 1 << 22  # the largest pid that Linux gives (PID_MAX_LIMIT)


class Texts:
    """Workload names by number; 0 is the empty one."""

    def __init__(self) -> None:
        self.listed = [""]
        self._numbers = {"": 0}

    def number(self, text: str) -> int:
        """The number of a name, cut at WORKLOAD_LIMIT."""
        text = text[:WORKLOAD_LIMIT]
        number = self._numbers.setdefault(text, len(self.listed))
        if number == len(self.listed):
            self.listed.append(text)
        return number

    def forget(self, used: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Keep only the used ones, which get new numbers; returns the new number of each old one."""
        listed = self.listed
        self.listed, self._numbers = [""], {"": 0}
        return np.array([self.number(text) if use else 0 for text, use in zip(listed, used.tolist(), strict=True)], np.uint32)

    def of_pids(self, pids: NDArray[Any], workload_of: WorkloadOf) -> NDArray[np.uint32]:
        """The workload of each pid; each distinct one is asked for once, 0 never."""
        distinct, place = _distinct(pids)
        numbers = [self.number(workload_of(pid)) if pid else 0 for pid in distinct.tolist()]
        return np.array(numbers, np.uint32).take(place)


def _distinct(pids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each pid once, in order, and where each of `pids` is among them; without sorting where they are as small as Linux lets pids be."""
    top = int(pids.max(initial=0))
    if top > PID_MAX:
        return np.unique(pids, return_inverse=True)
    seen = np.zeros(top + 1, np.bool_)
    seen[pids] = True
    return np.flatnonzero(seen), (np.cumsum(seen, dtype=np.int32) - 1)[pids]


def local_end(rows: Columns, listeners: Listeners, texts: Texts, workload_of: WorkloadOf) -> None:
    """Fill `pid` (where it is 0, from the listener on the local port), `local` and `role` of new rows."""
    exact, wild, pid = listeners.find(rows["net_ns"], rows["protocol"], rows["source"], rows["sport"])
    rows["pid"] = np.where((rows["pid"] == 0) & (rows["cookie"] != 0), pid, rows["pid"])
    rows["local"] = texts.of_pids(rows["pid"], workload_of)
    rows["role"] = role(rows, exact | wild, listeners)


def role(rows: Columns, serves: NDArray[np.bool_], listeners: Listeners) -> NDArray[np.uint8]:
    """Role of the local end: the listeners say it, else `direction` hints at it, else the lower port is the server's."""
    remote_serves, wild, _ = listeners.find(rows["net_ns"], rows["protocol"], rows["dest"], rows["dport"])
    if wild.any():
        remote_serves |= wild & np.isin(_places(rows, "dest"), _places(rows, "source"))
    direction = rows["direction"]
    chosen = np.select(
        [
            serves,
            remote_serves,
            direction == Direction.INCOMING,
            direction == Direction.OUTGOING,
            rows["sport"] < rows["dport"],
            rows["sport"] > rows["dport"],
        ],
        [Role.SERVER, Role.CLIENT, Role.SERVER, Role.CLIENT, Role.SERVER, Role.CLIENT],
        Role.UNKNOWN,
    )
    return chosen.astype(np.uint8)


def late_pids(slots: Slots, rows: Columns, at: Indices) -> Indices:
    """Note pids that became known, or changed, of rows told apart by a cookie; returns those rows. Their owner is asked for again."""
    late = (rows["pid"] != slots.columns["pid"][at]) & (rows["pid"] != 0)
    which: Indices = at[late]
    if len(which):
        slots.columns["pid"][which] = rows["pid"][late]
        slots.columns["local"][which] = 0
        slots.columns["tries"][which] = 0
    return which


def resolve(slots: Slots, opened: Indices, listeners: Listeners, texts: Texts, workload_of: WorkloadOf, addresses: int) -> Indices:
    """Ask again for owners that are not known, and look for remote ends on this node; returns the rows that learned something."""
    own = np.zeros(addresses, np.bool_)
    live = (slots["state"] != FREE) & ((slots["flags"] & Flag.FOLDED) == 0)
    own[slots["source"][live]] = True
    inside = own[slots["dest"]] & live
    wanting = (
        (slots["state"] == OPEN)
        & (slots["tries"] < TRIES)
        & (((slots["local"] == 0) & (slots["pid"] != 0)) | ((slots["remote"] == 0) & inside))
    )
    wanting &= live
    wanting[opened] = inside[opened]
    which: Indices = np.flatnonzero(wanting)
    if not len(which):
        return which
    fresh = np.zeros(slots.top, np.bool_)
    fresh[opened] = True
    again = which[~fresh[which]]
    columns = slots.columns
    before = columns["local"][which].copy(), columns["remote"][which].copy()
    columns["tries"][again] += 1
    unowned = again[(columns["local"][again] == 0) & (columns["pid"][again] != 0)]
    asked = np.isin(columns["pid"][unowned], np.unique(columns["pid"][unowned])[:ASKED_AGAIN])
    columns["tries"][unowned[~asked]] -= 1
    columns["local"][unowned[asked]] = texts.of_pids(columns["pid"][unowned[asked]], workload_of)
    _remote_end(slots, which[(columns["remote"][which] == 0) & inside[which]], np.flatnonzero(inside), listeners, texts, workload_of)
    learned: Indices = which[(before[0] != columns["local"][which]) | (before[1] != columns["remote"][which])]
    return learned


def _remote_end(slots: Slots, which: Indices, inside: Indices, listeners: Listeners, texts: Texts, workload_of: WorkloadOf) -> None:
    """The workload of the other end: that of the mirrored row, else of the listener on the remote port in the same namespace."""
    columns = slots.columns
    other = mirrored(columns, which, inside)
    columns["remote"][which] = np.where(other >= 0, columns["local"][other], np.uint32(0))
    rest = which[columns["remote"][which] == 0]
    rows = {name: columns[name][rest] for name in ("net_ns", "protocol", "dest", "dport")}
    exact, wild, pid = listeners.find(rows["net_ns"], rows["protocol"], rows["dest"], rows["dport"])
    ours = np.isin(_places(rows, "dest"), _places({name: columns[name][inside] for name in ("net_ns", "source")}, "source"))
    found = (pid != 0) & (exact | (wild & ours))
    columns["remote"][rest[found]] = texts.of_pids(pid[found], workload_of)


def _places(rows: Columns, end: str) -> NDArray[np.uint64]:
    """(namespace, address) of one end, as one number."""
    return rows["net_ns"].astype(np.uint64) << np.uint64(32) | rows[end].astype(np.uint64)


def unattributed(slots: Slots) -> int:
    """How many open rows have no known owner."""
    return int(((slots["state"] == OPEN) & (slots["local"] == 0) & ((slots["flags"] & Flag.FOLDED) == 0)).sum())
