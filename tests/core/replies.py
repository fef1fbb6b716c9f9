"""A tracer's replies for tests: records with every field, and documents of them."""

from __future__ import annotations

import json
from typing import Any

Record = dict[str, Any]
EXAMPLE: Record = {  # the user's own example: a DNS query
    "pid": 14931,
    "type": 1,
    "family": 0,
    "net_ns": 4026532528,
    "source": "172.17.0.2",
    "dest": "172.17.0.5",
    "sport": 41515,
    "dport": 53,
    "direction": 2,
    "monotonic_sent_bytes": 3079,
    "last_sent_bytes": 0,
    "monotonic_recv_bytes": 5849,
    "last_recv_bytes": 0,
    "monotonic_retransmits": 0,
    "last_retransmits": 0,
    "last_update_epoch": 11457291007926789,
}


def record(**fields: Any) -> Record:
    """The example with some fields different."""
    return {**EXAMPLE, **fields}


def without(*names: str) -> Record:
    """The example without some fields."""
    return {name: value for name, value in EXAMPLE.items() if name not in names}


def reply(*records: Any, **head: Any) -> bytes:
    """A document, as Go's encoder writes it: without spaces."""
    return json.dumps({"connections": list(records), **head}, separators=(",", ":")).encode()


def ours(**fields: Any) -> dict[str, Any]:
    """A record as our own tracer tells it."""
    return record(**{"type": 0, "cookie": 5, "state": "open", **fields})
