"""The tables of the SQLite store, written so that a person with the sqlite3 shell can read them.

A counter is an unsigned 64-bit number, SQLite's integer a signed one. What is above 2^63-1 is stored as TEXT of twenty digits, in a column
without a declared type, which keeps it as it is: nothing is lost, the order is right (TEXT sorts above every INTEGER), and what SQLite
computes from it is visibly a floating-point number. The totals in the view are exact all the same.

Key, state and totals are a view's, `transactions`: as generated columns of the table they made every write a quarter dearer.
"""

from __future__ import annotations

from cluster.core.checkpoint import NO_SLOT, ROW, VIEW

APPLICATION_ID = 0x72617973  # "rays", in the file's header: this database is rayscope's
VERSION = 1  # of the tables, in the header as `user_version`
OLDEST_SQLITE = (3, 24, 0)  # INSERT ... ON CONFLICT
SIGNED_MAX = 2**63 - 1

COLUMN_NAMES = {
    "sent": "monotonic_sent_bytes",
    "recv": "monotonic_recv_bytes",
    "retransmits": "monotonic_retransmits",
    "base_sent": "base_sent_bytes",
    "base_recv": "base_recv_bytes",
    "last_update": "last_update_epoch",
}
"""The names that people know, where the checkpoint's differ."""

ABSENT = {"slot": NO_SLOT, "edge": -1}
"""Values that are NULL in the store."""

_TABLES = """
CREATE TABLE transaction_rows (
    uid INTEGER PRIMARY KEY,       -- the row's number; negative: a sum of old closed rows, made by the store
    node TEXT NOT NULL,
    slot INTEGER,                  -- the row's number in the node's stream; NULL once it has left it
    net_ns INTEGER NOT NULL,       -- inode of the network namespace
    protocol INTEGER NOT NULL,     -- 0 TCP, 1 UDP
    source TEXT NOT NULL,          -- the local end
    dest TEXT NOT NULL,            -- the remote end
    sport INTEGER NOT NULL,
    dport INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    cookie NOT NULL,               -- the kernel's number of the socket; 0 not known
    direction INTEGER NOT NULL,    -- 0 not known, 1 incoming, 2 outgoing, 3 local, 4 none
    flags INTEGER NOT NULL,        -- 1 closed, 2 bytes unknown, 4 received may be one high, 8 sum of many; see records.Flag
    monotonic_sent_bytes NOT NULL, -- the tracer's last value; twenty digits of TEXT above 2^63-1
    monotonic_recv_bytes NOT NULL,
    monotonic_retransmits INTEGER NOT NULL,
    base_sent_bytes NOT NULL,      -- sum of the generations that ended
    base_recv_bytes NOT NULL,
    base_retransmits INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    last_update_epoch NOT NULL,    -- ns since the node booted
    local TEXT NOT NULL,           -- workload of the local end, '' not known
    remote TEXT NOT NULL,
    service TEXT NOT NULL,         -- the Service that it goes through, service/NAMESPACE/NAME:PORT; '' none
    role INTEGER NOT NULL,         -- of the local end: 0 not known, 1 client, 2 server
    edge INTEGER,                  -- edges.number, NULL none yet
    first_seen REAL,               -- s since 1970
    last_seen REAL
);
CREATE INDEX departed ON transaction_rows (last_seen) WHERE slot IS NULL AND flags & 1 AND uid > 0;
CREATE INDEX folds ON transaction_rows (node, source, dest, sport, dport) WHERE uid < 0;
CREATE INDEX old_folds ON transaction_rows (last_seen) WHERE uid < 0 AND dest NOT IN ('0.0.0.0', '::');

CREATE TABLE metadata (
    address TEXT PRIMARY KEY,
    record TEXT NOT NULL           -- JSON: {source: {uid: record}}
) WITHOUT ROWID;

CREATE TABLE edges (
    number INTEGER PRIMARY KEY,
    client TEXT NOT NULL,          -- workloads
    server TEXT NOT NULL,
    service TEXT NOT NULL,
    protocol INTEGER NOT NULL,
    port INTEGER NOT NULL,
    {views},                       -- as the client's end counts, then as the server's
    first_seen REAL,
    last_seen REAL,
    client_proof INTEGER NOT NULL, -- Proof bits of each view: what its rows' ends rest on
    server_proof INTEGER NOT NULL
);

CREATE TABLE nodes (               -- how far each node's stream is applied
    node TEXT PRIMARY KEY,
    incarnation NOT NULL,
    stream NOT NULL,
    applied NOT NULL,
    instance TEXT NOT NULL,        -- the tracer's, and its last close that is applied
    closed_through NOT NULL,
    status TEXT NOT NULL           -- JSON
) WITHOUT ROWID;

CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

CREATE VIEW transactions AS        -- each row with its key, its state and its totals
    SELECT printf('%s-%s-%d-%d', source, dest, sport, dport) AS key,
        CASE WHEN flags & 1 THEN 'closed' ELSE 'open' END AS state,
        CASE WHEN flags & 2 THEN NULL ELSE {total_sent} END AS total_sent_bytes,
        CASE WHEN flags & 2 THEN NULL ELSE {total_recv} END AS total_recv_bytes,
        base_retransmits + monotonic_retransmits AS total_retransmits,
        *
    FROM transaction_rows;

CREATE VIEW flows AS               -- transactions in words
    SELECT key, node, CASE protocol WHEN 0 THEN 'tcp' WHEN 1 THEN 'udp' ELSE protocol END AS protocol,
        source, sport, dest, dport, pid, net_ns, state,
        CASE role WHEN 1 THEN 'client' WHEN 2 THEN 'server' ELSE 'unknown' END AS role, local, remote, service,
        CASE WHEN flags & 2 THEN NULL ELSE monotonic_sent_bytes END AS monotonic_sent_bytes,
        CASE WHEN flags & 2 THEN NULL ELSE monotonic_recv_bytes END AS monotonic_recv_bytes,
        monotonic_retransmits, total_sent_bytes, total_recv_bytes, total_retransmits,
        flags & 8 <> 0 AS folded, datetime(first_seen, 'unixepoch') AS first_seen, datetime(last_seen, 'unixepoch') AS last_seen
    FROM transactions;
"""

