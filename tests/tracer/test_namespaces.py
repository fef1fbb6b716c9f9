"""Namespaces: told apart, found without a process in them, and not kept alive."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from tests.tracer.serving import Served, Watch, find
from tests.tracer.spaces import needs_root, run, spaces

pytestmark = needs_root
PORT = 7_000


def connected(stack: ExitStack, sport: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection from a given port to PORT on loopback."""
    with socket.create_server(("127.0.0.1", PORT)) as server:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", PORT), source_address=("127.0.0.1", sport)))
        return client, stack.enter_context(server.accept()[0])


def test_the_same_ends_in_two_namespaces_are_told_apart(served: Served) -> None:
    near, far = ("127.0.0.1", 7_001), ("127.0.0.1", PORT)
    with spaces(2) as made, ExitStack() as stack:
        watch = Watch(served)
        watch.until(lambda: {space.inode for space in made} <= set(served.get("/status")[1]["namespaces"]))
        for number, space in enumerate(made, 1):
            with space.inside():
                client, server = connected(stack, 7_001)
            client.sendall(b"x" * 100 * number)
            server.recv(1_000)
        watch.poll()
        rows = {row["net_ns"]: row for row in find(watch.open, near, far)}
        assert {space.inode: rows[space.inode]["monotonic_sent_bytes"] for space in made} == {made[0].inode: 100, made[1].inode: 200}
        assert {rows[space.inode]["pid"] for space in made} == {os.getpid()}  # which lives in neither of them
        stack.close()
        watch.until(lambda: len(find(watch.closed.values(), near, far)) == 2)
        closed = {row["net_ns"]: row["monotonic_sent_bytes"] for row in find(watch.closed.values(), near, far)}
        assert closed == {made[0].inode: 100, made[1].inode: 200}


def test_the_listener_tells_which_way_a_connection_goes(served: Served) -> None:
    with spaces(1) as (space,), ExitStack() as stack:
        for address in ("10.9.0.1", "10.9.0.2"):
            run("ip", "-n", space.name, "addr", "add", f"{address}/32", "dev", "lo")
        with space.inside():
            server = stack.enter_context(socket.create_server(("10.9.0.1", PORT)))
            client = stack.enter_context(socket.create_connection(("10.9.0.1", PORT), source_address=("10.9.0.2", 7_003)))
        near = stack.enter_context(server.accept()[0])
        watch = Watch(served)
        watch.until(lambda: find(watch.open, near.getsockname(), near.getpeername()))
        assert watch.end(client.getsockname(), client.getpeername())["direction"] == 2
        assert watch.end(near.getsockname(), near.getpeername())["direction"] == 1
        heard = {"net_ns": space.inode, "type": 0, "source": "10.9.0.1", "sport": PORT, "pid": os.getpid()}
        assert heard in watch.listeners
        server.close()  # what was incoming stays so
        watch.poll()
        assert watch.end(near.getsockname(), near.getpeername())["direction"] == 1


def test_a_namespace_that_goes_away_is_let_go_of(served: Served) -> None:
    watch = Watch(served)
    with spaces(1) as (space,), ExitStack() as stack:
        watch.until(lambda: space.inode in served.get("/status")[1]["namespaces"])
        with space.inside():
            connected(stack, 7_002)
        watch.poll()
        assert find(watch.open, ("127.0.0.1", 7_002), ("127.0.0.1", PORT))
        space.remove()
        stack.close()
        watch.until(lambda: space.inode not in served.get("/status")[1]["namespaces"], "the namespace is still traced")
        assert find(watch.closed.values(), ("127.0.0.1", 7_002), ("127.0.0.1", PORT))
        assert not [row for row in watch.open if row["net_ns"] == space.inode]
        held = {str(link.readlink()) for link in Path(f"/proc/{served.process.pid}/fd").iterdir()}
        assert f"net:[{space.inode}]" not in held
