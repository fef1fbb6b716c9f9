"""Which processes are in which container: in a /proc of files, and in the kernel's own with real cgroups and namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster.core.errors import SourceError
from cluster.sources.containers import Containers
from cluster.sources.namespaces import Namespaces, Tenant, net_ns_of
from cluster.sources.proc import read_membership
from tests.sources.fake_proc import FakeProc

A, B, PAUSE = "3f" * 32, "b7" * 32, "c9" * 32
UID, OTHER = "d20251d6-5e49-4860-bb5b-58e2741948a7", "8a973881-3f63-4780-a299-4a1adfa3cc00"


def inside(container: str, uid: str = UID) -> bytes:
    return f"0::/kubepods/burstable/pod{uid}/{container}\n".encode()


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    made = FakeProc(tmp_path)
    (tmp_path / "self").mkdir()
    (tmp_path / "cpuinfo").write_text("")
    return made


def test_the_first_process_of_a_container_is_number_1_of_its_namespace_else_the_oldest(proc: FakeProc) -> None:
    proc.add(1, b"init", 1)
    proc.add(50, b"runc", 90, inside(A))  # older, and not of the container's own namespace
    proc.add(70, b"web", 100, inside(A), nspid="1")
    proc.add(60, b"worker", 200, inside(A), nspid="7")
    proc.add(61, b"nested", 300, inside(A), nspid="8\t1")
    proc.add(80, b"agent", 400, inside(B, OTHER))  # shares the machine's PID namespace
    proc.add(81, b"agent", 300, inside(B, OTHER))
    proc.add(90, b"pause", 99, inside(PAUSE), nspid="1")
    assert Containers(str(proc.root)).first_processes() == {(UID, A): 70, (OTHER, B): 81, (UID, PAUSE): 90}


def test_what_is_known_is_not_read_again_and_what_changes_is(proc: FakeProc) -> None:
    proc.add(70, b"runc:[2:INIT]", 100)
    containers = Containers(str(proc.root))
    assert containers.first_processes() == {}
    (proc.root / "70/cgroup").write_bytes(inside(A))
    assert containers.first_processes() == {}, "by (pid, start, name) it is the same process"
    proc.add(70, b"web", 100, inside(A))
    assert containers.first_processes() == {(UID, A): 70}, "it became the container's command"
    proc.add(70, b"web", 500, inside(B))
    assert containers.first_processes() == {(UID, B): 70}, "the number is another process's"
    proc.end(70)
    assert containers.first_processes() == {}


def test_a_scan_is_bounded_and_what_it_leaves_out_is_counted(proc: FakeProc) -> None:
    for pid in range(1, 8):
        proc.add(pid, cgroup=inside(A if pid > 5 else B))
    containers = Containers(str(proc.root), limit=5)
    assert containers.first_processes() == {(UID, B): 1}
    assert containers.left_out == 2


def test_processes_that_end_or_cannot_be_read_are_passed_over(proc: FakeProc) -> None:
    proc.add(7, cgroup=inside(A))
    for pid, name in ((8, "stat"), (9, "cgroup"), (10, "status")):
        proc.add(pid, cgroup=inside(B, OTHER))
        (proc.root / str(pid) / name).unlink()
    assert Containers(str(proc.root)).first_processes() == {(UID, A): 7, (OTHER, B): 10}


def test_a_proc_that_is_not_there_says_which_setting_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"/none: cannot be listed: No such file or directory; set collector\.proc"):
        Containers(str(tmp_path / "none")).first_processes()


def test_our_own_container_is_a_place_of_our_own_pod(proc: FakeProc) -> None:
    proc.add(7, b"raylet", cgroup=b"0::/\n", nspid="1")
    proc.add(8, b"systemd", cgroup=b"0::/../../..\n")
    assert Containers(str(proc.root), inside=UID).first_processes() == {(UID, ""): 7}
    assert Containers(str(proc.root)).first_processes() == {}


# The kernel's own


@pytest.fixture
def cgroups() -> Iterator[Path]:
    """A cgroup of the kernel's, for pods below it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    if os.geteuid() or not roots:
        pytest.skip("making a cgroup needs root and cgroup version 2")
    top = roots[0] / f"rs-{uuid.uuid4().hex[:8]}"
    try:
        top.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    yield top
    deadline = time.monotonic() + 10
    for folder in sorted((path for path in (top, *top.rglob("*")) if path.is_dir()), key=lambda path: -len(path.parts)):
        while True:
            try:
                folder.rmdir()
                break
            except OSError:
                assert time.monotonic() < deadline, f"{folder} is still in use"
                time.sleep(0.01)


def start(stack: ExitStack, cgroup: Path, *command: str) -> subprocess.Popen[str]:
    """A command in a cgroup, ended with the stack."""
    cgroup.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh", *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def test_a_real_pods_processes_and_its_network_namespace(cgroups: Path) -> None:
    pod = cgroups / f"kubepods/burstable/pod{UID}"
    script = "echo ready; exec sleep 60"
    with ExitStack() as stack:
        pause = start(stack, pod / PAUSE, "unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script)
        assert pause.stdout is not None
        assert pause.stdout.readline() == "ready\n"
        web = start(
            stack, pod / A, "nsenter", f"--net=/proc/{pause.pid}/ns/net", "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script
        )
        assert web.stdout is not None
        assert web.stdout.readline() == "ready\n"
        containers = Containers()
        firsts = containers.first_processes()
        found = {container: firsts[UID, container] for container in (A, PAUSE)}
        assert found[A] in children(web.pid)
        assert found[PAUSE] in children(pause.pid)
        namespaces = Namespaces()
        for _ in range(2):
            namespaces.update([Tenant(container, "pod/shop/web", pid, UID) for container, pid in found.items()], "kubelet")
        net_ns = net_ns_of("/proc", pause.pid)
        assert net_ns != net_ns_of("/proc", os.getpid())
        assert namespaces.workload_of(net_ns) == "pod/shop/web"
        web.kill()
        web.wait()
        assert namespaces.workload_of(net_ns) == "pod/shop/web"
    deadline = time.monotonic() + 10
    while namespaces.workload_of(net_ns):
        assert time.monotonic() < deadline, "the pod's last process ended"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


READER = """
import os, sys
from cluster.sources.proc import read_membership
for pid in (int(sys.argv[1]), os.getpid()):
    found = read_membership("/proc", pid, sys.argv[2])
    print(pid == os.getpid(), found.pod, ",".join(found.containers))
"""


def test_what_a_reader_in_a_cgroup_namespace_of_its_own_sees(cgroups: Path) -> None:
    with ExitStack() as stack:
        other = start(stack, cgroups / f"kubepods/burstable/pod{OTHER}/{A}", "sh", "-c", "echo ready; exec sleep 60")
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        assert read_membership("/proc", other.pid).containers == (A,)
        place = cgroups / f"kubepods/besteffort/pod{UID}/{B}"
        reader = start(stack, place, "unshare", "--cgroup", sys.executable, "-c", READER, str(other.pid), UID)
        said, _ = reader.communicate(timeout=30)
    assert said.splitlines() == [f"False {OTHER} {A}", f"True {UID} "]
