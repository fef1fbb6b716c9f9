"""The other end of a connection, found by the row that is its view of it: the client's row learns the server that stood behind a Service,
the server's row the Service and the client; and where an address has moved, each row names the other's end.

Looked for at a tick, when rows have come. A row whose slot its collector uses again before its other view has come lingers among the
aggregate's own rows until it is settled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import DESCRIBED, NATIVE, USED, Block
from cluster.core.checkpoint import Columns
from cluster.core.pairs import endpoint, pair
from cluster.core.placing import Slots, place
from cluster.core.records import Flag, Proof
from cluster.core.state import Node, State

LINGERING = 8  # an eighth of the limit of rows may linger
NEEDED = ("local", "remote", "service", "source", "sport", "dest", "dport", "protocol", "flags", "first_seen", "last_seen")


@dataclass(frozen=True, slots=True)
class View:
    """Rows of one block that may be half of a pair: their slots, and what `pairs.pair` and the joining need of them."""

    node: Node
    block: Block
    slots: Slots
    rows: Columns


def join_ends(state: State, at: float) -> None:
    """Pair what can be paired now; nothing to do where no row is new."""
    if not any(block.unsettled for node in state.nodes.values() for block, _ in node.blocks):
        return
    wanting = _views(state, lambda block, used: _wants(state, block, used))
    if not wanting:
        return
    clients = _gathered(wanting)
    offered = _views(state, lambda block, used: _may_answer(block, used, clients["own"]))
    if not offered:
        return
    servers = _gathered(offered)
    matched = pair(clients, servers, _reached(state, clients))
    state.counters["ambiguous_pairs"] += matched.ambiguous
    known = (clients["local"][matched.client] != 0) & (servers["local"][matched.server] != 0)
    client, server = matched.client[known], matched.server[known]
    _learn(state, wanting, client, {"remote": servers["local"][server]}, at)
    service = clients["service"][client]
    _learn(state, offered, server, {"remote": clients["local"][client], "service": service}, at)


def _views(state: State, choose: Callable[[Block, Slots], NDArray[np.bool_]]) -> list[View]:
    """The chosen rows of every block that has any."""
    views = []
    for node in state.nodes.values():
        for block, _ in node.blocks:
            used = block.used()
            slots = used[choose(block, used)]
            if len(slots):
                views.append(View(node, block, slots, {name: block.columns[name][slots] for name in NEEDED}))
    return views


def _wants(state: State, block: Block, used: Slots) -> NDArray[np.bool_]:
    """Rows whose other end is not known, though another row may know it: clients of Services, and whoever met an address that has moved."""
    columns = {name: block.columns[name][used] for name in ("remote", "service", "flags", "dest")}
    wants: NDArray[np.bool_] = (columns["service"] != 0) | state.ends.contested(columns["dest"])
    wants &= (columns["remote"] == 0) & (columns["flags"] & (Flag.FOLDED | Flag.SURE) == 0)
    return wants


def _may_answer(block: Block, used: Slots, clients: NDArray[np.uint64]) -> NDArray[np.bool_]:
    columns = {name: block.columns[name][used] for name in ("dest", "dport", "protocol", "flags", "service")}
    other = endpoint(columns["dest"], columns["dport"], columns["protocol"])
    answers: NDArray[np.bool_] = np.isin(other, clients)
    answers &= (columns["flags"] & Flag.FOLDED == 0) & (columns["service"] == 0)
    return answers


def _gathered(views: list[View]) -> Columns:
    """The rows of all views, with the two ends as numbers and the times that `pair` asks for."""
    rows = {name: np.concatenate([view.rows[name] for view in views]) for name in NEEDED}
    still = rows["flags"] & Flag.CLOSED == 0
    return rows | {
        "own": endpoint(rows["source"], rows["sport"], rows["protocol"]),
        "other": endpoint(rows["dest"], rows["dport"], rows["protocol"]),
        "since": rows["first_seen"].astype(np.float64),
        "until": np.where(still, np.inf, rows["last_seen"].astype(np.float64)),
    }


def _reached(state: State, clients: Columns) -> list[frozenset[int]]:
    """For each row the ends that its other end may have: the endpoints behind the Service, else just what it names."""
    services: dict[tuple[int, int], frozenset[int]] = {}
    for number, protocol in set(zip(clients["service"].tolist(), clients["protocol"].tolist(), strict=True)):
        services[number, protocol] = state.ends.endpoints(state.texts.values[number], protocol) if number else frozenset()
    ends = zip(clients["service"].tolist(), clients["protocol"].tolist(), clients["other"].tolist(), strict=True)
    return [services[number, protocol] if number else frozenset((other,)) for number, protocol, other in ends]


def _learn(state: State, views: list[View], which: NDArray[np.intp], columns: Columns, at: float) -> None:
    """Put values into those of the gathered rows, and place them again."""
    first = 0
    for view in views:
        here = np.flatnonzero((which >= first) & (which < first + len(view.slots)))
        slots = view.slots[which[here] - first]
        first += len(view.slots)
        if len(slots):
            for name, values in columns.items():
                view.block.columns[name][slots] = values[here]
            view.block.mark(slots, DESCRIBED)
            place(state, view.node, view.block, slots, at, proof=Proof.MATCH)


# Rows that linger


def linger(state: State, node: Node, slots: Slots) -> NDArray[np.bool_]:
    """Which of these rows, whose slots are taken from them, moved to the aggregate's own rows of the node: those that may yet be paired."""
    block = node.block
    stays = _may_pair(state, block, slots)
    stays &= block.columns["flags"][slots] & (Flag.SETTLED | Flag.FOLDED) == 0
    room = state.limits.rows // LINGERING - sum(one.folds.rows for one in state.nodes.values())
    stays &= np.cumsum(stays) <= room
    staying = slots[stays]
    if len(staying):
        rows = block.take(staying, NATIVE)
        free = np.flatnonzero(node.folds.marks[: node.folds.size] & USED == 0)[: len(staying)]
        places = np.concatenate([free, np.arange(node.folds.size, node.folds.size + len(staying) - len(free))])
        node.folds.fill(places, rows)
        node.folds.bases.add(places, {name: rows[f"base_{name}"] for name in ("sent", "recv", "retransmits")})
        block.empty(staying)
    return stays


def _may_pair(state: State, block: Block, slots: Slots) -> NDArray[np.bool_]:
    columns = {name: block.columns[name][slots] for name in ("remote", "service", "source", "dest")}
    may: NDArray[np.bool_] = (columns["service"] != 0) | state.ends.contested(columns["dest"])
    may &= columns["remote"] == 0
    may |= (columns["service"] == 0) & state.ends.behind_services(columns["source"])
    return may


def depart_settled(state: State, node: Node) -> None:
    """Rows that lingered and are settled now leave for good."""
    folds = node.folds
    used = folds.used()
    flags = folds.columns["flags"][used]
    slots = used[(flags & Flag.FOLDED == 0) & (flags & Flag.SETTLED > 0)]
    if len(slots):
        state.depart(node, folds.take(slots))
        folds.empty(slots)
