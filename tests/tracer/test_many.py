"""Many connections: closed between two polls, and open at one time."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest

from tests.tracer.loads import sizes
from tests.tracer.serving import Row, Served, UnixHTTP, Watch

CHURN = 20_000
HOLDERS, HELD = 4, 2_500  # connections of each holder: both ends are sockets


def load(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.tracer.loads", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a queue that holds the closes of a burst needs root")
def test_every_connection_between_two_polls_is_told_with_its_own_bytes(watch: Watch) -> None:
    words = load("churn", str(CHURN)).communicate()[0].split()
    port, clients, seconds = int(words[0]), list(map(int, words[1:-1])), float(words[-1])
    assert CHURN / seconds > 1_000, "too slow to show anything"
    watch.until(lambda: len(of_port(watch, port)) >= 2 * CHURN)
    rows = of_port(watch, port)
    assert len({row["cookie"] for row in rows}) == len(rows) == 2 * CHURN
    for mine, theirs, out, back in (("dport", "sport", 0, 1), ("sport", "dport", 1, 0)):
        wanted: dict[int, list[int]] = {}  # the kernel gives a client's port again: port to the connections that had it
        for number, sport in enumerate(clients):
            wanted.setdefault(sport, []).append(number)
        for row in (row for row in rows if row[mine] == port):
            fitting = [number for number in wanted[row[theirs]] if fits(row, sizes(number)[out], sizes(number)[back])]
            assert fitting, row
            wanted[row[theirs]].remove(fitting[0])
        assert not any(wanted.values())


def of_port(watch: Watch, port: int) -> list[Row]:
    return [row for row in watch.closed.values() if port in (row["sport"], row["dport"])]


def fits(row: Row, sent: int, received: int) -> bool:
    """Whether the sent bytes are these exactly, and the received ones these, or one more if the row says that this can be."""
    over = row["monotonic_recv_bytes"] - received
    return row["monotonic_sent_bytes"] == sent and over in ((0,) if row["recv_exact"] else (0, 1))


def test_twenty_thousand_open_sockets_with_their_owners(served: Served) -> None:
    with ExitStack() as stack:
        holders = [stack.enter_context(load("hold", str(HELD))) for _ in range(HOLDERS)]
        ports = {}
        for holder in holders:
            assert holder.stdout is not None
            ports[int(holder.stdout.readline())] = holder.pid
        asleep = stack.enter_context(closing(UnixHTTP(served.path)))
        asleep.request("GET", "/connections?client_id=asleep")  # and never reads the megabytes that come
        watch = Watch(served)
        mine = [row for row in watch.open if row["sport"] in ports or row["dport"] in ports]
        assert len(mine) == 2 * HOLDERS * HELD
        assert all(row["pid"] == ports.get(row["sport"], ports.get(row["dport"])) for row in mine)
        assert {(row["sport"], row["pid"]) for row in watch.listeners if row["sport"] in ports} == set(ports.items())
        for holder in holders:
            assert holder.stdin is not None
            holder.stdin.close()
