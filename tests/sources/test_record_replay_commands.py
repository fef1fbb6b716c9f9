"""`rayscope record` and `rayscope replay` as processes: signals, a killed recorder, bad files."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from cluster.cli.main import main
from cluster.ports import RawReply
from cluster.sources.recording import Recorder, Recording
from cluster.sources.tracer_socket import TracerSocket
from tests.sources.commands import eventually, run, running
from tests.sources.peers import Peer, document, http, keeps_open, read_request, writes

pytestmark = pytest.mark.timeout(90)


class CountingTracer:
    """Numbers its replies and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []

    def behave(self, connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG002
        request = read_request(connection)
        if not request:
            return  # it was ended before it asked
        self.asked.append(parse_qs(urlsplit(request.split()[1].decode()).query))
        connection.sendall(http(document({"pid": 1}, instance="i", reply_id=f"reply {len(self.asked)}")))

    def was_asked(self, times: int) -> bool:
        return len(self.asked) >= times

    @property
    def acked(self) -> list[str]:
        return [query["ack"][0] for query in self.asked if "ack" in query]


def reply_ids(path: Path) -> list[str]:
    with Recording(path) as recording:
        return [json.loads(recording.read(number).body)["reply_id"] for number in range(len(recording))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_record_ends_cleanly_at_a_signal(tmp_path: Path, number: int) -> None:
    tracer = CountingTracer()
    arguments = ("record", str(tmp_path / "r"), "--socket", str(tmp_path / "t.sock"), "--interval", "20ms", "--json")
    with Peer(tmp_path / "t.sock", tracer.behave), running(tmp_path / "home", *arguments) as command:
        eventually(lambda: len(tracer.asked) >= 5)
        assert command.end(number) == 0
    ids = reply_ids(tmp_path / "r")
    summary = json.loads(command.out.read_text())
    assert (summary["replies"], summary["rows"], summary["failed_polls"]) == (len(ids), len(ids), 0)
    assert f"recorded {len(ids)} replies" in command.err.read_text()
    assert tracer.asked[0] == {"client_id": [f"rayscope-record-{socket.gethostname()}"]}
    assert tracer.acked == ids[: len(tracer.acked)], "each reply is acked by the next poll"


def test_what_a_killed_recorder_acked_is_in_the_file(tmp_path: Path) -> None:
    tracer = CountingTracer()
    arguments = ("record", str(tmp_path / "r"), "--socket", str(tmp_path / "t.sock"), "--interval", "1ms")
    with Peer(tmp_path / "t.sock", tracer.behave):
        for round_number in range(1, 4):
            with running(tmp_path / "home", *arguments) as command:
                eventually(partial(tracer.was_asked, len(tracer.asked) + 20))
                assert command.end(signal.SIGKILL) == -signal.SIGKILL
            assert set(tracer.acked) <= set(reply_ids(tmp_path / "r"))
            assert len(tracer.acked) >= 10 * round_number


def test_record_ends_at_once_though_the_tracer_is_silent(tmp_path: Path) -> None:
    arguments = ("--set", "tracer.timeout=86000", "record", str(tmp_path / "r"), "--socket", str(tmp_path / "t.sock"))
    with Peer(tmp_path / "t.sock", keeps_open(b"")) as peer, running(tmp_path / "home", *arguments) as command:
        assert peer.accepted.wait(20)
        assert command.end() == 0
        assert "recorded 0 replies" in command.err.read_text()


def test_record_waits_for_a_tracer_and_says_so_once(tmp_path: Path) -> None:
    arguments = ("record", str(tmp_path / "r"), "--socket", str(tmp_path / "t.sock"), "--interval", "10ms")
    with running(tmp_path / "home", *arguments) as command:
        command.said("no such socket; start one")
        with Peer(tmp_path / "t.sock", writes(b'{"connections":null}')):
            command.said("the tracer answers again")
            eventually(lambda: (tmp_path / "r").stat().st_size > 100)
        assert command.end() == 0
        assert command.err.read_text().count("no such socket") <= 2  # before, and after the tracer went


def test_record_that_got_nothing_fails(tmp_path: Path) -> None:
    result = run(tmp_path, "record", str(tmp_path / "r"), "--socket", str(tmp_path / "t.sock"), "--for", "200ms", "--json")
    assert result.returncode == 1
    assert "nothing was recorded: " in result.stderr
    assert json.loads(result.stdout)["replies"] == 0


def test_record_saves_what_is_no_json_too(tmp_path: Path) -> None:
    with Peer(tmp_path / "t.sock", writes(b'{"connections":[{]}')):
        result = run(tmp_path, "record", str(tmp_path / "r"), "--socket", str(tmp_path / "t.sock"), "--for", "200ms", "--json")
    assert result.returncode == 0
    summary = json.loads(result.stdout)
    assert summary["unreadable"] == summary["replies"] >= 1


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    with Recorder(tmp_path / "r") as recorder:
        for number in range(5):
            recorder.append(RawReply(document({"pid": number}, reply_id=str(number)), "1:2", 100.0 + number))
    return tmp_path / "r"


def test_replay_serves_a_recording_until_it_is_ended(tmp_path: Path, recorded: Path) -> None:
    path = tmp_path / "s.sock"
    with running(tmp_path / "home", "replay", str(recorded), "--socket", str(path), "--speed", "max", "--json") as command:
        command.said("serving 5 replies over 4 s")
        source = TracerSocket(str(path), "x")
        assert [json.loads(source.poll(None).body)["reply_id"] for _ in range(7)] == ["0", "1", "2", "3", "4", "4", "4"]
        assert command.end() == 0
    assert json.loads(command.out.read_text()) == {
        "file": str(recorded), "replies": 5, "seconds": 4.0, "first_at": 100.0, "damaged": 0, "lost_tail_bytes": 0, "socket": str(path),
    }  # fmt: skip
    assert "answered 7 requests" in command.err.read_text()
    assert not path.exists()


def test_replay_says_what_a_cut_file_lost(tmp_path: Path, recorded: Path) -> None:
    recorded.write_bytes(recorded.read_bytes()[:-3])
    with running(tmp_path / "home", "replay", str(recorded), "--socket", str(tmp_path / "s.sock")) as command:
        command.said("serving 4 replies")
        assert re.search(r"0 damaged places passed over, \d+ bytes at the end left out", command.err.read_text())
        assert command.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("replay", "{tmp}/none"), 1, "none: no such file; `rayscope record"),
        (("replay", "{tmp}/text"), 1, "text: not a recording"),
        (("replay", "{tmp}/r", "--speed", "0"), 2, "'0' is no speed"),
        (("replay", "{tmp}/r", "--speed", "nan"), 2, "'nan' is no speed"),
        (("replay", "{tmp}/r", "--socket", "{tmp}/text"), 1, "something else than a socket is there"),
        (("record", "{tmp}/text", "--for", "1s"), 1, "text: not a recording"),
        (("record", "{tmp}/nowhere/r", "--for", "1s"), 1, "cannot be written: No such file or directory"),
        (("record", "{tmp}/new", "--interval", "0"), 2, "is no duration"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, recorded: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    (recorded.parent / "text").write_text("hello world, no recording at all")
    result = CliRunner(env={"HOME": str(tmp_path), "XDG_CONFIG_HOME": None}).invoke(
        main, [argument.format(tmp=tmp_path) for argument in arguments]
    )
    assert (result.exit_code, words in result.stderr) == (code, True), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
