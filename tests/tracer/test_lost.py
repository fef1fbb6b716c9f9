"""Lost destroy events: counted, and made up for by a dump."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from tests.tracer.serving import Served, Watch

SMALLEST = "2304"  # bytes of a receive buffer: room for a few events
COUNT = 300


def test_connections_whose_end_was_lost_are_found_by_a_dump(place: Path) -> None:
    with Served(place / "lost.sock", "--event-buffer", SMALLEST) as served, ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=COUNT))
        port = server.getsockname()[1]
        pairs = []
        for number in range(COUNT):
            client = stack.enter_context(socket.create_connection(server.getsockname()))
            client.sendall(b"x" * (number + 1))
            near = stack.enter_context(server.accept()[0])
            near.recv(1_000)
            pairs.append((client, near))
        wanted = {client.getsockname()[1]: number + 1 for number, (client, _) in enumerate(pairs)}
        watch = Watch(served)
        for client, near in pairs[1:]:
            client.close()
            near.close()
        watch.until(lambda: len([row for row in watch.closed.values() if row["dport"] == port]) == COUNT - 1)
        watch.until(lambda: len([row for row in watch.closed.values() if row["sport"] == port]) == COUNT - 1)
        telemetry = served.telemetry()
        assert telemetry["event_overflows"] > 0
        assert telemetry["vanished"] > 0
        rows = [row for row in watch.closed.values() if row["dport"] == port]
        assert {row["sport"]: row["monotonic_sent_bytes"] for row in rows} == {
            sport: size for sport, size in wanted.items() if sport != pairs[0][0].getsockname()[1]
        }
        assert len({row["cookie"] for row in watch.closed.values()}) == len(watch.closed)
        assert watch.end(pairs[0][0].getsockname(), server.getsockname())["monotonic_sent_bytes"] == 1
