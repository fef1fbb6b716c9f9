"""What our tracer costs: `python -m tests.benchmarks.tracer`. It needs iproute2's `ss`, and some 20,000 file descriptors in four processes.

10,000 TCP sockets over loopback are held open by other processes. In turn, in each round of one run:

[ss]     our dump, request to columns with addresses, counters, state and inode, as a multiple of the throughput of `ss -tin`
[dump]   its throughput as a fraction of a bare kernel dump, whose messages nobody looks into
[served] sockets per second from a client's request to finished JSON with owners, on the tracer's socket
[rest]   what the tracer costs when it is polled every 10 s: % of a core, MB
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from cluster.tracer import sockdiag
from cluster.tracer.messages import HEADER, NLMSG_DONE, message
from cluster.tracer.netlink import NETLINK_SOCK_DIAG, NLM_F_DUMP, NLM_F_REQUEST, Netlink
from cluster.tracer.rows import TCP
from tests.benchmarks.report import in_turn, median, report
from tests.tracer.serving import Served, UnixHTTP
from tests.tracer.test_many import load

SOCKETS = 10_000
HOLDERS = 4
ROUNDS = 9
REST_SECONDS = 20.0
POLL_SECONDS = 10.0
STATES = sockdiag.TCP_STATES & ~(1 << sockdiag.LISTEN)  # those that `ss -tin` shows
FAMILIES = (socket.AF_INET, socket.AF_INET6)
INFO = 1 << (sockdiag.INET_DIAG_INFO - 1)
SMALLEST = 64  # bytes: the end of a dump has fewer
TICKS = os.sysconf("SC_CLK_TCK")


def ours(link: Netlink) -> int:
    """Our dump, to columns; how many rows."""
    return sum(len(rows) for family in FAMILIES for rows in sockdiag.dump(link, family, TCP, STATES, 0))


def bare(sock: socket.socket, buffer: bytearray) -> None:
    """The same dump, read and thrown away."""
    for family in FAMILIES:
        request = sockdiag.REQUEST.pack(family, socket.IPPROTO_TCP, INFO, 0, STATES, bytes(40) + b"\xff" * 8)
        sock.send(message(sockdiag.SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, request))
        while sock.recv_into(buffer) >= SMALLEST or HEADER.unpack_from(buffer)[1] != NLMSG_DONE:
            pass


def ss() -> None:
    """What people use."""
    subprocess.run(["ss", "-tin"], stdout=subprocess.DEVNULL, check=True)


def ask(served: Served) -> int:
    """One reply of the tracer, unread; its size."""
    connection = UnixHTTP(served.path)
    connection.request("GET", "/connections?client_id=benchmark")
    size = len(connection.getresponse().read())
    connection.close()
    return size


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def at_rest(served: Served) -> tuple[float, float]:
    """% of a core and MB of a tracer that is polled every 10 s."""
    pid, used, start = served.process.pid, cpu_seconds(served.process.pid), time.monotonic()
    while time.monotonic() - start < REST_SECONDS:
        ask(served)
        time.sleep(POLL_SECONDS)
    return 100 * (cpu_seconds(pid) - used) / (time.monotonic() - start), served.memory() / 1e6


def main() -> None:
    """Hold sockets open, and measure."""
    with ExitStack() as stack:
        holders = [stack.enter_context(load("hold", str(SOCKETS // 2 // HOLDERS))) for _ in range(HOLDERS)]
        for holder in holders:
            assert holder.stdin is not None
            stack.callback(holder.stdin.close)
            assert holder.stdout is not None
            holder.stdout.readline()
        served = stack.enter_context(Served(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tracer.sock"))
        link, raw, buffer = Netlink(NETLINK_SOCK_DIAG), Netlink(NETLINK_SOCK_DIAG), bytearray(65_536)
        count, size = ours(link), ask(served)
        works = {"ours": lambda: ours(link), "bare": lambda: bare(raw.socket, buffer), "ss": ss, "served": lambda: ask(served)}
        taken = in_turn(ROUNDS, **works)
        print(f"{count} TCP sockets, {ROUNDS} rounds in turn, medians; a reply has {size / 1e6:.1f} MB")
        times = {name: median(values) for name, values in taken.items()}
        for name, time_ in times.items():
            print(f"{name:>8} {time_ * 1e3:8.1f} ms {count / time_ / 1e3:8.0f} k sockets/s")
        percent, megabytes = at_rest(served)
        print(f" at rest, polled every {POLL_SECONDS:.0f} s: {percent:.2f} % of a core, {megabytes:.0f} MB")
        report(
            "tracer",
            {
                "ss": times["ss"] / times["ours"],
                "dump": times["bare"] / times["ours"],
                "served": times["ss"] / times["served"],
                "rest_percent": percent,
                "rest_megabytes": megabytes,
            },
        )
        link.close()
        raw.close()


if __name__ == "__main__":
    main()
