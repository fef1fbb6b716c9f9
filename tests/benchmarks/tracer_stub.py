"""A server process on a unix socket that answers as our tracer does: every connection changed at each poll, at next to no cost."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

MARK = b"777777"  # stands where the number of the poll goes: the leading digits of every counter
HIGHEST = 10_000_000


def template(connections: int) -> bytes:
    """The reply with MARK as the leading digits of all counters; each row's last digits are its own."""
    chance = random.Random(2)

    def own() -> int:
        return int(f"{MARK.decode()}{chance.randrange(HIGHEST):07}")

    rows = [
        {
            "pid": 1_000 + number % 50, "type": 0, "family": 0, "net_ns": 4_026_532_000 + number % 100, "direction": 2, "state": "open",
            "cookie": number + 1, "source": f"10.1.0.{number % 100}", "dest": f"10.2.{number % 50}.{number % 200}",
            "sport": 1_024 + number % 60_000, "dport": 443, "monotonic_sent_bytes": own(), "monotonic_recv_bytes": own(),
            "monotonic_retransmits": 3, "last_update_epoch": own(),
        }
        for number in range(connections)
    ]  # fmt: skip
    return msgspec.json.encode({"instance": "benchmark", "reply_id": "1", "connections": rows})


def serve(path: str, connections: int) -> None:
    """Answer whoever connects, one after the other, for ever."""
    listener = socket.socket(socket.AF_UNIX)
    body = template(connections)
    listener.bind(path)
    listener.listen()
    number = 100_000
    while True:
        client, _ = listener.accept()
        with client:
            number += 1
            client.recv(65_536)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            try:
                client.sendall(head.encode() + body.replace(MARK, str(number).encode()))
            except OSError:  # it went away
                continue


@contextmanager
def serving(path: str, connections: int) -> Iterator[None]:
    """The server as a child, ended at the end."""
    child = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.tracer_stub", path, str(connections)])
    try:
        while not Path(path).exists():
            if child.poll() is not None:
                raise RuntimeError(f"the server ended with {child.returncode}")
            time.sleep(0.05)
        yield
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
