"""Packed batches applied to 5,000,000 tracked rows, against a dict by seed string: `python -m tests.benchmarks.aggregate`.

[changed] rows a second whose counters moved, and [new] opened rows a second, the aggregate's as a multiple of the dict's. Both unpack their
batches, find resets, keep the sums of ended generations and the totals of edges; while rows change, a reader asks each about once a second
for the 100 busiest. The aggregate also checks what it is told, marks what is to be committed and answers.
[bytes_per_row] is what the aggregate's process grows by per row at 5 million, strings and indices included, without a reader's copy.

25 nodes of 100 pods; each of 400 workloads talks to 12 others, each at 200 addresses, and to 4 addresses outside. The dict is filled with
1,000,000 rows only, to stay within a minute: a smaller dict is a faster one. Each side is a process of its own; they take turns, and
medians are compared.
"""

from __future__ import annotations

import gc
import heapq
import multiprocessing
import resource
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from cluster.core import parts, query
from cluster.core.aggregate import Aggregate, AggregateLimits
from cluster.core.checkpoint import Checkpoint, Columns, Rows
from cluster.core.commands import Reply, Write
from cluster.core.events import BatchReceived, Committed, Hello, Tick
from cluster.core.records import V4_PREFIX
from cluster.core.wire import CHANGED, Final, Part, pack_part
from tests.benchmarks.report import median, report, seconds

NODE_ROWS = 200_000
NODES = 25
DICT_NODES = 5
ROUNDS = 3
OUR_CHANGES, THEIR_CHANGES = 6, 3  # times that a fifth of all rows changes, about a second
PODS = 100  # of a node
WORKLOADS = 400
REPLICAS = 200  # addresses of a workload
PEERS = 12  # other workloads that one talks to
OUTSIDE = 4  # addresses outside that a workload talks to
PORTS = np.array((53, 80, 443, 5432, 6379, 8080, 8443, 9090), np.uint16)
CHANGE = NODE_ROWS // 5  # rows of a node that one sequence changes
RESETS = 100  # one of so many changed rows begins a new generation
DICT_PART = 1_000  # rows of one message to the dict: about as many bytes as a part


class Node:
    """A node's rows as its collector would number and count them; in no order, as a tracer tells them."""

    def __init__(self, number: int) -> None:
        self.name = f"node-{number}"
        self.random = np.random.default_rng(number)
        self.addresses = _addresses()
        self.texts = ["", *(f"deployment/shop-{workload}" for workload in range(WORKLOADS))]
        self.sequence = 0
        self.rows = self._rows()

    def _rows(self) -> Columns:
        draw, n = self.random.integers, NODE_ROWS
        pod = draw(0, PODS, n)
        workload = (4 * pod + len(self.name)) % WORKLOADS
        peer = draw(0, PEERS + OUTSIDE, n)
        inside = peer < PEERS
        server = (7 * workload + 31 * peer + 1) % WORKLOADS
        dest = np.where(
            inside, server * REPLICAS + draw(0, REPLICAS, n), WORKLOADS * REPLICAS + (workload * OUTSIDE + peer) % (WORKLOADS * OUTSIDE)
        )
        return {
            "id": np.arange(n, dtype=np.uint32),
            "source": (workload * REPLICAS + pod).astype(np.uint32),
            "dest": dest.astype(np.uint32),
            "sport": draw(32_768, 61_000, n).astype(np.uint16),
            "dport": PORTS[peer % len(PORTS)],
            "protocol": (peer % 8 == 0).astype(np.uint8),
            "pid": (20_000 + 97 * pod).astype(np.uint32),
            "net_ns": (4_026_532_000 + pod).astype(np.uint32),
            "cookie": draw(1, 1 << 40, n).astype(np.uint64),
            "direction": np.full(n, 2, np.uint8),
            "flags": np.zeros(n, np.uint8),
            "sent": draw(0, 1 << 24, n).astype(np.uint64),
            "recv": draw(0, 1 << 28, n).astype(np.uint64),
            "retransmits": draw(0, 5, n).astype(np.uint32),
            "generation": np.zeros(n, np.uint32),
            "last_update": (10**15 + draw(0, 10**9, n)).astype(np.uint64),
            "local": (1 + workload).astype(np.uint32),
            "remote": np.where(inside, 1 + server, 0).astype(np.uint32),
            "role": np.ones(n, np.uint8),
        }

    def opened(self) -> list[bytes]:
        return self._packed({"opened": self.rows})

    def change(self) -> NDArray[np.intp]:
        """Let a fifth of the rows move, a few of them from the start; which."""
        which = self.random.choice(NODE_ROWS, CHANGE, replace=False)
        rows, reset = self.rows, which[::RESETS]
        rows["sent"][which] += self.random.integers(0, 1 << 16, CHANGE).astype(np.uint64)
        rows["recv"][which] += self.random.integers(0, 1 << 16, CHANGE).astype(np.uint64)
        rows["retransmits"][which[::50]] += 1
        rows["last_update"][which] += np.uint64(10**9)
        rows["generation"][reset] += 1
        for name in ("sent", "recv"):
            rows[name][reset] = 0
        return which

    def changed(self) -> list[bytes]:
        which = self.change()
        return self._packed({"changed": {name: self.rows[name][which] for name in CHANGED}})

    def _packed(self, sections: dict[str, Columns]) -> list[bytes]:
        content = parts.Content(sections, [], Final(1_000.0 + self.sequence), self.addresses, self.texts)
        bodies = parts.bodies(content)
        self.sequence += 1
        heads = (Part(self.name, 1 << 20, 1, self.sequence - 1, number, number == len(bodies) - 1) for number in range(len(bodies)))
        return [pack_part(head, body) for head, body in zip(heads, bodies, strict=True)]

    # The same for the dict

    def keys(self) -> list[str]:
        texts = [".".join(map(str, address[12:])) for address in self.addresses.tolist()]
        columns = (self.rows[name].tolist() for name in ("source", "dest", "sport", "dport"))
        return [f"{texts[source]}-{texts[dest]}-{sport}-{dport}" for source, dest, sport, dport in zip(*columns, strict=True)]

    def opened_rows(self) -> list[bytes]:
        rows = self.rows
        local, remote = ([self.texts[index] for index in rows[name].tolist()] for name in ("local", "remote"))
        names = ("pid", "net_ns", "cookie", "direction", "flags", "role", "protocol", "dport", "sent", "recv", "retransmits", "last_update")
        return _packed_rows(zip(self.keys(), local, remote, *(rows[name].tolist() for name in names), strict=True))

    def changed_rows(self, keys: list[str]) -> list[bytes]:
        which = self.change()
        columns = (self.rows[name][which].tolist() for name in ("sent", "recv", "retransmits", "last_update"))
        return _packed_rows(zip((keys[index] for index in which.tolist()), *columns, strict=True))