META = {
    "schema": VERSION,
    "fence": 0,  # of the newest aggregator
    "committed_fence": 0,  # fence and number of the last commit, and when
    "committed_number": 0,
    "committed_at": 0.0,
    "next_uid": 1,  # above every uid that a commit ever brought
    "next_fold": 1,  # the number of the next fold row, whose uid is its negative
    "folded": 0,  # connections that retention summed into fold rows
}

VIEW_COLUMNS = tuple(f"{side}_{value}" for side in ("client", "server") for value in VIEW)
EDGE_COLUMNS = (
    "number",
    "client",
    "server",
    "service",
    "protocol",
    "port",
    *VIEW_COLUMNS,
    "first_seen",
    "last_seen",
    "client_proof",
    "server_proof",
)
NODE_COLUMNS = ("node", "incarnation", "stream", "applied", "instance", "closed_through", "status")
_LOW = "CAST(substr('0000000000' || {0}, -10) AS INTEGER)"
_HIGH = "CAST(substr('0000000000' || {0}, 1, length({0})) AS INTEGER)"


def _sum(base: str, raw: str) -> str:
    """SQL for the exact sum of two counters: an integer, or where that would overflow its digits, added in two halves."""
    high, low = (f"({' + '.join(half.format(name) for name in (base, raw))})" for half in (_HIGH, _LOW))
    digits = f"printf('%010d%010d', {high} + {low} / 10000000000, {low} % 10000000000)"
    return f"CASE typeof({base} + {raw}) WHEN 'integer' THEN {base} + {raw} ELSE {digits} END"


TABLES = (
    _TABLES.replace("{views}", ", ".join(f"{name} NOT NULL" for name in VIEW_COLUMNS))
    .replace("{total_sent}", _sum("base_sent_bytes", "monotonic_sent_bytes"))
    .replace("{total_recv}", _sum("base_recv_bytes", "monotonic_recv_bytes"))
)


def column_name(name: str) -> str:
    """The store's name of a row's column."""
    return COLUMN_NAMES.get(name, name)


def select_rows(where: str) -> str:
    """The rows that `where` names, in the order of ROW."""
    columns = (f"coalesce({name}, {ABSENT[name]})" if name in ABSENT else column_name(name) for name in ROW)
    return f"SELECT {', '.join(columns)} FROM transaction_rows WHERE {where}"  # noqa: S608 - names from this file only


def upsert(table: str, columns: tuple[str, ...], values: tuple[str, ...] = ()) -> str:
    """An INSERT that overwrites the row with the same first column."""
    key, *others = columns
    holes = values or ("?",) * len(columns)
    updates = ", ".join(f"{name} = excluded.{name}" for name in others)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(holes)}) "  # noqa: S608 - names from this file only
        f"ON CONFLICT ({key}) DO UPDATE SET {updates}"
    )


UPSERT_ROW = upsert(
    "transaction_rows",
    tuple(map(column_name, ROW)),
    tuple(f"nullif(?, {ABSENT[name]})" if name in ABSENT else "?" for name in ROW),
)


def integer(value: int) -> int | str:
    """A whole number of any size as the store keeps it."""
    return value if -SIGNED_MAX - 1 <= value <= SIGNED_MAX else f"{value:020}"
