"""Which edge a row belongs to, and when its bytes enter what is exported.

A row has an edge once its local end is known, and is settled once both ends are; after SETTLE_AFTER it is settled with what is known then.
A row whose ends were known never moves to an edge whose ends are guessed: that somebody is not known any more says nothing of the past.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import DESCRIBED, USED, Block
from cluster.core.checkpoint import Columns
from cluster.core.edges import Amounts, Key
from cluster.core.ends import UNATTRIBUTED, is_client
from cluster.core.records import Flag, Proof
from cluster.core.state import Node, State

SETTLE_AFTER = 60  # s
ENDS = (
    "local",
    "remote",
    "service",
    "source",
    "dest",
    "protocol",
    "sport",
    "dport",
    "role",
    "direction",
    "cell",
    "flags",
    "pid",
    "first_seen",
)
Slots = NDArray[np.intp]


def place(
    state: State,
    node: Node,
    block: Block,
    slots: Slots,
    at: float,
    *,
    fresh: bool = False,
    force: bool = False,
    proof: Proof = Proof.NODE,
) -> None:
    """Put rows on the edge that they belong to now, and settle those that are ready; with `force`, all of them. `fresh`: they are new.
    `proof`: what those rest on whose remote end is said."""
    if not len(slots):
        return
    rows = {name: block.columns[name][slots] for name in ENDS}
    _meet(state, block, slots, rows)
    cells, sure = _cells(state, node, rows, at, force=force)
    same_view = (rows["cell"] & 1).astype(np.bool_) != is_client(rows)  # else its role is another one now, and so its edge
    cells = np.where((rows["flags"] & Flag.SURE > 0) & ~sure & same_view, rows["cell"], cells)
    moved = np.ones(len(slots), np.bool_) if fresh else cells != rows["cell"]
    if moved.any():
        _move(state, block, slots[moved], rows["cell"][moved], cells[moved], fresh=fresh)
        state.edges.prove(cells[moved].astype(np.intp), _proof({name: column[moved] for name, column in rows.items()}, proof))
    settle = (sure & ~_may_be_paired(state, rows) | force) & (rows["flags"] & Flag.SETTLED == 0)
    _settle(state, block, slots[settle], cells[settle])
    fix = sure & (rows["flags"] & Flag.SURE == 0)
    if fix.any():
        block.set_flags(slots[fix], block.columns["flags"][slots[fix]] | np.uint8(Flag.SURE))


def _meet(state: State, block: Block, slots: Slots, rows: Columns) -> None:
    """Note the Services that clients meet, in the rows and in `rows`."""
    if not state.metadata.services:
        return
    asks = np.flatnonzero((rows["service"] == 0) & (rows["remote"] == 0) & (rows["flags"] & Flag.FOLDED == 0) & is_client(rows))
    asks = asks[state.ends.fronted(rows["dest"][asks])]
    if not len(asks):
        return
    numbers = state.ends.services(*(rows[name][asks] for name in ("dest", "dport", "protocol")))
    met = numbers != 0
    if met.any():
        rows["service"][asks[met]] = block.columns["service"][slots[asks[met]]] = numbers[met]
        block.mark(slots[asks[met]], DESCRIBED)


def _may_be_paired(state: State, rows: Columns) -> NDArray[np.bool_]:
    """Servers behind a Service: whether clients came through it, their view of the connection tells, which may come a little later."""
    may: NDArray[np.bool_] = (rows["service"] == 0) & state.ends.behind_services(rows["source"])
    may &= (rows["flags"] & Flag.FOLDED == 0) & ~is_client(rows)
    return may


def _proof(rows: Columns, said: Proof) -> NDArray[np.uint8]:
    """Proof bits of each row; a fold row sums what was told in several ways, and says nothing of its local end."""
    local = np.where(rows["pid"] != 0, Proof.PROCESS, Proof.NAMESPACE)
    remote = np.where(rows["remote"] != 0, said, Proof.ADDRESS)
    told = (rows["local"] != 0) & (rows["flags"] & Flag.FOLDED == 0)
    return (np.where(told, local, 0) | remote).astype(np.uint8)


def _move(state: State, block: Block, slots: Slots, old: NDArray[np.uint32], new: NDArray[np.uint32], *, fresh: bool) -> None:
    amounts = amounts_of(block, slots)
    if fresh:
        state.edges.join(new.astype(np.intp), amounts)
        state.edges.hide(new.astype(np.intp), amounts.sums)
    else:
        state.edges.move(old.astype(np.intp), new.astype(np.intp), amounts)
        state.counters["moved"] += int(np.count_nonzero(old))
    block.columns["cell"][slots] = new
    block.mark(slots, DESCRIBED)


def _settle(state: State, block: Block, slots: Slots, cells: NDArray[np.uint32]) -> None:
    if len(slots):
        state.edges.show(cells.astype(np.intp), amounts_of(block, slots).sums)
        block.set_flags(slots, block.columns["flags"][slots] | np.uint8(Flag.SETTLED))


def amounts_of(block: Block, slots: Slots) -> Amounts:
    """What these rows bring to an edge. A fold row brings bytes alone: how many connections it sums is not known."""
    flags = block.columns["flags"][slots]
    single = (flags & Flag.FOLDED == 0).astype(np.uint64)
    still = (flags & (Flag.FOLDED | Flag.CLOSED) == 0).astype(np.uint64)
    return Amounts({**block.totals(slots), "opened": single}, still)


def _cells(state: State, node: Node, rows: Columns, at: float, *, force: bool) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """The cell of each row, 0 where the local end is not known, and whether both ends are."""
    local, owned = state.ends.owners(rows["local"])
    remote, known = _remotes(state, node, rows, at)
    sure = (rows["local"] != 0) & owned & known
    unknown = (local == 0) & (force | (rows["cell"] != 0))  # once it has an edge, a row always has one
    if unknown.any():
        local = np.where(unknown, np.uint32(state.texts.number(UNATTRIBUTED)), local)
    cells = np.zeros(len(local), np.uint32)
    named = np.flatnonzero(local)
    ends = {name: column[named] for name, column in (rows | {"local": local, "remote": remote}).items()}
    cells[named] = _numbered(state, ends, at)
    return cells, sure


def _remotes(state: State, node: Node, rows: Columns, at: float) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """The workload of the other end of each row, and whether it is known: what the row says, else the Service that it meets, else who had
    the address."""
    remote, known = rows["remote"].copy(), np.ones(len(rows["remote"]), np.bool_)
    unsaid = np.flatnonzero(remote == 0)
    if len(unsaid):
        service = rows["service"][unsaid]
        remote[unsaid], known[unsaid] = state.ends.remotes(node.name, rows["dest"][unsaid], rows["first_seen"][unsaid], at)
        for number in np.unique(service[service != 0]).tolist():
            remote[unsaid[service == number]] = state.texts.number(service_and_port(state.texts.values[number])[0])
        known[unsaid[service != 0]] = False
    remote, owned = state.ends.owners(remote)
    return remote, known & owned


def service_and_port(text: str) -> tuple[str, int]:
    """The two parts of a row's `service`, service/NAMESPACE/NAME:PORT; ("", 0) of the empty one."""
    service, _, port = text.rpartition(":")
    return service, int(port or 0)


