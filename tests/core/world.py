"""A true world: sockets with bytes, and tracers that tell of them as ours does (cookies, close ids, acks) and as DataDog's does."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

COUNTERS = ("sent", "recv", "retransmits")
Tuple = tuple[int, int, str, int, str, int]  # net_ns, protocol, source, sport, dest, dport
Truth = Counter[tuple[str, str]]  # (seed key, counter) -> amount


@dataclass
class Socket:
    where: Tuple
    cookie: int
    pid: int
    direction: int
    sent: int = 0
    recv: int = 0
    retransmits: int = 0
    ceiling: int | None = None  # without a cookie: `sent` must stay below the one before it until that is applied

    @property
    def key(self) -> str:
        _, _, source, sport, dest, dport = self.where
        return f"{source}-{dest}-{sport}-{dport}"

    def record(self) -> dict[str, Any]:
        net_ns, protocol, source, sport, dest, dport = self.where
        return {
            "pid": self.pid,
            "type": protocol,
            "family": 0,
            "net_ns": net_ns,
            "source": source,
            "sport": sport,
            "dest": dest,
            "dport": dport,
            "direction": self.direction,
            "monotonic_sent_bytes": self.sent,
            "monotonic_recv_bytes": self.recv,
            "monotonic_retransmits": self.retransmits,
            "last_update_epoch": 1,
        }


class World:
    """The sockets of one node and what they truly moved."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.truth: Truth = Counter()
        self.cookies = 0

    def open(self, where: Tuple, pid: int, direction: int) -> Socket | None:
        if any(socket.where == where for socket in self.sockets):
            return None
        self.cookies += 1
        self.sockets.append(Socket(where, self.cookies, pid, direction))
        return self.sockets[-1]

    def grow(self, socket: Socket, sent: int, recv: int, retransmits: int) -> None:
        if socket.ceiling is not None:
            sent = min(sent, socket.ceiling - 1 - socket.sent)
        for name, amount in zip(COUNTERS, (sent, recv, retransmits), strict=True):
            setattr(socket, name, getattr(socket, name) + amount)
            self.truth[socket.key, name] += amount


class CookieTracer:
    """Tells every close under a close id until it is acknowledged; totals are the kernel's, so a restart changes none."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.restarts = 0
        self.polls = 0
        self.fins = True
        self.restart()

    def restart(self) -> None:
        self.restarts += 1
        self.close_id = 0
        self.closed: list[tuple[int, dict[str, Any]]] = []

    def close(self, socket: Socket) -> None:
        self.world.sockets.remove(socket)
        self.close_id += 1
        self.closed.append((self.close_id, {**socket.record(), "cookie": socket.cookie, "state": "closed", "close_id": self.close_id}))

    def _row(self, socket: Socket) -> dict[str, Any]:
        """An open socket; a FIN may stand in its received bytes as one more, until that is known."""
        record = socket.record()
        fin = self.fins and self.polls % 3 == socket.cookie % 3
        record["monotonic_recv_bytes"] += fin
        return {**record, "cookie": socket.cookie, "state": "open", "recv_exact": not fin}

    def poll(self, ack: str | None) -> bytes:
        self.polls += 1
        instance, _, through = (ack or "").rpartition("/")
        if instance == self.instance:
            self.closed = [(number, record) for number, record in self.closed if number > int(through)]
        rows = [self._row(socket) for socket in self.world.sockets]
        rows += [record for _, record in self.closed]
        return json.dumps({"connections": rows, "instance": self.instance, "reply_id": f"{self.instance}/{self.close_id}"}).encode()

    @property
    def instance(self) -> str:
        return f"tracer-{self.restarts}"

    @property
    def peer(self) -> str:
        return ""


class PlainTracer:
    """Counts from when it first saw a connection; a closed one is in one reply and then absent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.restarts = 0
        self.fins = False
        self.handed = False  # something was handed out that no later reply can say
        self.restart()

    def restart(self) -> None:
        self.restarts += 1
        self.zero = {id(socket): (socket.sent, socket.recv, socket.retransmits) for socket in self.world.sockets}
        self.closed: list[dict[str, Any]] = []

    def _record(self, socket: Socket) -> dict[str, Any]:
        zero = self.zero.get(id(socket), (0, 0, 0))
        record = socket.record()
        for name, less in zip(("monotonic_sent_bytes", "monotonic_recv_bytes", "monotonic_retransmits"), zero, strict=True):
            record[name] -= less
        return record

    def close(self, socket: Socket) -> None:
        self.closed.append(self._record(socket))
        self.world.sockets.remove(socket)
        self.zero.pop(id(socket), None)

    def poll(self, ack: str | None) -> bytes:  # noqa: ARG002
        rows = [self._record(socket) for socket in self.world.sockets] + self.closed
        self.handed = self.handed or bool(self.closed)
        self.closed = []
        return json.dumps({"connections": rows}).encode()

    @property
    def peer(self) -> str:
        return f"pid-{self.restarts}"


Tracer = CookieTracer | PlainTracer
