"""The JSON of a reply, written row by row from columns with one template: several times faster than an encoder that sees objects."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.tracer.listeners import packed
from cluster.tracer.rows import Rows

PIECE = 8_192  # rows that are text at one time

TEMPLATE = (
    '{"pid":%d,"type":%d,"family":%d,"net_ns":%d,"source":"%s","dest":"%s","sport":%d,"dport":%d,"direction":%d,'
    '"monotonic_sent_bytes":%d,"last_sent_bytes":%d,"monotonic_recv_bytes":%d,"last_recv_bytes":%d,'
    '"monotonic_retransmits":%d,"last_retransmits":%d,"last_update_epoch":%d,"cookie":%d%s}'
)
PLAIN = ("sport", "dport", "direction")
LISTENER = '{"net_ns":%d,"type":%d,"source":"%s","sport":%d,"pid":%d}'


def encode(rows: Rows, last: Sequence[NDArray[np.uint64]]) -> Iterator[bytes]:
    """Rows as JSON objects with commas between, a piece at a time. `last`: sent, received, retransmits since the client's last reply."""
    for start in range(0, len(rows), PIECE):
        part = slice(start, start + PIECE)
        text = ",".join(map(TEMPLATE.__mod__, fields(rows[part], [column[part] for column in last])))
        yield (("," if start else "") + text).encode()


def fields(rows: Rows, last: Sequence[NDArray[np.uint64]]) -> Iterator[tuple[object, ...]]:
    """What the template takes, row by row."""
    names = ("pid", "protocol", "family", "net_ns")
    columns: list[list[object]] = [rows[name].tolist() for name in names]
    columns += [texts(rows["source"]), texts(rows["dest"])]
    columns += [rows[name].tolist() for name in PLAIN]
    for name, since in zip(("sent", "received", "retransmits"), last, strict=True):
        columns += [rows[name].tolist(), since.tolist()]
    columns += [rows["updated"].tolist(), rows["cookie"].tolist(), extras(rows)]
    return zip(*columns, strict=True)


def extras(rows: Rows) -> list[object]:
    """The fields that only some rows have."""
    closed, exact, known = rows["close_id"].tolist(), rows["recv_exact"].tolist(), rows["bytes_known"].tolist()
    out: list[object] = [
        (f',"state":"closed","close_id":{close_id}' if close_id else ',"state":"open"')
        + (',"recv_exact":true' if is_exact else ',"recv_exact":false')
        + ("" if is_known else ',"bytes":"unknown"')
        + (f',"cgroup_id":{cgroup_id}' if cgroup_id else "")
        for close_id, is_exact, is_known, cgroup_id in zip(closed, exact, known, rows["cgroup_id"].tolist(), strict=True)
    ]
    for place in np.flatnonzero(rows["nat"]).tolist():
        out[place] = f"{out[place]},{translated(rows[place])}"
    return out


def translated(row: np.void) -> str:
    """Conntrack's reply tuple of one row."""
    source, dest = text_of(row["nat_source"].tobytes()), text_of(row["nat_dest"].tobytes())
    return (
        f'"conntrack":{{"repl_src_ip":"{source}","repl_dst_ip":"{dest}",'
        f'"repl_src_port":{int(row["nat_sport"])},"repl_dst_port":{int(row["nat_dport"])}}}'
    )


def texts(addresses: NDArray[np.uint32]) -> list[object]:
    """Addresses of shape (n, 4) as people write them."""
    known: dict[bytes, str] = {}
    raw = packed(addresses)
    for address in set(raw):
        known[address] = text_of(address)
    return [known[address] for address in raw]


def text_of(address: bytes) -> str:
    """16 bytes as people write them; v4-mapped addresses as IPv4."""
    if address.startswith(b"\0\0\0\0\0\0\0\0\0\0\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def encode_listeners(rows: Rows) -> bytes:
    """Listening sockets as JSON objects with commas between them."""
    columns = (rows["net_ns"].tolist(), rows["protocol"].tolist(), texts(rows["source"]), rows["sport"].tolist(), rows["pid"].tolist())
    return ",".join(map(LISTENER.__mod__, zip(*columns, strict=True))).encode()


def envelope(open_rows: Iterator[bytes], closed_rows: Iterator[bytes], listeners: Rows, more: Mapping[str, object]) -> Iterator[bytes]:
    """A whole reply in pieces; `more` are its other fields."""
    yield b'{"connections":['
    comma = b""
    for piece in open_rows:
        yield piece
        comma = b","
    for piece in closed_rows:
        yield comma + piece
        comma = b""
    yield b'],"listeners":[' + encode_listeners(listeners)
    yield b"]," + json.dumps(more, separators=(",", ":"))[1:].encode()
