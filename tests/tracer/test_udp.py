"""UDP: what dumps tell, and what connection tracking adds where a namespace has it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator

import pytest

from tests.tracer.serving import Served, Watch, find
from tests.tracer.spaces import Space, needs_root, spaces

RULES = """
add table inet t
add chain inet t in { type filter hook input priority 0; }
add rule inet t in ct state established accept
add chain inet t nat { type nat hook output priority -100; }
add rule inet t nat ip daddr 127.9.9.9 udp dport 53 dnat ip to 127.0.0.1:5300
"""

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft (apt-get install nftables)")


def udp(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind((host, 0))
    return sock


def test_a_connected_socket_has_unknown_bytes_and_an_unconnected_one_is_no_connection(watch: Watch) -> None:
    with udp("127.0.0.1") as server, udp("127.0.0.1") as client:
        client.connect(server.getsockname())
        client.send(b"x" * 100)
        assert len(server.recv(200)) == 100
        watch.poll()
        row = watch.end(client.getsockname(), server.getsockname())
        assert (row["type"], row["bytes"], row["monotonic_sent_bytes"], row["recv_exact"]) == (1, "unknown", 0, False)
        assert not [row for row in watch.open if row["sport"] == server.getsockname()[1]]
        ends = client.getsockname(), server.getsockname()
    assert watch.ended(*ends)["bytes"] == "unknown"


def test_a_socket_that_waits_on_a_port_of_its_own_is_a_listener(watch: Watch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, udp("127.0.0.1") as ephemeral:
        server.bind(("127.0.0.1", 20_053))
        watch.poll()
        heard = {(row["type"], row["source"], row["sport"]) for row in watch.listeners}
        assert (1, "127.0.0.1", 20_053) in heard
        assert (1, *ephemeral.getsockname()) not in heard


@pytest.fixture
def tracking() -> Iterator[Space]:
    with spaces(1) as (space,):
        space.run("nft", RULES)
        space.run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1")
        yield space


@needs_root
@needs_nft
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_bytes_where_the_namespace_tracks(tracking: Space, served: Served, host: str) -> None:
    with tracking.inside():
        server, client = udp(host), udp(host)
    ends = client.getsockname()[:2], server.getsockname()[:2]
    client.connect(server.getsockname())
    server.connect(client.getsockname())
    for size in (100, 1_400):
        client.send(b"x" * size)
        server.recv(2_000)
    server.send(b"y" * 777)
    client.recv(2_000)
    watch = Watch(served)
    watch.until(lambda: find(watch.open, *ends))
    row, back = watch.end(*ends), watch.end(*ends[::-1])
    assert (row["monotonic_sent_bytes"], row["monotonic_recv_bytes"]) == (1_500, 777)
    assert (back["monotonic_sent_bytes"], back["monotonic_recv_bytes"]) == (777, 1_500)
    assert "bytes" not in row
    client.send(b"x" * 5)
    client.close()
    closed = watch.ended(*ends)
    assert (closed["monotonic_sent_bytes"], closed["monotonic_recv_bytes"]) == (1_505, 777)
    # Another socket on the same ends goes on with the same entry; what the first one moved is not its own.
    with tracking.inside():
        again = socket.socket(client.family if client.fileno() >= 0 else server.family, socket.SOCK_DGRAM)
    again.bind(ends[0])
    again.connect(server.getsockname())
    again.send(b"z" * 9)
    watch.until(lambda: find(watch.open, *ends))
    assert watch.end(*ends)["monotonic_sent_bytes"] == 9
    again.close()
    server.close()


@needs_root
@needs_nft
def test_a_translated_connection_names_its_real_peer(tracking: Space, served: Served) -> None:
    with tracking.inside():
        server, client = udp("127.0.0.1"), udp("127.0.0.1")
        real = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        real.bind(("127.0.0.1", 5_300))
    real.settimeout(5)
    client.connect(("127.9.9.9", 53))
    client.send(b"query")
    _, asker = real.recvfrom(100)
    real.sendto(b"answer", asker)
    assert client.recv(100) == b"answer"
    watch = Watch(served)
    ends = client.getsockname(), ("127.9.9.9", 53)
    watch.until(lambda: find(watch.open, *ends))
    row = watch.end(*ends)
    local = client.getsockname()
    assert row["conntrack"] == {"repl_src_ip": "127.0.0.1", "repl_src_port": 5_300, "repl_dst_ip": local[0], "repl_dst_port": local[1]}
    assert (row["monotonic_sent_bytes"], row["monotonic_recv_bytes"]) == (5, 6)
    for sock in (server, client, real):
        sock.close()


@needs_root
@needs_nft
def test_a_namespace_that_tracks_but_does_not_count_has_unknown_bytes(tracking: Space, served: Served) -> None:
    tracking.run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=0")
    with tracking.inside():
        server, client = udp("127.0.0.1"), udp("127.0.0.1")
    client.connect(server.getsockname())
    client.send(b"x")
    watch = Watch(served)
    ends = client.getsockname(), server.getsockname()
    watch.until(lambda: find(watch.open, *ends))
    assert watch.end(*ends)["bytes"] == "unknown"
    assert any("nf_conntrack_acct" in lack["remedy"] for lack in served.get("/status")[1]["missing"])
    client.close()
    server.close()
