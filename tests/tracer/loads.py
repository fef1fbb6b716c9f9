"""Many connections, from processes of their own: one has at most 20,000 file descriptors here, and the test has other things to do.

`python -m tests.tracer.loads churn COUNT` opens and closes COUNT connections one after the other, each with its own byte counts; it
prints the server's port, the clients' ports and the seconds that it took. `... hold COUNT` opens COUNT, prints the server's port, and holds
them until its input ends.
"""

from __future__ import annotations

import socket
import sys
import time


def sizes(number: int) -> tuple[int, int]:
    """What the client and the server of connection `number` send, in bytes."""
    return number % 997 + 1, number % 1_009 * 3


def churn(count: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        address = server.getsockname()
        print(address[1], flush=True)
        start = time.monotonic()
        for number in range(count):
            out, back = sizes(number)
            with socket.create_connection(address) as client:
                near, _ = server.accept()
                with near:
                    client.sendall(b"x" * out)
                    near.sendall(b"y" * back)
                    exhaust(near, out)
                    exhaust(client, back)
                    print(client.getsockname()[1])
                    if number % 2:  # either side is the first to close
                        client.close()
        print(f"{time.monotonic() - start:.3f}", flush=True)


def exhaust(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(size))


def hold(count: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        held = []
        for _ in range(count):
            held.append(socket.create_connection(server.getsockname()))
            held.append(server.accept()[0])
        print(server.getsockname()[1], flush=True)
        sys.stdin.read()
        for sock in held:
            sock.close()


if __name__ == "__main__":
    {"churn": churn, "hold": hold}[sys.argv[1]](int(sys.argv[2]))
