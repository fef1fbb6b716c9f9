"""The tracer's journal as a file: what is read is what was written, or less, whatever befell the file."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.tracer import journal as module
from cluster.tracer.journal import Journal
from cluster.tracer.rows import Rows, new_rows
from cluster.tracer.state import BEAT_AT, COUNTS, EVENTS, HEAD, KeptClient, Meta, State, Unusable, contents, packed, record, unpacked
from cluster.tracer.tracer import Tracer, boot_id

BOOT = "this-boot"


def some(*keys: int) -> Rows:
    rows = new_rows(len(keys))
    rows["key"] = rows["sent"] = keys
    return rows


def state(instance: str = "i", boot: str = BOOT) -> State:
    clients = {"one": KeptClient(1.5, 2, 3, 4, 5), "strange \U0001f600": KeptClient(0.0, 0, 0, 1, 0)}
    meta = Meta(boot, 0, instance, 9, 1, 7, clients, [(10.5, 11.5)])
    return State(meta, some(1, 2), some(3), some(4, 5, 6), np.array([(1, 2, 3)], COUNTS), np.array([7], np.uint64), some(8), 99.0)


def file_of(one: State, *events: Rows) -> bytes:
    more = [record(EVENTS, part) + part for part in map(contents, events)]
    return b"".join([*map(bytes, packed(one)), *more])


def same(one: State, other: State) -> bool:
    arrays = ("open", "heard", "closed", "counted", "vanished")
    return one.meta == other.meta and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "t.sock"


@pytest.fixture
def journal(socket: Path) -> Iterator[Journal]:
    made = Journal(socket)
    yield made
    made.close()


def files(socket: Path) -> list[Path]:
    return sorted(socket.parent.iterdir())


def test_what_was_written_is_read_with_the_events_since(socket: Path, journal: Journal) -> None:
    for instance in ("first", "second", "third"):
        journal.write(state(instance))
        journal.append(some(10, 11))
        journal.append(some(12))
    journal.beat(123.5)
    journal.close()
    (path,) = files(socket)  # the last one alone
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = Journal(socket).read(BOOT)
    assert found is not None
    assert (found.meta.instance, found.beat, found.events["key"].tolist()) == ("third", 123.5, [8, 10, 11, 12])
    journal.write(state("fourth"))  # after a read, as after any other
    assert [one.name for one in files(socket)] == ["t.sock.journal-a"]


def test_of_two_whole_files_the_later_one_counts(socket: Path, journal: Journal) -> None:
    journal.write(state("earlier"))
    (path,) = files(socket)
    kept = path.read_bytes()
    journal.write(state("later"))
    path.write_bytes(kept)  # as if the kill had come before it was removed
    journal.close()
    found = Journal(socket).read(BOOT)
    assert found is not None
    assert found.meta.instance == "later"


def test_a_kill_at_any_byte_costs_the_event_that_was_being_written_at_most() -> None:
    whole = state()
    ends = [len(file_of(whole, *(some(20 + n) for n in range(count)))) for count in range(4)]
    own = len(bytes(packed(whole)[-1])) + len(bytes(packed(whole)[-2]))  # the events that came with the state
    data = file_of(whole, *(some(20 + n) for n in range(3)))
    for cut in range(len(data) + 1):
        if cut < ends[0] - own:
            with pytest.raises(Unusable, match="cut short"):
                unpacked(data[:cut], BOOT)
            continue
        found = unpacked(data[:cut], BOOT)
        assert same(found, whole)
        assert found.events["key"].tolist() == [8, 20, 21, 22][: sum(cut >= end for end in ends)]


def test_a_changed_byte_is_never_taken_for_data() -> None:
    whole = state()
    data = file_of(whole, some(20), some(21))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x41
        try:
            found = unpacked(bytes(changed), BOOT)
        except Unusable:
            continue
        assert same(found, whole)
        assert found.events["key"].tolist() in ([8, 20, 21], [8, 20], [8], [])
        assert len(found.events) < 3 or BEAT_AT <= place < HEAD.size


@pytest.mark.parametrize("size", [0, 1, 31, 32, 100, 10_000])
def test_garbage_is_refused(size: int) -> None:
    for data in (bytes(size), os.urandom(size), b"rayscope journal" + os.urandom(size)):
        with pytest.raises(Unusable):
            unpacked(data, BOOT)


def test_another_boot_and_another_version_are_refused_and_counted(socket: Path) -> None:
    data = file_of(state(boot="yesterday"))
    a, b = Journal(socket).paths
    a.write_bytes(data)
    b.write_bytes(data[:16] + b"\x09" + data[17:])
    journal = Journal(socket)
    assert journal.read(BOOT) is None
    assert journal.refused == {"of another boot": 1, "of another version": 1}
    assert {lack["why"] for lack in journal.lacks()} == {
        "its journal could not be used: of another boot",
        "its journal could not be used: of another version",
    }


def test_what_is_no_file_of_ours_is_neither_followed_nor_waited_for(socket: Path, tmp_path: Path) -> None:
    a, b = Journal(socket).paths
    target = tmp_path / "precious"
    target.write_bytes(file_of(state()))
    a.symlink_to(target)
    os.mkfifo(b)
    journal = Journal(socket)
    assert journal.read(BOOT) is None
    assert sum(journal.refused.values()) == 2
    journal.write(state())
    journal.close()
    assert target.read_bytes() == file_of(state())
    assert not a.is_symlink()


def test_a_journal_that_another_tracer_writes_is_left_alone(socket: Path, journal: Journal) -> None:
    journal.write(state("living"))
    other = Journal(socket)
    assert other.read(BOOT) is None
    other.write(state("other"))
    other.append(some(1))
    other.drop()
    assert "in use by another tracer" in other.lacks()[0]["why"]
    journal.close()
    found = Journal(socket).read(BOOT)
    assert found is not None
    assert (found.meta.instance, found.events["key"].tolist()) == ("living", [8])


def test_a_place_that_cannot_be_written_is_said_and_does_no_harm(tmp_path: Path) -> None:
    blocked = tmp_path / "t.sock"
    for path in Journal(blocked).paths:
        path.mkdir()
    for socket in (tmp_path / "nowhere" / "t.sock", blocked, Path("/proc/t.sock")):
        journal = Journal(socket)
        journal.read(BOOT)
        journal.write(state())
        journal.append(some(1))
        journal.beat(1.0)
        assert journal.trouble
        assert journal.lacks()[0]["what"] == "closes that a killed tracer has not told yet"
        journal.drop()
        journal.close()


def test_a_full_disk_ends_the_journal_and_room_begins_it_again(socket: Path, journal: Journal) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal.write(state("older"))
    size = journal.size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        journal.beat(50.0)
        journal.append(some(1))  # has no room: what comes later is not in the journal either
        journal.append(some(2))
        journal.beat(60.0)
        assert journal.trouble
        found = Journal(socket).read(BOOT)
        assert found is not None
        assert (found.beat, found.events["key"].tolist()) == (50.0, [8])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
        journal.write(state("newer"))
        assert not files(socket)  # the older state would be told wrongly
        assert journal.trouble
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.write(state("newest"))
    assert not journal.trouble
    assert len(files(socket)) == 1


def test_a_file_is_bounded(socket: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.write(state())
    monkeypatch.setattr(module, "SIZE_LIMIT", journal.size + 500)
    journal.append(some(1))
    assert not journal.trouble
    journal.append(some(2, 3, 4))
    assert "at most" in journal.trouble
    (path,) = files(socket)
    assert path.stat().st_size <= module.SIZE_LIMIT
    monkeypatch.setattr(module, "SIZE_LIMIT", 100)
    journal.write(state())
    assert "at most" in journal.trouble
    assert not files(socket)


def test_a_tracer_whose_clients_are_long_gone_begins_anew(socket: Path, journal: Journal) -> None:
    left = state(boot=boot_id())  # its clients asked soon after the boot, and never again
    journal.write(left)
    journal.close()
    tracer = Tracer(socket=socket)
    assert tracer.instance != "i"
    assert not tracer.uncovered
    assert not tracer.closes.clients
    assert not len(tracer.closes)
    tracer.tick()
    assert not files(socket)
    tracer.close()
