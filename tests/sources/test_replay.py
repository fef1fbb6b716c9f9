"""Replaying: every reply once and in order, the last state kept, over HTTP as from the file."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.cli.record import read_head
from cluster.core.errors import SourceError, SourceMalformed
from cluster.ports import ConnectionSource, RawReply
from cluster.sources.recording import Recorder, Recording
from cluster.sources.replay import Cursor, ReplaySource, with_instance, without_closed
from cluster.sources.replay_server import CLIENTS_LIMIT, ReplayServer
from cluster.sources.tracer_socket import TracerSocket
from cluster.sources.unix_http import get
from tests.sources.peers import document

pytestmark = pytest.mark.timeout(60)
OPEN = {"pid": 1, "cookie": 5, "state": "open", "extra": [1, {"a": None}]}
CLOSED = {"pid": 2, "cookie": 6, "state": "closed", "close_id": 3}
OURS = [
    RawReply(document(OPEN, instance="i1", reply_id="1"), "10:1", 100.0),
    RawReply(document(OPEN, CLOSED, instance="i1", reply_id="2"), "10:1", 101.0),
    RawReply(document(CLOSED, OPEN, instance="i1", reply_id="3", listeners=[]), "10:1", 104.0),
]
OTHERS = [
    RawReply(b'{"connections":null}', "7:1", 100.0),
    RawReply(document({"pid": 1}), "7:1", 101.0),
    RawReply(document({"pid": 1}, {"pid": 2}), "8:9", 102.0),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "r"


def write(path: Path, replies: list[RawReply]) -> None:
    with Recorder(path) as recorder:
        for reply in replies:
            recorder.append(reply)


@contextmanager
def serving(file: Path, socket_path: Path, speed: float | None = None, loop: bool = False) -> Iterator[ReplayServer]:
    with Recording(file) as recording, ReplayServer(str(socket_path), recording, speed, loop) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def bodies(source: ConnectionSource, count: int) -> list[Any]:
    return [json.loads(source.poll(None).body) for _ in range(count)]


def test_each_reply_once_then_the_last_without_closed_rows(file: Path) -> None:
    write(file, OURS)
    source = ReplaySource(file)
    assert [source.poll("2") for _ in range(3)] == OURS
    assert source.ended
    last = source.poll(None)
    assert json.loads(last.body) == {"connections": [OPEN], "instance": "i1", "reply_id": "3", "listeners": []}
    assert (last.peer, last.received_at) == ("10:1", 104.0)
    assert source.poll(None) == last
    source.close()
    assert source.poll(None) == OURS[0], "after close it begins anew"
    source.close()


def test_replies_without_a_state_are_repeated_as_they_are(file: Path) -> None:
    write(file, OTHERS)
    source = ReplaySource(file)
    assert [source.poll(None) for _ in range(5)] == [*OTHERS, OTHERS[2], OTHERS[2]]
    source.close()


UNREADABLE = {
    "cut": b'{"connections":[{"state":"closed"',
    "text": b'"closed"',
    "no list": b'{"connections":"closed"}',
    "deep": b'{"connections":[%s],"a":"closed"}' % (b"[" * 100_000 + b"]" * 100_000),
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_repeated_as_it_is(body: bytes) -> None:
    reply = RawReply(body, "", 0.0)
    assert read_head(body) is None
    assert without_closed(reply).body == body
    assert with_instance(reply, lambda found: found).body == body


def test_odd_rows_stay() -> None:
    rows: list[Any] = [{"state": 5}, {}, 7, None, {"state": "closed"}, {"state": "open", "why": "closed"}]
    reply = without_closed(RawReply(json.dumps({"connections": rows}).encode(), "", 0.0))
    assert json.loads(reply.body)["connections"] == [{"state": 5}, {}, 7, None, {"state": "open", "why": "closed"}]


def test_a_loop_is_another_tracer_instance_each_round(file: Path) -> None:
    write(file, OURS[:2])
    source = ReplaySource(file, loop=True)
    rounds = [source.poll(None) for _ in range(6)]
    assert [json.loads(reply.body)["instance"] for reply in rounds] == ["i1", "i1", "i1#2", "i1#2", "i1#3", "i1#3"]
    assert [json.loads(reply.body)["connections"] for reply in rounds] == [[OPEN], [OPEN, CLOSED]] * 3
    assert [reply.peer for reply in rounds] == ["10:1", "10:1", "10:1#2", "10:1#2", "10:1#3", "10:1#3"]
    assert not source.ended
    source.close()


def test_an_empty_recording_is_refused(file: Path, tmp_path: Path) -> None:
    write(file, [])
    with pytest.raises(SourceMalformed, match="holds no reply"):
        ReplaySource(file).poll(None)
    with Recording(file) as recording, pytest.raises(SourceMalformed, match="holds no reply"):
        ReplayServer(str(tmp_path / "s.sock"), recording)
    assert not (tmp_path / "s.sock").exists()


def test_at_a_speed_replies_come_as_time_passes_and_none_is_passed_over(file: Path) -> None:
    write(file, OURS)  # at 0 s, 1 s and 4 s
    now = [50.0]
    with Recording(file) as recording:
        cursor = Cursor(recording, speed=2.0, clock=lambda: now[0])

        def ids_at(second: float, count: int) -> list[tuple[str, int]]:
            now[0] = 50.0 + second
            return [(found["reply_id"], len(found["connections"])) for found in (json.loads(cursor.next().body) for _ in range(count))]

        assert ids_at(0.0, 2) == [("1", 1), ("1", 1)]
        assert ids_at(0.49, 1) == [("1", 1)]
        assert ids_at(0.5, 2) == [("2", 2), ("2", 1)]
        assert ids_at(99.0, 2) == [("3", 2), ("3", 1)]
        late = Cursor(recording, speed=2.0, clock=lambda: now[0])
        assert json.loads(late.next().body)["reply_id"] == "1"
        now[0] += 99.0
        assert [json.loads(late.next().body)["reply_id"] for _ in range(2)] == ["2", "3"], "a late reader gets each, in order"


def test_a_clock_set_back_while_recording_costs_no_time(file: Path) -> None:
    write(file, [RawReply(b"{}", "", at) for at in (100.0, 50.0, 51.0)])
    now = [0.0]
    with Recording(file) as recording:
        cursor = Cursor(recording, speed=1.0, clock=lambda: now[0])
        assert [cursor.next().received_at for _ in range(2)] == [100.0, 50.0]
        now[0] = 1.0
        assert cursor.next().received_at == 51.0


def test_over_http_it_is_as_from_the_file(file: Path, tmp_path: Path) -> None:
    write(file, OURS)
    direct = ReplaySource(file)
    with serving(file, tmp_path / "s.sock"):
        served = TracerSocket(str(tmp_path / "s.sock"), "x")
        assert bodies(served, 5) == bodies(direct, 5)
    direct.close()


def test_a_recorded_restart_is_seen_over_http_too(file: Path, tmp_path: Path) -> None:
    write(file, OTHERS)
    with serving(file, tmp_path / "s.sock"):
        found = bodies(TracerSocket(str(tmp_path / "s.sock"), "x"), 4)
    assert [reply["instance"] for reply in found] == ["7:1", "7:1", "8:9", "8:9"]
    assert [reply["connections"] for reply in found] == [None, [{"pid": 1}], [{"pid": 1}, {"pid": 2}], [{"pid": 1}, {"pid": 2}]]


def test_each_client_has_its_own_place(file: Path, tmp_path: Path) -> None:
    write(file, OURS)
    with serving(file, tmp_path / "s.sock") as server:
        first, second = (TracerSocket(str(tmp_path / "s.sock"), name) for name in "ab")
        assert [reply["reply_id"] for reply in bodies(first, 2)] == ["1", "2"]
        assert [reply["reply_id"] for reply in bodies(second, 2)] == ["1", "2"]
        assert [reply["reply_id"] for reply in bodies(TracerSocket(str(tmp_path / "s.sock"), "a"), 1)] == ["3"], "over connections"
        for number in range(CLIENTS_LIMIT):
            server.connections(f"passing {number}")
        assert bodies(first, 1)[0]["reply_id"] == "1", "forgotten: the clients that are kept are bounded"


def test_the_other_paths_are_a_tracers(file: Path, tmp_path: Path) -> None:
    write(file, OURS)
    path = str(tmp_path / "s.sock")
    with serving(file, tmp_path / "s.sock"):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o660
        assert get(path, "/status", 5, 100) == b""
        assert json.loads(get(path, "/debug/stats", 5, 1000))["replay"]["replies"] == 3
        with pytest.raises(SourceError, match="HTTP 404"):
            get(path, "/elsewhere", 5, 100)
    assert not Path(path).exists()


def test_takes_only_a_path_that_is_free(file: Path, tmp_path: Path) -> None:
    write(file, OURS)
    path = tmp_path / "s.sock"
    with Recording(file) as recording:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        ReplayServer(str(path), recording).server_close()
        with serving(file, path), pytest.raises(SourceError, match="a tracer serves there already"):
            ReplayServer(str(path), recording)
        path.write_text("mine")
        with pytest.raises(SourceError, match="something else than a socket"):
            ReplayServer(str(path), recording)
        assert path.read_text() == "mine"
        for nowhere in (tmp_path / "nowhere" / "s.sock", tmp_path / ("x" * 120)):
            with pytest.raises(SourceError, match="cannot serve there"):
                ReplayServer(str(nowhere), recording)
