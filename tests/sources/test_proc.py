import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from cluster.sources.proc import Processes, ProcSource, read_stat
from tests.sources.fake_proc import FakeProc

ID = "3f" * 32
SECRET = "hunter2-do-not-tell"
LISTENER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


@pytest.fixture
def listener() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER, f"--password={SECRET}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOKEN": SECRET},
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            yield process
        assert process.stdin is not None
        process.stdin.close()


def test_a_real_process_is_known_by_its_name(listener: subprocess.Popen[str]) -> None:
    name = Path(f"/proc/{listener.pid}/comm").read_text().strip()
    processes = Processes()
    kind, _, rest = processes.workload_of(listener.pid).partition("/")
    assert kind in ("process", "unit", "container")
    assert rest
    (process,) = processes.alive()
    assert (process.pid, process.name) == (listener.pid, name)
    assert process.uid.startswith(f"{listener.pid}-")
    assert abs(process.started - Path(f"/proc/{listener.pid}").stat().st_mtime) < 5


def test_an_ended_process_is_no_workload(listener: subprocess.Popen[str]) -> None:
    processes = Processes()
    assert processes.workload_of(listener.pid)
    listener.kill()
    listener.wait()
    assert processes.workload_of(listener.pid) == ""
    assert processes.alive() == []


def test_a_process_that_nobody_has_waited_for_has_ended_too(listener: subprocess.Popen[str]) -> None:
    processes = Processes()
    assert processes.workload_of(listener.pid)
    listener.kill()
    os.waitid(os.P_PID, listener.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in /proc
    assert Path(f"/proc/{listener.pid}/stat").exists()
    assert processes.workload_of(listener.pid) == ""


def test_a_process_lives_on_without_its_first_thread(proc: FakeProc) -> None:
    proc.add(7)
    stat = (proc.root / "7/stat").read_bytes().split()
    stat[2], stat[19] = b"Z", b"3"
    (proc.root / "7/stat").write_bytes(b" ".join(stat))
    assert Processes(proc.root).workload_of(7) == "process/curl"


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**63])
def test_a_pid_that_cannot_be_is_no_workload(pid: int) -> None:
    assert Processes().workload_of(pid) == ""


def test_nothing_secret_of_a_process_is_in_its_record(listener: subprocess.Popen[str]) -> None:
    assert SECRET in Path(f"/proc/{listener.pid}/environ").read_text()
    assert SECRET in Path(f"/proc/{listener.pid}/cmdline").read_text()
    processes = Processes()
    processes.workload_of(listener.pid)
    records = ProcSource(processes, lambda: "192.0.2.7").read()
    packed = msgpack.packb([[*key, record] for key, record in records.items()])
    assert str(listener.pid).encode() in packed
    assert SECRET.encode() not in packed


def test_only_what_was_asked_for_is_recorded_and_reads_are_equal(listener: subprocess.Popen[str]) -> None:
    processes = Processes()
    source = ProcSource(processes, lambda: "192.0.2.7")
    assert source.read() == {}
    processes.workload_of(listener.pid)
    processes.workload_of(os.getpid())
    first = source.read()
    assert sorted(record["pid"] for record in first.values()) == sorted([listener.pid, os.getpid()])
    assert {address for address, _ in first} == {"192.0.2.7"}
    assert source.read() == first
    assert json.loads(json.dumps(list(first.values()))) == list(first.values())