def _packed_rows(rows: Iterator[tuple[Any, ...]]) -> list[bytes]:
    listed = list(rows)
    return [msgpack.packb(listed[at : at + DICT_PART]) for at in range(0, len(listed), DICT_PART)]


def _addresses() -> NDArray[np.uint8]:
    """Those of all workloads, then those outside; shape (n, 16)."""
    count = WORKLOADS * (REPLICAS + OUTSIDE)
    number = np.arange(count)
    first = np.where(number < WORKLOADS * REPLICAS, 10, 93)
    quads = np.stack([first, number >> 16, number >> 8 & 255, number & 255], axis=1).astype(np.uint8)
    return np.concatenate([np.tile(np.frombuffer(V4_PREFIX, np.uint8), (count, 1)), quads], axis=1)


class Ours:
    """The aggregate."""

    def __init__(self) -> None:
        self.aggregate = Aggregate(Checkpoint(1, Rows({})), AggregateLimits(rows=2 * NODES * NODE_ROWS))
        for number in range(NODES):
            self.aggregate.handle(Hello(f"node-{number}", 1, 1_000.0))
        for command in self.aggregate.handle(Tick(1_000.0)):
            assert isinstance(command, Write)
            self.aggregate.handle(Committed(command.commit.number, 1_000.0))

    def fill(self, packed: list[bytes]) -> float:
        return _timed(self._apply, packed)

    def changed(self, packed: list[bytes]) -> float:
        return _timed(self._apply, packed)

    def _apply(self, packed: list[bytes]) -> None:
        for part in packed:
            for command in self.aggregate.handle(BatchReceived(part, 1_000.0)):
                assert isinstance(command, Reply)
                assert command.answer.verdict == "ok", command.answer

    def read(self, _: None) -> float:
        return _timed(lambda _: query.transactions(self.aggregate.snapshot(), None, "bytes", 100), None)

    def resident(self, _: None) -> int:
        """Bytes of memory that this process holds."""
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _timed(work: Callable[[Any], Any], what: Any) -> float:
    gc.collect()
    return seconds(lambda: work(what))


