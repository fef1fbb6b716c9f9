"""How connections end, and what is said of each: real sockets, one way of ending after the other."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.tracer.serving import Row, Served, Watch

LINGER_0 = struct.pack("ii", 1, 0)
Address = tuple[str, int]


class Pair:
    """Both ends of a TCP connection over loopback."""

    def __init__(self, family: socket.AddressFamily, host: str, listen: str | None = None):
        with socket.create_server(
            (listen or host, 0), family=family if listen is None else socket.AF_INET6, dualstack_ipv6=listen == "::"
        ) as server:
            self.client = socket.create_connection((host, server.getsockname()[1]))
            self.server, _ = server.accept()
        for end in (self.client, self.server):
            end.settimeout(5)
        self.near: Address = self.client.getsockname()[:2]
        self.far: Address = self.client.getpeername()[:2]

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        made = Pair(socket.AF_INET, "127.0.0.1")
        stack.callback(made.close)
        yield made


def move(source: socket.socket, dest: socket.socket, size: int) -> None:
    source.sendall(b"x" * size)
    assert take(dest, size) == size


def take(sock: socket.socket, size: int) -> int:
    got = 0
    while got < size and (data := sock.recv(size - got)):
        got += len(data)
    return got


def sent(row: Row) -> int:
    return int(row["monotonic_sent_bytes"])


def received(row: Row, true: int) -> bool:
    """Whether the received bytes are right: exact if it says so, else at most one too high."""
    value = row["monotonic_recv_bytes"]
    return bool(value == true if row["recv_exact"] else value in (true, true + 1))


def test_a_close_that_no_dump_saw_belongs_to_the_listener_or_nobody(served: Served, watch: Watch) -> None:
    unattributed = served.telemetry()["unattributed"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch.poll()
        with socket.create_connection(server.getsockname()) as client, server.accept()[0]:
            near, far = client.getsockname(), client.getpeername()
        assert watch.ended(far, near)["pid"] == os.getpid()
        assert watch.ended(near, far)["pid"] == 0
    assert served.telemetry()["unattributed"] > unattributed


def test_an_open_connection_is_exact_in_both_directions(pair: Pair, watch: Watch) -> None:
    move(pair.client, pair.server, 1_000)
    move(pair.server, pair.client, 2_345)
    watch.poll()
    for row, out, back in ((watch.end(pair.near, pair.far), 1_000, 2_345), (watch.end(pair.far, pair.near), 2_345, 1_000)):
        assert (sent(row), row["monotonic_recv_bytes"], row["recv_exact"]) == (out, back, True)


def test_closed_by_the_client_first(pair: Pair, watch: Watch) -> None:
    # The client has not read the server's FIN, and leaves a TIME_WAIT behind: proven, exact.
    move(pair.client, pair.server, 100)
    move(pair.server, pair.client, 2_000)
    pair.client.close()
    assert pair.server.recv(1) == b""
    watch.poll()  # the server's socket is seen in CLOSE_WAIT: its FIN is proven
    pair.server.close()
    near, far = watch.ended(pair.near, pair.far), watch.ended(pair.far, pair.near)
    assert (sent(near), sent(far)) == (100, 2_000)
    assert received(near, 2_000)
    assert (far["monotonic_recv_bytes"], far["recv_exact"]) == (100, True)


def test_closed_by_the_server_first_between_two_polls(pair: Pair, watch: Watch) -> None:
    # No dump saw a state that proves a FIN; but both ends are here, and a FIN comes after all that the other end sent.
    move(pair.client, pair.server, 100)
    move(pair.server, pair.client, 2_000)
    pair.server.close()
    assert pair.client.recv(1) == b""
    pair.client.close()
    near, far = watch.ended(pair.near, pair.far), watch.ended(pair.far, pair.near)
    assert (sent(near), sent(far)) == (100, 2_000)
    watch.until(lambda: len(watch.closed) >= 2)
    assert received(near, 2_000)
    assert received(far, 100)


def test_the_unread_fin_of_the_peer_is_proven_by_time_wait(pair: Pair, watch: Watch) -> None:
    # Both closed; the server closed in answer, so its FIN was never read by the client, and the client's end is in TIME_WAIT.
    move(pair.server, pair.client, 2_000)
    pair.client.close()
    assert pair.server.recv(1) == b""
    pair.server.close()
    near = watch.ended(pair.near, pair.far)
    assert received(near, 2_000)


def test_late_close_of_the_peer(pair: Pair, watch: Watch) -> None:
    # The client's socket is gone before the server's FIN comes: no FIN is in its count, and FIN_WAIT2 proves that.
    move(pair.server, pair.client, 2_000)
    pair.client.close()
    near = watch.ended(pair.near, pair.far)
    assert (near["monotonic_recv_bytes"], near["recv_exact"]) == (2_000, True)
    watch.poll()
    row = watch.end(pair.far, pair.near)
    assert (row["monotonic_recv_bytes"], row["recv_exact"], sent(row)) == (0, True, 2_000)
    pair.server.close()
    far = watch.ended(pair.far, pair.near)
    assert (far["monotonic_recv_bytes"], far["recv_exact"], sent(far)) == (0, True, 2_000)


def test_half_close(pair: Pair, watch: Watch) -> None:
    # The client says that it is done and reads on; what it reads until the server's FIN is payload.
    move(pair.client, pair.server, 10)
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    move(pair.server, pair.client, 3_000)
    watch.poll()
    near, far = watch.end(pair.near, pair.far), watch.end(pair.far, pair.near)
    assert (near["monotonic_recv_bytes"], near["recv_exact"]) == (3_000, True)
    assert (far["monotonic_recv_bytes"], far["recv_exact"]) == (10, True)
    pair.server.close()
    assert pair.client.recv(1) == b""
    watch.poll()  # the kernel lists the client's socket no more, but it is open: no close is told
    assert watch.end(pair.near, pair.far)["monotonic_recv_bytes"] == 3_000
    pair.client.close()
    near, far = watch.ended(pair.near, pair.far), watch.ended(pair.far, pair.near)
    assert received(near, 3_000)
    assert (sent(near), sent(far)) == (10, 3_000)
    assert (far["monotonic_recv_bytes"], far["recv_exact"]) == (10, True)


def test_close_with_unread_data(pair: Pair, watch: Watch) -> None:
    # The kernel answers with a reset. What arrived counts as received, though nobody read it.
    pair.server.sendall(b"x" * 2_000)
    watch.until(lambda: watch.end(pair.near, pair.far)["monotonic_recv_bytes"] == 2_000)
    pair.client.close()
    near = watch.ended(pair.near, pair.far)
    assert watch.end(pair.far, pair.near)  # reset, but its process still holds it: it has not ended
    pair.server.close()
    far = watch.ended(pair.far, pair.near)
    assert (near["monotonic_recv_bytes"], near["recv_exact"], sent(near)) == (2_000, True, 0)
    assert (far["monotonic_recv_bytes"], far["recv_exact"], sent(far)) == (0, True, 2_000)


def test_linger_0_keeps_the_values_of_the_last_dump(pair: Pair, watch: Watch, served: Served) -> None:
    # The aborting end's event says nothing: what the last dump saw stays. The other end is reset, and keeps all.
    aborted = served.telemetry().get("aborted", 0)
    move(pair.client, pair.server, 100)
    move(pair.server, pair.client, 2_000)
    watch.poll()
    move(pair.client, pair.server, 50)
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    pair.close()
    near, far = watch.ended(pair.near, pair.far), watch.ended(pair.far, pair.near)
    assert (sent(near), near["monotonic_recv_bytes"]) == (100, 2_000)
    assert sent(far) == 2_000
    assert received(far, 150)
    assert served.telemetry()["aborted"] == aborted + 1


def test_reset_by_the_peer(pair: Pair, watch: Watch) -> None:
    # The server aborts: the client's end dies by the reset, with no FIN in its count.
    move(pair.server, pair.client, 2_000)
    watch.poll()
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    pair.server.close()
    with pytest.raises(ConnectionResetError):
        pair.client.recv(1)
    pair.client.close()
    near = watch.ended(pair.near, pair.far)
    assert (near["monotonic_recv_bytes"], near["recv_exact"], sent(near)) == (2_000, True, 0)


@pytest.mark.parametrize(("host", "listen", "family"), [("::1", None, 1), ("127.0.0.1", "::", 0)], ids=["IPv6", "v4-mapped"])
def test_ipv6_and_v4_mapped(host: str, listen: str | None, family: int, watch: Watch) -> None:
    # The server's end of an IPv4 connection to a socket on "::" is written as IPv4.
    pair = Pair(socket.AF_INET6, host, listen)
    move(pair.client, pair.server, 7)
    watch.poll()
    near, far = watch.end(pair.near, pair.far), watch.end(pair.far, pair.near)
    assert {near["source"], near["dest"], far["source"], far["dest"]} == {host}
    assert (near["family"], far["family"]) == (family, family)
    assert (sent(near), far["monotonic_recv_bytes"]) == (7, 7)
    pair.close()
    assert {watch.ended(pair.near, pair.far)["family"], watch.ended(pair.far, pair.near)["family"]} == {family}


def test_what_a_close_leaves_behind_is_no_connection(pair: Pair, watch: Watch) -> None:
    move(pair.client, pair.server, 100)
    pair.client.close()  # its socket dies, and a TIME_WAIT one waits for the peer's FIN under the same cookie
    row = watch.ended(pair.near, pair.far)
    watch.poll()
    assert row["cookie"] not in {row["cookie"] for row in watch.open}
    assert sent(row) == 100
