"""Questions about a snapshot. Filters and sorting are vectorised; only the rows that are returned become dicts."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.checkpoint import VIEW, Edge
from cluster.core.completeness import status
from cluster.core.edges import has_traffic
from cluster.core.errors import QueryError
from cluster.core.filters import Filter, protocol_name
from cluster.core.records import Direction, Flag, Role, format_address, transaction_key
from cluster.core.snapshot import Snapshot, Table

__all__ = ["SORTS", "Filter", "edges", "metadata", "status", "transactions"]

SORTS = ("bytes", "sent", "recv", "retransmits", "last_seen", "first_seen", "node", "key")
Place = tuple[int, int]  # table, row
Chosen = list[tuple[Table, NDArray[np.intp]]]  # tables, and the indices of the rows that match


def transactions(snapshot: Snapshot, where: Filter | None = None, sort: str = "bytes", limit: int | None = None) -> list[dict[str, Any]]:
    """Rows as dicts: the largest or latest first, `node` and `key` ascending. Unknown bytes are None. Raises QueryError."""
    if sort not in SORTS:
        raise QueryError(f"sort {sort!r}: choose one of {', '.join(SORTS)}")
    if limit is not None and limit < 0:
        raise QueryError(f"limit {limit}: expected 0 or more")
    match = (where or Filter()).compiled(snapshot)
    chosen = [(table, match(table)) for table in snapshot.tables]
    return [_transaction(snapshot, chosen[table][0], row) for table, row in _sorted(snapshot, chosen, sort, limit)]


def _sorted(snapshot: Snapshot, chosen: Chosen, sort: str, limit: int | None) -> list[Place]:
    """The first `limit` places in order; equal ones by uid, so that the order is always the same."""
    values, uids, tables, rows = [], [], [], []
    every = _key_values(snapshot, chosen) if sort == "key" else [_values(snapshot, *one, sort) for one in chosen]
    for number, ((table, indices), value) in enumerate(zip(chosen, every, strict=True)):
        uid = table.columns["uid"][indices]
        keep = _first(value, uid, limit)
        values.append(value[keep])
        uids.append(uid[keep])
        tables.append(np.full(len(keep), number))
        rows.append(indices[keep])
    if not values:
        return []
    order = np.lexsort((np.concatenate(uids), np.concatenate(values)))[:limit]
    return list(zip(np.concatenate(tables)[order].tolist(), np.concatenate(rows)[order].tolist(), strict=True))


def _first(value: NDArray[Any], uid: NDArray[np.int64], limit: int | None) -> NDArray[np.intp]:
    """Indices of the `limit` smallest values, in no order; of equal ones those with the smallest uid."""
    if limit is None or limit >= len(value):
        return np.arange(len(value))
    if limit == 0:
        return np.arange(0)
    edge = np.partition(value, limit - 1)[limit - 1]
    below = np.flatnonzero(value < edge)
    equal = np.flatnonzero(value == edge)
    return np.concatenate([below, equal[np.argsort(uid[equal], kind="stable")][: limit - len(below)]])


def _values(snapshot: Snapshot, table: Table, indices: NDArray[np.intp], sort: str) -> NDArray[Any]:
    """What to sort by, ascending: u64 turned round where the largest comes first."""
    columns = table.columns
    match sort:
        case "node":
            order = np.argsort(np.argsort([node.node for node in snapshot.nodes]))
            return order[table.node[indices]]
        case "bytes":
            value = table.total("sent")[indices] + table.total("recv")[indices]
        case "sent" | "recv" | "retransmits":
            value = table.total(sort)[indices]
        case _:
            value = columns[sort][indices].astype(np.uint64)
    return ~value


def _key_values(snapshot: Snapshot, chosen: Chosen) -> list[NDArray[np.uint64]]:
    """Keys as numbers that sort as the keys' parts do, in all tables alike: addresses by their bytes, ports as numbers."""
    halves = np.frombuffer(b"".join(snapshot.addresses), ">u8").reshape(-1, 2)
    rank = np.empty(len(halves), np.uint64)
    rank[np.lexsort([halves[:, 1], halves[:, 0]])] = np.arange(len(halves))
    half, quarter = np.uint64(32), np.uint64(16)
    pairs = [rank[table.columns["source"][rows]] << half | rank[table.columns["dest"][rows]] for table, rows in chosen]
    distinct = np.unique(np.concatenate([np.empty(0, np.uint64), *pairs]))
    ports = [table.columns["sport"][rows].astype(np.uint64) << quarter | table.columns["dport"][rows] for table, rows in chosen]
    return [np.searchsorted(distinct, pair).astype(np.uint64) << half | port for pair, port in zip(pairs, ports, strict=True)]


