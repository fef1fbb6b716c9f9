"""Our real tracer, recorded under real traffic: the recording holds every byte, and replays to the same totals every time."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cluster.core.errors import SourceError
from cluster.ports import ConnectionSource
from cluster.sources.recording import Recording
from cluster.sources.replay import ReplaySource
from cluster.sources.tracer_socket import TracerSocket
from tests.sources.commands import Running, eventually, running
from tests.sources.core_path import CorePath
from tests.traffic import Traffic, Truth

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="the kernel tells only root of sockets that closed between two polls"),
]
Totals = dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth, int]:
    """A recording, what passed while it was made, and the port that tells the test's own connections."""
    tmp = tmp_path_factory.mktemp("recorded")
    file, path = tmp / "r", str(tmp / "t.sock")
    with running(tmp / "tracer", "tracer", "--socket", path) as tracer:
        eventually(lambda: answers(path, tracer))
        with running(tmp / "record", "record", str(file), "--socket", path, "--interval", "50ms") as recorder:
            recorder.said("recording")
            eventually(lambda: count(file) > 0)  # a tracer tells a client what closes after its first look
            with Traffic(7) as traffic:
                eventually(lambda: len(traffic.truth.bytes) >= 200)
                traffic.stop()
                truth, port = traffic.truth, traffic.port
                eventually(lambda: sent_of(tally(ReplaySource(file), count(file), port)) == true_sent(truth))
                assert recorder.end() == 0
    return file, truth, port


def answers(path: str, tracer: Running) -> bool:
    assert tracer.process.poll() is None, tracer.err.read_text()
    try:
        return bool(TracerSocket(path, "probe").poll(None).body)
    except SourceError:
        return False


def count(file: Path) -> int:
    with Recording(file) as recording:
        return len(recording)


def tally(source: ConnectionSource, polls: int, port: int) -> Totals:
    """Totals by seed key with nothing of ours: the last values of each socket, summed."""
    last: dict[tuple[str, int], tuple[int, int]] = {}
    for _ in range(polls):
        for row in json.loads(source.poll(None).body)["connections"] or ():
            if port in (row["sport"], row["dport"]):
                key = f"{row['source']}-{row['dest']}-{row['sport']}-{row['dport']}"
                last[key, row["cookie"]] = row["monotonic_sent_bytes"], row["monotonic_recv_bytes"]
    source.close()
    return summed((key, *values) for (key, _), values in last.items())


def summed(values: Iterable[tuple[str, int, int]]) -> Totals:
    """By seed key; connections that never carried a byte are none of the traffic's."""
    totals: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for key, sent, received in values:
        totals[key] = totals[key][0] + sent, totals[key][1] + received
    return {key: total for key, total in totals.items() if total != (0, 0)}


def through_core(source: ConnectionSource, polls: int) -> list[dict[str, Any]]:
    core = CorePath()
    core.read(source, polls)
    source.close()
    return core.transactions()


def sent_of(totals: Totals) -> dict[str, int]:
    """Sent payload is exact in every case; received may be one higher where a FIN is not proven."""
    return {key: sent for key, (sent, _) in totals.items()}


def true_sent(truth: Truth) -> dict[str, int]:
    return {key: sent for key, (sent, _) in truth.bytes.items()}


def test_the_recording_holds_every_byte(recorded: tuple[Path, Truth, int]) -> None:
    file, truth, port = recorded
    totals = tally(ReplaySource(file), count(file), port)
    assert sent_of(totals) == true_sent(truth)
    assert all(totals[key][1] - received in (0, 1) for key, (_, received) in truth.bytes.items())


def test_replays_through_the_core_to_the_same_totals_every_time(recorded: tuple[Path, Truth, int]) -> None:
    file, truth, port = recorded
    polls = count(file) + 3  # beyond the end: the last state stays
    runs = [through_core(ReplaySource(file), polls) for _ in range(2)]
    assert runs[0] == runs[1]
    ours = [row for row in runs[0] if port in (row["sport"], row["dport"])]
    totals = summed((row["key"], row["total_sent_bytes"], row["total_recv_bytes"]) for row in ours)
    assert sent_of(totals) == true_sent(truth)


def test_the_command_serves_the_same_every_time(recorded: tuple[Path, Truth, int], tmp_path: Path) -> None:
    file, _, port = recorded
    path, polls = str(tmp_path / "s.sock"), count(file) + 3
    expected = tally(ReplaySource(file), polls, port)
    with running(tmp_path / "home", "replay", str(file), "--socket", path, "--speed", "max") as command:
        command.said("serving")
        assert [tally(TracerSocket(path, client), polls, port) for client in ("one", "two")] == [expected] * 2
        assert ends(through_core(TracerSocket(path, "three"), polls)) == ends(through_core(ReplaySource(file), polls))
        assert command.end() == 0


def ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the times of receipt, which over a socket are those of the replay."""
    return [{name: value for name, value in row.items() if name not in ("first_seen", "last_seen")} for row in rows]
