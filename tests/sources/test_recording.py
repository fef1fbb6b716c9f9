"""The file of recorded replies: whole after any crash, and refused with reasons where it is not one."""

from __future__ import annotations

import os
import resource
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.errors import RayscopeError, SourceAbsent, SourceError, SourceMalformed
from cluster.ports import RawReply
from cluster.sources.recording import FRONT, HEAD, MAGIC, MARKER, Recorder, Recording

pytestmark = pytest.mark.timeout(60)
REPLIES = [
    RawReply(b'{"connections":null}', "12:345", 1_700_000_000.25),
    RawReply(b'{"connections":[{"pid":1}]}', "12:345", 1_700_000_001.5),
    RawReply(b"not JSON at all \xff\x00" + MARKER, "", 1_700_000_002.0),
]


def write(path: Path, replies: list[RawReply] = REPLIES) -> bytes:
    with Recorder(path) as recorder:
        for reply in replies:
            recorder.append(reply)
    return path.read_bytes()


def read(path: Path) -> list[RawReply]:
    with Recording(path) as recording:
        return [recording.read(number) for number in range(len(recording))]


def test_gives_back_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "r")
    assert read(tmp_path / "r") == REPLIES


@given(st.lists(st.builds(RawReply, st.binary(max_size=300), st.text(max_size=50), st.floats(allow_nan=False)), max_size=5))
def test_gives_back_any_reply(tmp_path_factory: pytest.TempPathFactory, replies: list[RawReply]) -> None:
    path = tmp_path_factory.mktemp("any") / "r"
    write(path, replies)
    assert read(path) == replies


def test_the_format_is_as_documented(tmp_path: Path) -> None:
    payload = FRONT.pack(5.0, 3) + b"1:2" + zlib.compress(b"{}")
    assert MAGIC == b"rayscope recording 1\n"
    (tmp_path / "r").write_bytes(MAGIC + HEAD.pack(b"\xabRR\n", len(payload), zlib.crc32(payload)) + payload)
    assert read(tmp_path / "r") == [RawReply(b"{}", "1:2", 5.0)]


def test_continues_a_recording(tmp_path: Path) -> None:
    write(tmp_path / "r", REPLIES[:2])
    with Recorder(tmp_path / "r") as recorder:
        assert (recorder.kept, recorder.lost_tail) == (2, 0)
        recorder.append(REPLIES[2])
    assert read(tmp_path / "r") == REPLIES


def test_a_cut_anywhere_loses_only_the_last_record_and_writing_goes_on(tmp_path: Path) -> None:
    data = write(tmp_path / "whole")
    with Recording(tmp_path / "whole") as recording:
        ends = [len(MAGIC), *(entry.offset + entry.length for entry in recording.entries)]
    for size in range(len(data)):
        path = tmp_path / "cut"
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends[1:])
        if size >= len(MAGIC):
            with Recording(path) as recording:
                assert (len(recording), recording.lost_tail, recording.damaged) == (whole, size - ends[whole], 0)
        with Recorder(path) as recorder:
            assert recorder.kept == whole
            recorder.append(REPLIES[2])
        assert read(path) == [*REPLIES[:whole], REPLIES[2]]


def test_a_tail_of_zeros_as_a_power_cut_leaves_it(tmp_path: Path) -> None:
    data = write(tmp_path / "r")
    (tmp_path / "r").write_bytes(data + bytes(5_000))
    with Recording(tmp_path / "r") as recording:
        assert (len(recording), recording.damaged, recording.lost_tail) == (3, 0, 5_000)


def test_damage_costs_the_record_that_it_touches(tmp_path: Path) -> None:
    data = write(tmp_path / "r")
    with Recording(tmp_path / "r") as recording:
        ends = [entry.offset + entry.length for entry in recording.entries]
    for place in range(len(MAGIC), len(data)):
        (tmp_path / "r").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        touched = sum(end <= place for end in ends)
        with Recording(tmp_path / "r") as recording:
            assert recording.damaged + (recording.lost_tail > 0) == 1
        assert read(tmp_path / "r") == REPLIES[:touched] + REPLIES[touched + 1 :]


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_cost_no_more_than_a_source_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, begins_well: bool) -> None:
    path = tmp_path_factory.mktemp("bytes") / "r"
    path.write_bytes(MAGIC + data if begins_well else data)
    with suppress(SourceMalformed):
        read(path)


def test_a_record_that_inflates_without_bound_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "r", [RawReply(bytes(10_000_000), "", 1.0), REPLIES[0]])
    with Recording(tmp_path / "r", limit=1_000_000) as recording:
        with pytest.raises(SourceMalformed, match="larger than 1000000 bytes"):
            recording.read(0)
        assert recording.read(1) == REPLIES[0]


@pytest.mark.parametrize(
    "payload",
    [
        FRONT.pack(1.0, 0) + b"no zlib",
        FRONT.pack(1.0, 0),
        FRONT.pack(1.0, 2) + b"\xff\xfe",
        FRONT.pack(1.0, 0) + zlib.compress(b"{}" * 99)[:-9],
    ],
    ids=["no zlib", "no body", "peer not UTF-8", "body cut"],
)
def test_a_record_with_a_good_sum_and_a_bad_inside(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "r").write_bytes(MAGIC + HEAD.pack(MARKER, len(payload), zlib.crc32(payload)) + payload)
    with Recording(tmp_path / "r") as recording, pytest.raises(SourceMalformed, match="reply 0 at byte 33 is unusable"):
        recording.read(0)


def test_a_file_of_nothing_but_damage_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(MAGIC + (MARKER + b"damage  ") * 1_000)
    with pytest.raises(SourceMalformed, match="more than 100 damaged places"):
        Recording(tmp_path / "r")


BAD_FILES = {
    "text": (b"hello world, this is no recording", "not a recording of `rayscope record`: it begins with b'hello"),
    "empty": (b"", "not a recording"),
    "another version": (b"rayscope recording 2\nwhatever", "a recording of another version"),
}


@pytest.mark.parametrize(("data", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_refuses_another_file_and_leaves_it(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "r"
    path.write_bytes(data)
    with pytest.raises(SourceMalformed) as caught:
        Recording(path)
    assert words in str(caught.value)
    if data:
        with pytest.raises(SourceMalformed):
            Recorder(path)
        assert path.read_bytes() == data


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceAbsent, match="no such file; `rayscope record"):
        Recording(tmp_path / "nothing")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SourceMalformed, match="not a plain file"):
            Recording(path)
        with pytest.raises(RayscopeError):
            Recorder(path)
    with pytest.raises(SourceError):
        Recording("a\0b")
    with pytest.raises(RayscopeError, match="cannot be written: No such file or directory"):
        Recorder(tmp_path / "nowhere" / "r")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Recorder(tmp_path / "r"), pytest.raises(RayscopeError, match="another `rayscope record` writes to it"):
        Recorder(tmp_path / "r")
    Recorder(tmp_path / "r").close()


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files may grow no further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_harms_nothing_that_is_stored(tmp_path: Path) -> None:
    with Recorder(tmp_path / "r") as recorder:
        recorder.append(REPLIES[0])
        with disk_of(recorder.end + 20), pytest.raises(RayscopeError, match="what it holds already is whole; free space"):
            recorder.append(REPLIES[1])
        assert read(tmp_path / "r") == REPLIES[:1]
        recorder.append(REPLIES[2])
    with Recording(tmp_path / "r") as recording:
        assert (len(recording), recording.damaged, recording.lost_tail) == (2, 0, 0)