def _transaction(snapshot: Snapshot, table: Table, row: int) -> dict[str, Any]:
    at = {name: column[row].item() for name, column in table.columns.items()}
    flags = at["flags"]
    source, dest = (format_address(snapshot.addresses[at[name]]) for name in ("source", "dest"))
    local, remote = _ends(snapshot, at)
    known = not flags & Flag.BYTES_UNKNOWN
    counters = {"sent_bytes": "sent", "recv_bytes": "recv", "retransmits": "retransmits"}
    return {
        "key": transaction_key(source, dest, at["sport"], at["dport"]),
        "node": snapshot.nodes[int(table.node[row])].node,
        "protocol": protocol_name(at["protocol"]),
        "source": source,
        "sport": at["sport"],
        "dest": dest,
        "dport": at["dport"],
        "pid": at["pid"],
        "net_ns": at["net_ns"],
        "direction": _name(Direction, at["direction"]),
        "state": "closed" if flags & Flag.CLOSED else "open",
        **{f"monotonic_{long}": at[name] if known else None for long, name in counters.items()},
        **{f"total_{long}": at[name] + at.get(f"base_{name}", 0) if known else None for long, name in counters.items()},
        "last_update_epoch": at["last_update"],
        "first_seen": at["first_seen"],
        "last_seen": at["last_seen"],
        "local": local,
        "remote": remote,
        "role": _name(Role, at["role"]),
        "generation": at["generation"],
        "folded": bool(flags & Flag.FOLDED),
        "recv_exact": known and not flags & Flag.RECV_INEXACT,
    }


def _name(kind: type[IntEnum], value: int) -> str:
    """The word for a number, or the number where it has none."""
    return kind(value).name.lower() if value in kind.__members__.values() else str(value)


def _ends(snapshot: Snapshot, at: dict[str, Any]) -> tuple[str, str]:
    """The workloads of the local and the remote end: those of the row's edge, else what the row itself says."""
    edge = snapshot.edges.get(at["cell"] >> 1)
    if edge is None:
        return snapshot.texts[at["local"]], snapshot.texts[at["remote"]]
    return (edge.server, edge.client) if at["cell"] & 1 else (edge.client, edge.server)


def metadata(snapshot: Snapshot, address: str | None = None) -> dict[str, Any]:
    """Records by address: all, or those of one (an empty map where nothing is known of it)."""
    if address is None:
        return dict(snapshot.metadata)
    return {address: snapshot.metadata[address]} if address in snapshot.metadata else {}


def edges(snapshot: Snapshot, workload: str | None = None) -> list[dict[str, Any]]:
    """Edges with traffic, the busiest first; `workload` is part of the name of either end."""
    found = [edge for edge in snapshot.edges.values() if has_traffic(edge)]
    found = [edge for edge in found if workload is None or workload in edge.client or workload in edge.server]
    return [_edge(edge) for edge in sorted(found, key=lambda edge: (-sum(view[0] + view[1] for view in edge.views), edge.number))]


def _edge(edge: Edge) -> dict[str, Any]:
    client, server = (dict(zip(VIEW, view, strict=True)) for view in edge.views)
    return {
        "number": edge.number,
        "client": edge.client,
        "server": edge.server,
        "service": edge.service,
        "protocol": protocol_name(edge.protocol),
        "port": edge.port,
        "client_view": client,
        "server_view": server,
        "seen_by": "both" if any(edge.views[0]) and any(edge.views[1]) else "client" if any(edge.views[0]) else "server",
        "first_seen": edge.first_seen,
        "last_seen": edge.last_seen,
    }