@pytest.fixture
def unit() -> Iterator[Path]:
    """A cgroup of the kernel's, named as systemd names those of its services."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    if os.geteuid() or not roots:
        pytest.skip("making a cgroup needs root and cgroup version 2")
    folder = roots[0] / f"rayscope-test-{os.getpid()}.service"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_real_process_in_a_units_cgroup_is_that_units(unit: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        (unit / "cgroup.procs").write_text(str(process.pid))
        assert Processes().workload_of(process.pid) == f"unit/{unit.name}"
        process.kill()


def test_container_then_unit_then_command(proc: FakeProc) -> None:
    workloads: dict[str, str] = {}
    processes = Processes(proc.root, workloads)
    proc.add(1, b"nginx", cgroup=f"4:memory:/docker/{ID}\n0::/system.slice/docker.service\n".encode())
    proc.add(2, b"sshd", cgroup=b"0::/system.slice/ssh.service\n")
    proc.add(3, b"curl", cgroup=b"0::/user.slice/user-0.slice/session-3.scope\n")
    assert [processes.workload_of(pid) for pid in (1, 2, 3)] == [f"container/{ID[:12]}", "unit/ssh.service", "process/curl"]
    workloads[ID] = "container/web"  # Docker answers later: what is cached follows
    assert processes.workload_of(1) == "container/web"
    assert {process.pid: process.container for process in processes.alive()} == {1: ID, 2: "", 3: ""}


def test_of_nested_containers_the_innermost_known_one_counts(proc: FakeProc) -> None:
    inner = "b7" * 32
    proc.add(1, cgroup=f"0::/docker/{ID}/docker/{inner}\n".encode())
    assert Processes(proc.root, {ID: "container/outer"}).workload_of(1) == "container/outer"
    assert Processes(proc.root, {ID: "container/outer", inner: "container/inner"}).workload_of(1) == "container/inner"
    assert Processes(proc.root).workload_of(1) == f"container/{inner[:12]}"


def test_a_pid_that_is_used_again_is_another_process(proc: FakeProc) -> None:
    processes = Processes(proc.root)
    proc.add(7, b"worker", start=100, cgroup=b"0::/system.slice/old.service\n")
    assert processes.workload_of(7) == "unit/old.service"
    (before,) = processes.alive()
    proc.add(7, b"worker", start=900, cgroup=b"0::/system.slice/new.service\n")
    assert processes.workload_of(7) == "unit/new.service"
    (after,) = processes.alive()
    assert (before.uid, after.uid) == ("7-100", "7-900")


def test_a_process_that_becomes_another_program_is_read_again(proc: FakeProc) -> None:
    processes = Processes(proc.root)
    proc.add(7, b"runc:[2:INIT]")
    assert processes.workload_of(7) == "process/runc:[2:INIT]"
    proc.add(7, b"nginx", cgroup=f"0::/docker/{ID}\n".encode())
    assert processes.workload_of(7) == f"container/{ID[:12]}"


@pytest.mark.parametrize(
    ("name", "workload"),
    [
        (b"tmux: server", "process/tmux: server"),
        (b"a) S 1 (b", "process/a) S 1 (b"),
        (b"kworker/0:1", "process/kworker_0:1"),
        (b"\x1b[31m\n\xff", "process/_[31m_\N{REPLACEMENT CHARACTER}"),
        (b"", "process/_"),
        (b" ", "process/_"),
    ],
)
def test_a_command_may_be_called_anything(proc: FakeProc, name: bytes, workload: str) -> None:
    proc.add(7, name)
    assert Processes(proc.root).workload_of(7) == workload


@pytest.mark.parametrize("stat", [b"", b"7", b"7 (curl", b"7 (curl) S 1", b"7 )curl( S " + b"0 " * 40, b"7 (curl) S " + b"x " * 40])
def test_a_stat_that_is_none_is_no_process(proc: FakeProc, stat: bytes) -> None:
    proc.add(7)
    (proc.root / "7/stat").write_bytes(stat)
    assert Processes(proc.root).workload_of(7) == ""


def test_a_huge_cgroup_file_costs_no_more_than_its_first_part(proc: FakeProc) -> None:
    proc.add(7, b"curl", cgroup=b"0::/system.slice/ssh.service\n" + b"1:x:/y\n" * 10_000_000)
    assert Processes(proc.root).workload_of(7) == "unit/ssh.service"


def test_a_cgroup_that_cannot_be_read_leaves_the_command(proc: FakeProc) -> None:
    proc.add(7)
    (proc.root / "7/cgroup").unlink()
    (proc.root / "7/cgroup").mkdir()
    assert Processes(proc.root).workload_of(7) == "process/curl"


def test_a_fifo_in_place_of_a_file_does_not_hang(proc: FakeProc) -> None:
    proc.add(7)
    (proc.root / "7/cgroup").unlink()
    os.mkfifo(proc.root / "7/cgroup")
    assert Processes(proc.root).workload_of(7) == "process/curl"


def test_what_is_remembered_is_bounded(proc: FakeProc) -> None:
    processes = Processes(proc.root, limit=3)
    for pid in range(1, 6):
        proc.add(pid)
        processes.workload_of(pid)
    assert [process.pid for process in processes.alive()] == [3, 4, 5]
    assert processes.forgotten == 2
    proc.end(4)
    assert [process.pid for process in processes.alive()] == [3, 5]


def test_the_start_time_is_the_kernels() -> None:
    stat = read_stat("/proc", os.getpid())
    assert stat is not None
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert stat.start == int(fields[19])
