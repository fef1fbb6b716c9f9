"""What the tables beside the rows hold, written and read through one open database.

Nothing here begins or ends a transaction. Reading raises ValueError, TypeError, KeyError or OverflowError where a value is not of its type.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from cluster.core.checkpoint import Checkpoint, Commit, Edge, NodeState
from cluster.core.errors import StoreError
from cluster.stores.rows import UPDATE_COUNTERS, decode_rows, encode_changed, encode_rows
from cluster.stores.schema import EDGE_COLUMNS, META, NODE_COLUMNS, UPSERT_ROW, integer, select_rows, upsert

LIVE = "slot IS NOT NULL"
EVERY = "TRUE"


def read_meta(database: sqlite3.Connection) -> dict[str, Any]:
    """The store's own numbers: META's names."""
    found = dict(database.execute("SELECT name, value FROM meta"))
    return {name: type(start)(found[name]) for name, start in META.items()}


def write_meta(database: sqlite3.Connection, **values: Any) -> None:
    """Set some of META."""
    database.executemany(upsert("meta", ("name", "value")), values.items())


def write(database: sqlite3.Connection, commit: Commit) -> None:
    """All of a commit but its number. Raises StoreError where `changed` names a row that is not there."""
    database.executemany(UPSERT_ROW, encode_rows(commit.rows))
    _write_changed(database, commit)
    database.executemany("DELETE FROM transaction_rows WHERE uid = ?", ((uid,) for uid in commit.removed.tolist()))
    database.executemany(upsert("nodes", NODE_COLUMNS), map(_node_values, commit.nodes))
    database.executemany(upsert("edges", EDGE_COLUMNS), map(_edge_values, commit.edges))
    database.executemany(upsert("counters", ("name", "value")), ((name, integer(value)) for name, value in commit.counters.items()))
    _write_metadata(database, commit.metadata)


def _write_changed(database: sqlite3.Connection, commit: Commit) -> None:
    if not commit.changed or not len(commit.changed["uid"]):
        return
    touched = database.executemany(UPDATE_COUNTERS, encode_changed(commit.changed)).rowcount
    if touched != len(commit.changed["uid"]):
        raise StoreError(
            f"commit {commit.number}: {len(commit.changed['uid']) - touched} changed rows are not in the store; nothing of it is written"
        )


def _write_metadata(database: sqlite3.Connection, records: Mapping[str, Mapping[str, Any] | None]) -> None:
    kept = ((address, json.dumps(record)) for address, record in records.items() if record is not None)
    database.executemany(upsert("metadata", ("address", "record")), kept)
    database.executemany("DELETE FROM metadata WHERE address = ?", ((address,) for address, record in records.items() if record is None))


def _node_values(state: NodeState) -> tuple[Any, ...]:
    numbers = (integer(state.incarnation), integer(state.stream), integer(state.applied))
    return state.node, *numbers, state.instance, integer(state.closed_through), json.dumps(dict(state.status))


def _edge_values(edge: Edge) -> tuple[Any, ...]:
    views = [integer(value) for view in edge.views for value in view]
    return (
        edge.number,
        edge.client,
        edge.server,
        edge.service,
        edge.protocol,
        edge.port,
        *views,
        edge.first_seen,
        edge.last_seen,
        *edge.proof,
    )


def read(database: sqlite3.Connection, where: str, arguments: tuple[Any, ...] = ()) -> Checkpoint:
    """A checkpoint with the rows that `where` names. The caller holds a transaction, so that its parts are of one moment."""
    meta = read_meta(database)
    return Checkpoint(
        fence=meta["fence"],
        rows=decode_rows(database.execute(select_rows(where), arguments)),
        nodes=tuple(map(_node, database.execute(f"SELECT {', '.join(NODE_COLUMNS)} FROM nodes"))),  # noqa: S608 - fixed names
        edges=tuple(map(_edge, database.execute(f"SELECT {', '.join(EDGE_COLUMNS)} FROM edges"))),  # noqa: S608 - fixed names
        metadata={address: json.loads(record) for address, record in database.execute("SELECT address, record FROM metadata")},
        counters={name: int(value) for name, value in database.execute("SELECT name, value FROM counters")},
        next_uid=meta["next_uid"],
    )


def _node(values: tuple[Any, ...]) -> NodeState:
    node, incarnation, stream, applied, instance, closed_through, status = values
    return NodeState(node, int(incarnation), int(stream), int(applied), instance, int(closed_through), json.loads(status))


def _edge(values: tuple[Any, ...]) -> Edge:
    number, client, server, service, protocol, port, *views, first_seen, last_seen, client_proof, server_proof = values
    numbers = tuple(map(int, views))
    half = len(numbers) // 2
    sides = (numbers[:half], numbers[half:])
    return Edge(number, client, server, service, protocol, port, sides, first_seen, last_seen, (client_proof, server_proof))