class Naive:
    """What one would write first: a list of counters under each key, a list of totals under each edge."""

    def __init__(self) -> None:
        self.table: dict[str, list[Any]] = {}
        self.edges: dict[tuple[str, str, int, int], list[int]] = {}

    def fill(self, packed: list[bytes]) -> float:
        return _timed(lambda parts_: deque(map(self._open, parts_), 0), packed)

    def changed(self, packed: list[bytes]) -> float:
        return _timed(lambda parts_: deque(map(self._change, parts_), 0), packed)

    def read(self, _: None) -> float:
        return _timed(self._busiest, None)

    def _busiest(self, _: None) -> list[Any]:
        copied = {key: tuple(row[:7]) for key, row in self.table.items()}
        return heapq.nlargest(100, copied.items(), key=lambda item: item[1][0] + item[1][1] + item[1][3] + item[1][4])

    def _open(self, part: bytes) -> None:
        for row in msgpack.unpackb(part):
            key, local, remote, pid, net_ns, cookie, direction, flags, role, protocol, port, sent, recv, lost, update = row
            edge = self.edges.setdefault((local, remote or "external", protocol, port), [0, 0, 0])
            edge[0] += sent
            edge[1] += recv
            edge[2] += lost
            self.table[key] = [sent, recv, lost, 0, 0, 0, update, edge, pid, net_ns, cookie, direction, flags, role]

    def _change(self, part: bytes) -> None:
        table = self.table
        for key, sent, recv, lost, update in msgpack.unpackb(part):
            row = table[key]
            if sent < row[0] or recv < row[1] or lost < row[2]:
                row[3] += row[0]
                row[4] += row[1]
                row[5] += row[2]
                row[0] = row[1] = row[2] = 0
            edge = row[7]
            edge[0] += sent - row[0]
            edge[1] += recv - row[1]
            edge[2] += lost - row[2]
            row[0], row[1], row[2], row[6] = sent, recv, lost, update


def serve(side: type[Ours] | type[Naive], asked: Connection) -> None:
    """Do what is asked, in a process of its own."""
    made = side()
    while (question := asked.recv()) is not None:
        asked.send(getattr(made, question[0])(question[1]))
        del question


class Side:
    """One of the two, in its process."""

    def __init__(self, side: type[Ours] | type[Naive]) -> None:
        self._mine, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(side, theirs))
        self._process.start()

    def ask(self, name: str, what: Any = None) -> Any:
        self._mine.send((name, what))
        return self._mine.recv()

    def end(self) -> None:
        self._mine.send(None)
        self._process.join()


def fill(ours: Side, naive: Side, nodes: list[Node], theirs: list[Node]) -> float:
    """Open all rows; how many times faster ours is."""
    mine = [ours.ask("fill", node.opened()) for node in nodes[len(theirs) :]]
    ratios = []
    for one, other in zip(nodes, theirs, strict=False):
        mine.append(ours.ask("fill", one.opened()))
        taken = naive.ask("fill", other.opened_rows())
        ratios.append(taken / mine[-1])
        print(f"new: {NODE_ROWS / mine[-1] / 1e6:.2f} M rows/s, dict {NODE_ROWS / taken / 1e6:.2f} M rows/s", flush=True)
    return median(ratios)


def change(ours: Side, naive: Side, nodes: list[Node], theirs: list[Node]) -> float:
    """Let rows change for about a second and read once; how many times faster ours is."""
    mine = _second(ours, OUR_CHANGES * len(nodes), [[part for node in nodes for part in node.changed()] for _ in range(OUR_CHANGES)])
    keys = [node.keys() for node in theirs]
    packed = [[part for node, listed in zip(theirs, keys, strict=True) for part in node.changed_rows(listed)] for _ in range(THEIR_CHANGES)]
    dict_ = _second(naive, THEIR_CHANGES * len(theirs), packed)
    print(f"changed: {mine / 1e6:.2f} M rows/s, dict {dict_ / 1e6:.2f} M rows/s", flush=True)
    return mine / dict_


def _second(side: Side, sequences: int, batches: list[list[bytes]]) -> float:
    """Rows a second, with one reading."""
    taken = sum(side.ask("changed", batch) for batch in batches)
    read = side.ask("read")
    print(f"  {taken:.2f} s applying, {read:.2f} s reading", flush=True)
    return float(sequences * CHANGE / (taken + read))


def main() -> None:
    """Fill both, change both, in turns."""
    ours, naive = Side(Ours), Side(Naive)
    nodes, theirs = [Node(number) for number in range(NODES)], [Node(number) for number in range(DICT_NODES)]
    empty = ours.ask("resident")
    ratios = {"new": fill(ours, naive, nodes, theirs)}
    ratios["bytes_per_row"] = (ours.ask("resident") - empty) / (NODES * NODE_ROWS)
    ratios["changed"] = median([change(ours, naive, nodes, theirs) for _ in range(ROUNDS)])
    ours.end()
    naive.end()
    report("aggregate", ratios)


if __name__ == "__main__":
    main()
