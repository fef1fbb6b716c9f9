"""What is published, as the texts that ConfigMaps hold: a key and the value under it, the most important first.

`transactions`: the key `ip_source-ip_dest-port_src-port_dest`, the value a JSON list of what has that key, nearly always one.
`metadata`: the key an address, the value an object {source: {uid: record}}. In keys `:` and `/` are written `_`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

FIELDS = (
    "node",
    "protocol",
    "pid",
    "net_ns",
    "direction",
    "state",
    "monotonic_sent_bytes",
    "monotonic_recv_bytes",
    "monotonic_retransmits",
    "total_sent_bytes",
    "total_recv_bytes",
    "total_retransmits",
    "last_update_epoch",
    "first_seen",
    "last_seen",
)
"""Of a transaction, as `cluster.core.query` names them. Unknown bytes are null; times are s since 1970, last_update_epoch is the node's."""

ROW_BYTES = 300  # of a value, fewer than any row with real numbers takes: how many rows can fit at most
OWNERS = ("replicaset/", "job/")  # records that only name the owner of a pod are not published
_KEY = re.compile(r"(?!\.{1,2}$|\.\.)[-._a-zA-Z0-9]{1,253}")  # k8s.io/apimachinery/pkg/util/validation, IsConfigMapKey
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One value, or with others under its key one element of it."""

    key: str
    text: str  # JSON
    size: int  # bytes of the text


@dataclass(slots=True)
class Entries:
    """Entries in order of importance; what cannot be published is left out and counted."""

    kept: list[Entry] = field(default_factory=list)
    refused: int = 0

    def add(self, key: str, value: Any) -> None:
        """Encode one more, unless its key is none or its value is no JSON."""
        key = key.replace(":", "_").replace("/", "_")
        try:
            text = _ENCODER.encode(value)
            size = len(text.encode())
        except (TypeError, ValueError, RecursionError):  # a number that is none, half a character
            size = 0
        if size and _KEY.fullmatch(key):
            self.kept.append(Entry(key, text, size))
        else:
            self.refused += 1


@dataclass(frozen=True, slots=True)
class Publication:
    """All that there is to publish at one moment."""

    transactions: Entries
    metadata: Entries
    unread: int = 0  # transactions that were not even looked at, since they are less busy than those that may fit


def publication(transactions: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any], unread: int = 0) -> Publication:
    """Of transactions with FIELDS, key, source, dest and folded, as `cluster.core.query` names them, the busiest first.

    Metadata comes in the order in which the transactions name its addresses; records that only name the owner of a pod are not published.
    """
    entries, ends = Entries(), dict[str, None]()
    for transaction in transactions:
        entries.add(transaction["key"], _value(transaction))
        ends[transaction["source"]] = ends[transaction["dest"]] = None
    records = Entries()
    for address in dict.fromkeys([*ends, *sorted(metadata)]):
        if address in metadata and not address.startswith(OWNERS):
            if _is_published(address):
                records.add(address, metadata[address])
            else:
                records.refused += 1
    return Publication(entries, records, unread)


def _value(transaction: Mapping[str, Any]) -> dict[str, Any]:
    value = {name: transaction[name] for name in FIELDS}
    value["first_seen"], value["last_seen"] = round(value["first_seen"], 3), round(value["last_seen"], 3)
    if transaction["folded"]:  # a sum of many, whose ephemeral port is 0
        value["folded"] = True
    return value


def _is_published(address: str) -> bool:
    if address.startswith("service/"):
        return True
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
