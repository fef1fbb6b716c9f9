"""The socket file, the life of the process, and what strange requests get."""

from __future__ import annotations

import grp
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.tracer.http import HEAD_LIMIT, ROUTES
from cluster.tracer.server import EXCHANGES_LIMIT, REQUEST_SECONDS
from tests.tracer.serving import DEADLINE, Served

COMMAND = [sys.executable, "-m", "cluster", "tracer", "--socket"]


def refused(path: Path, *options: str) -> str:
    """What the tracer says when it does not start."""
    done = subprocess.run([*COMMAND, str(path), *options], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_socket_is_of_mode_0660_and_goes_away_with_the_tracer(place: Path) -> None:
    with Served(place / "mode.sock") as served:
        status = served.path.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o660
    assert served.process.returncode == 0
    assert not served.path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(place: Path, number: signal.Signals) -> None:
    with Served(place / "signal.sock") as served:
        served.reply()
        served.process.send_signal(number)
        assert served.process.wait(DEADLINE) == 0
        assert not served.path.exists()


def test_a_stale_socket_is_replaced(place: Path) -> None:
    path = place / "stale.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with Served(path) as served:
        assert served.get("/status")[0] == 200


def test_a_socket_that_is_served_is_refused(served: Served) -> None:
    assert "is served by another process" in refused(served.path)
    assert served.get("/status")[0] == 200


def test_anything_else_at_the_path_is_refused_and_left_alone(place: Path) -> None:
    path = place / "a-file"
    path.write_text("precious")
    assert "is not a socket" in refused(path)
    assert path.read_text() == "precious"
    link = place / "a-link"
    link.symlink_to(path)
    assert "is not a socket" in refused(link)
    assert "cannot serve on" in refused(place / "a-file" / "beneath")
    assert "too long" in refused(place / ("x" * 150))


def test_one_that_takes_over_the_name_keeps_its_file(place: Path) -> None:
    path = place / "taken.sock"
    with Served(path) as served:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(DEADLINE) == 0
            assert path.exists()


def raw(served: Served, *pieces: bytes) -> bytes:
    """All that comes back for these bytes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(str(served.path))
        for piece in pieces:
            sock.sendall(piece)
        answer = b""
        while data := sock.recv(65_536):
            answer += data
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /status HTTP/1.0\r\n\r\n", 200),
        (b"GET /debug/stats?x=1 HTTP/1.1\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"POST /connections HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET //[x HTTP/1.1\r\n\r\n", 400),
        (b"GET /connections?client_id=" + b"x" * 200 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /status?" + b"a=1&" * 50 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * (HEAD_LIMIT + 100), 431),
    ],
)
def test_each_request_gets_its_status(served: Served, request_: bytes, status: int) -> None:
    assert raw(served, request_).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_request_in_pieces(served: Served) -> None:
    assert raw(served, b"GET /sta", b"tus HT", b"TP/1.1\r\nA: b\r", b"\n\r", b"\n").startswith(b"HTTP/1.1 200 ")


def test_clients_that_never_ask_do_not_keep_others_out(served: Served) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(EXCHANGES_LIMIT)]
    try:
        for sock in idle:
            sock.connect(str(served.path))
        start = time.monotonic()
        assert served.get("/status")[0] == 200
        assert time.monotonic() - start < 2 * REQUEST_SECONDS + DEADLINE
        assert all(sock.recv(1) == b"" for sock in idle)
    finally:
        for sock in idle:
            sock.close()


def test_status_says_what_it_is_and_what_is_missing(served: Served) -> None:
    status, body = served.get("/status")
    own = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116
    assert status == 200
    assert own in body["namespaces"]
    assert served.reply()["instance"].startswith(body["instance"] + ".")
    assert body["version"]
    assert all(lack.keys() == {"what", "why", "remedy"} for lack in body["missing"])
    assert set(ROUTES) == {"/status", "/connections", "/debug/stats"}


NOBODY = 65_534
# Nobody, who may read files: the interpreter may be where only root can.
AS_NOBODY: tuple[str, ...] = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all,+dac_read_search")
AS_NOBODY += ("--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becoming another user needs root and setpriv (util-linux)"
)
def test_without_root_it_serves_its_own_namespace_and_says_what_is_missing(place: Path) -> None:
    directory = place / "nobody"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    with Served(directory / "t.sock", prefix=AS_NOBODY) as served:
        body = served.get("/status")[1]
        assert {"other network namespaces", "the owners of other users' sockets"} <= {lack["what"] for lack in body["missing"]}
        assert len(body["namespaces"]) == 1
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(b"x" * 10)
            rows = served.reply()["connections"]
            (row,) = [row for row in rows if row["sport"] == client.getsockname()[1]]
            assert (row["monotonic_sent_bytes"], row["pid"]) == (10, 0)


def test_another_tracer_is_another_instance(place: Path, served: Served) -> None:
    with Served(place / "second.sock") as second:
        assert second.get("/status")[1]["instance"] != served.get("/status")[1]["instance"]


def test_a_wrong_proc_is_refused(place: Path) -> None:
    assert "--proc must name" in refused(place / "proc.sock", "--proc", str(place))


def test_the_tracer_loads_little() -> None:
    heavy = {"ray", "pydantic", "msgspec", "rich", "asyncio", "yaml"}
    code = f"import sys, cluster.cli.main, cluster.cli.tracer, cluster.tracer.server; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_group_may_be_let_in_and_an_unknown_one_is_refused(place: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    with Served(place / "group.sock", "--group", group) as served:
        assert served.path.stat().st_gid == os.getgid()
    assert "there is no such group" in refused(place / "group.sock", "--group", "no-such-group")


def test_without_a_path_it_serves_where_the_settings_say(place: Path) -> None:
    runtime = place / "runtime"
    runtime.mkdir(mode=0o700)
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    process = subprocess.Popen(COMMAND[:-1], env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert str(runtime / "rayscope" / "tracer.sock") in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
