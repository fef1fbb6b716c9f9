"""Many connections: closed between two polls, and open at one time."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest

from tests.tracer.loads import sizes
from tests.tracer.serving import Served, UnixHTTP, Watch

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
    known = set(watch.closed)
    watch.poll()
    rows = [row for close_id, row in watch.closed.items() if close_id not in known and port in (row["sport"], row["dport"])]
    for mine, theirs, out, back in (("dport", "sport", 0, 1), ("sport", "dport", 1, 0)):
        end = [row for row in rows if row[mine] == port]
        end.sort(key=lambda row: (row[theirs], row["close_id"]))  # the kernel gives a client's port again: in the order of their closes
        wanted = sorted((sport, number) for number, sport in enumerate(clients))
        assert [row[theirs] for row in end] == [sport for sport, _ in wanted]
        assert [row["monotonic_sent_bytes"] for row in end] == [sizes(number)[out] for _, number in wanted]
        over = [row["monotonic_recv_bytes"] - sizes(number)[back] for row, (_, number) in zip(end, wanted, strict=True)]
        assert all(high == 0 if row["recv_exact"] else high in (0, 1) for row, high in zip(end, over, strict=True))
    assert len({row["cookie"] for row in rows}) == 2 * CHURN


def test_twenty_thousand_open_sockets_with_their_owners(served: Served) -> None:
    with ExitStack() as stack:
        holders = [stack.enter_context(load("hold", str(HELD))) for _ in range(HOLDERS)]
        ports = {}
        for holder in holders:
            assert holder.stdout is not None
            ports[int(holder.stdout.readline())] = holder.pid
        asleep = stack.enter_context(closing(UnixHTTP(served.path)))
        asleep.request("GET", "/connections?client_id=asleep")  # and never reads the megabytes that come
        watch = Watch(served, "many")
        mine = [row for row in watch.open if row["sport"] in ports or row["dport"] in ports]
        assert len(mine) == 2 * HOLDERS * HELD
        assert all(row["pid"] == ports.get(row["sport"], ports.get(row["dport"])) for row in mine)
        assert {(row["sport"], row["pid"]) for row in watch.listeners if row["sport"] in ports} == set(ports.items())
        for holder in holders:
            assert holder.stdin is not None
            holder.stdin.close()