def _numbered(state: State, rows: Columns, at: float) -> NDArray[np.uint32]:
    """The cell of each row; each distinct edge is looked up once."""
    client_side = is_client(rows)
    ends = np.where(client_side, rows["local"], rows["remote"]).astype(np.uint64) << np.uint64(32)
    ends |= np.where(client_side, rows["remote"], rows["local"]).astype(np.uint64)
    pairs, pair = np.unique(ends, return_inverse=True)
    services, service = np.unique(rows["service"], return_inverse=True)
    port = np.where(client_side, rows["dport"], rows["sport"]).astype(np.uint64)
    how = rows["protocol"].astype(np.uint64) << np.uint64(17) | port << np.uint64(1) | ~client_side
    packed = (pair.astype(np.uint64) * np.uint64(len(services)) + service.astype(np.uint64)) << np.uint64(25) | how
    distinct, which = np.unique(packed, return_inverse=True)
    texts = state.texts.values
    cells = np.empty(len(distinct), np.uint32)
    for index, one in enumerate(distinct.tolist()):
        pair_of, service_of = divmod(one >> 25, len(services))
        ends_of = int(pairs[pair_of])
        name, service_port = service_and_port(texts[services[service_of]])
        key = Key(texts[ends_of >> 32], texts[ends_of & 0xFFFFFFFF], name, one >> 17 & 0xFF, service_port or one >> 1 & 0xFFFF)
        cells[index] = 2 * state.edges.number(key, at) + (one & 1)
    return cells[which]


def settle_due(state: State, node: Node, at: float) -> None:
    """Settle the rows whose time has come, with what is known."""
    for block, _ in node.blocks:
        if block.unsettled:
            columns = block.columns
            waiting = (block.marks[: block.size] & USED > 0) & (columns["flags"][: block.size] & Flag.SETTLED == 0)
            due = np.flatnonzero(waiting & (columns["first_seen"][: block.size] <= at - SETTLE_AFTER))
            place(state, node, block, due, at, force=True)


def place_moved(state: State, at: float) -> None:
    """Metadata changed who some addresses are, or what some pods belong to: place the rows that rest on it again."""
    moved, state.metadata.moved = state.metadata.moved, set()
    reowned, state.metadata.reowned = state.metadata.reowned, set()
    numbers = state.numbers_of_addresses(sorted(moved))
    if not len(numbers) and not reowned:
        return
    pods = state.ends.forget_owners(reowned)
    state.ends.forget(numbers)
    concerned = np.zeros(len(state.addresses), np.bool_)
    concerned[numbers] = True
    for node in state.nodes.values():
        block, columns, size = node.block, node.block.columns, node.block.size
        rests = (columns["remote"][:size] == 0) & concerned[columns["dest"][:size]]
        rests |= pods[columns["local"][:size]] | pods[columns["remote"][:size]]
        place(state, node, block, np.flatnonzero(rests & (block.marks[:size] & USED > 0)), at)
