"""The client of a tracer's socket: what is at its path, who may use it, who answers there, and what state it says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout
from cluster.sources.tracer_socket import TracerSocket
from tests.sources.peers import (
    BODY,
    SOON,
    Peer,
    keeps_open,
    tracer,
    unused_queue,
    writes,
)

pytestmark = pytest.mark.timeout(60)


def _nothing(path: Path) -> None:
    pass


def _dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))


def _datagram_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(path))


PLACES = {
    "absent": (_nothing, SourceAbsent, "absent", "no such socket; start one (`rayscope tracer"),
    "dead": (_dead_socket, SourceAbsent, "refused", "nobody listens on this socket; start one"),
    "dead datagram": (_datagram_socket, SourceAbsent, "refused", "nobody listens"),
    "plain file": (lambda path: path.write_bytes(BODY), SourceAbsent, "refused", "this is a plain file, not a unix socket"),
    "directory": (lambda path: path.mkdir(), SourceAbsent, "refused", "this is a directory, not a unix socket"),
    "pipe": (lambda path: os.mkfifo(path), SourceAbsent, "refused", "this is a device or pipe"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), SourceAbsent, "absent", "no such socket"),
    "loop of links": (lambda path: path.symlink_to(path), SourceError, "failed", "cannot connect"),
}


@pytest.mark.parametrize(("make", "kind", "state", "words"), PLACES.values(), ids=PLACES)
def test_says_what_is_at_the_path(tmp_path: Path, make: Any, kind: type[SourceError], state: str, words: str) -> None:
    path = tmp_path / "t.sock"
    make(path)
    source = tracer(path)
    with pytest.raises(SourceError) as caught:
        source.poll(None)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert source.status()["state"] == state


@pytest.mark.parametrize("path", ["", "a\0b", "/tmp/" + "x" * 200, "/dev/null/t.sock"], ids=["empty", "nul", "long", "below a file"])
def test_a_path_that_cannot_be_a_socket(path: str) -> None:
    with pytest.raises(SourceAbsent):
        TracerSocket(path, "x").poll(None)


def test_a_live_socket_of_another_kind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "t.sock"))
        with pytest.raises(SourceMalformed, match="another kind than stream"):
            tracer(tmp_path / "t.sock").poll(None)


def test_a_full_queue_is_waited_for_no_longer_than_the_timeout(tmp_path: Path) -> None:
    with unused_queue(tmp_path / "t.sock"), pytest.raises(SourceTimeout, match="its queue is full"):
        tracer(tmp_path / "t.sock", SOON).poll(None)


@contextmanager
def without_root() -> Iterator[None]:
    """As another user where we are root, since nothing is forbidden to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["t.sock", "."], ids=["socket", "directory"])
def test_a_socket_that_is_not_ours_to_use(tmp_path: Path, closed: str) -> None:
    with Peer(tmp_path / "t.sock", writes(BODY)) as peer:
        for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            if os.geteuid() == 0:
                parent.chmod(0o711)
        (tmp_path / closed).chmod(0o600 if closed == "t.sock" and os.geteuid() == 0 else 0o000)
        source = tracer(peer)
        with without_root(), pytest.raises(SourceError, match="not permitted; run as root") as caught:
            source.poll(None)
        (tmp_path / closed).chmod(0o700)
        assert type(caught.value) is SourceError
        assert source.status()["state"] == "denied"


def test_the_state_follows_what_happens(tmp_path: Path) -> None:
    source = tracer(tmp_path / "t.sock")
    assert source.status() == {"state": "new", "message": "", "since": 0.0, "polls": 0, "failures": 0}
    for _ in range(2):
        with pytest.raises(SourceAbsent):
            source.poll(None)
    absent = source.status()
    assert (absent["state"], absent["polls"], absent["failures"]) == ("absent", 2, 2)
    with Peer(tmp_path / "t.sock", writes(BODY)):
        source.poll(None)
        good = source.status()
        source.poll(None)
    assert (good["state"], good["message"], good["polls"], good["failures"]) == ("ok", "", 3, 2)
    assert good["since"] > absent["since"]
    assert source.status() == {**good, "polls": 4}, "since is when the state began, not the last poll"


def test_close_cuts_a_poll_short_and_a_later_one_works(tmp_path: Path) -> None:
    errors: list[SourceError] = []
    with Peer(tmp_path / "t.sock", keeps_open(b"")) as peer:
        source = tracer(peer, 1_000.0)

        def wait() -> None:
            try:
                source.poll(None)
            except SourceError as error:
                errors.append(error)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        assert peer.accepted.wait(10)
        source.close()
        waiting.join(30)
        assert len(errors) == 1
        peer.behave = writes(BODY)
        assert source.poll(None).body == BODY


SERVER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b'{"connections":null}')
    connection.close()
"""


@contextmanager
def server_process(path: Path) -> Iterator[int]:
    """A tracer of its own process; its pid."""
    with subprocess.Popen([sys.executable, "-c", SERVER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()
    path.unlink()


def test_a_restarted_tracer_is_another_peer(tmp_path: Path) -> None:
    source = tracer(tmp_path / "t.sock")
    peers = []
    for _ in range(2):
        with server_process(tmp_path / "t.sock") as pid:
            first, second = source.poll(None).peer, source.poll(None).peer
            assert first == second
            assert first.startswith(f"{pid}:")
            peers.append(first)
    assert peers[0] != peers[1]


ASK = "import sys; from cluster.sources.tracer_socket import TracerSocket; print(TracerSocket(sys.argv[1], 'x').poll(None).peer)"


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_a_peer_in_a_pid_namespace_that_is_not_seen(tmp_path: Path) -> None:
    peers = []
    for _ in range(2):
        with server_process(tmp_path / "t.sock"):
            command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", ASK, str(tmp_path / "t.sock")]
            peers.append([subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout for _ in range(2)])
    assert peers[0][0].startswith("socket:")
    assert peers[0][0] == peers[0][1]
    assert peers[0][0] != peers[1][0]
