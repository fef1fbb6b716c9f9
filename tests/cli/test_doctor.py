"""doctor: each check against a real part, or against a /proc laid out as a machine that lacks it would show."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.cli.checks import kernel, resources, services
from cluster.cli.checks.finding import Check, Finding, Machine, human, lack, ok
from cluster.cli.doctor import CHECKS, blockers, look
from cluster.cli.main import main
from cluster.stores import place
from configs.settings import CollectorSettings, RaySettings, Settings, StoreSettings, TracerSettings


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose kernel shows nothing yet: a test lays out what it is about."""
    for name in ("proc", "sys", "shm", "run"):
        (tmp_path / name).mkdir()
    environ = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return Machine(Settings(), environ, tmp_path / "proc", tmp_path / "sys", tmp_path / "shm")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def with_settings(machine: Machine, settings: Settings) -> Machine:
    return Machine(settings, machine.environ, machine.proc, machine.sys, machine.shm)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Path]:
    """A unix socket that answers any HTTP request with 200 and no body."""
    path = tmp_path / "answering.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with server:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield path
    with socket.socket(socket.AF_UNIX) as last:  # where no test asked, this lets the thread end
        last.connect_ex(str(path))
    thread.join(10)


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    environ = {name: None for name in os.environ if name.startswith(("RAYSCOPE_", "XDG_"))}
    result = CliRunner(env={**environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}).invoke(main, [*arguments])
    return result.exit_code, result.output


def test_it_names_every_check_and_every_lack_has_a_remedy(tmp_path: Path) -> None:
    code, output = run(tmp_path, "doctor", "--json")
    report = json.loads(output)
    assert [finding["check"] for finding in report["checks"]] == [check.name for check in CHECKS]
    assert all(finding["remedy"] for finding in report["checks"] if finding["state"] == "lack")
    assert code == (0 if report["can_run"] else 1)


def test_nothing_is_unknown_where_the_tests_run(tmp_path: Path) -> None:
    report = json.loads(run(tmp_path, "doctor", "--json")[1])
    broken = [finding for finding in report["checks"] if "cannot be looked at" in finding["detail"]]
    assert not broken


def test_it_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, "doctor")
    assert list(tmp_path.iterdir()) == []


def test_a_person_reads_each_remedy_below_its_lack(tmp_path: Path) -> None:
    output = run(tmp_path, "doctor")[1].splitlines()
    tracer = next(number for number, line in enumerate(output) if line.startswith("lack     tracer "))
    assert output[tracer + 1].strip().startswith("-> `rayscope up` starts one")
    assert output[-1].startswith(("rayscope can run here", "rayscope cannot run here"))


def test_what_is_needed_and_missing_exits_1(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    code, output = run(tmp_path, "--set", f"store.path={tmp_path}/file/x.db", "doctor")
    assert code == 1
    assert "rayscope cannot run here: state directory" in output


def test_a_check_that_fails_costs_only_itself(machine: Machine) -> None:
    finding = look(Check("memory", True, resources.memory), machine)
    assert finding.state == "unknown"
    assert "FileNotFoundError" in finding.detail


def test_without_a_tracer_and_without_socket_dumps_it_cannot_run() -> None:
    def found(**states: Finding) -> list[tuple[Check, Finding]]:
        return [(Check(name.replace("_", " "), False, lambda _: ok("")), finding) for name, finding in states.items()]

    assert blockers(found(tracer=lack("", ""), socket_dumps=lack("", ""))) == ["tracer or socket dumps"]
    assert blockers(found(tracer=lack("", ""), socket_dumps=ok(""))) == []
    assert blockers(found(tracer=ok(""), socket_dumps=lack("", ""))) == []


def test_this_kernel_dumps_sockets_and_tells_their_end(machine: Machine) -> None:
    assert kernel.socket_dumps(machine).state == "ok"
    assert kernel.destroy_events(machine).state == "ok"
    assert kernel.release(machine).detail.startswith(os.uname().release)


def test_missing_privileges_are_named_with_what_they_are_for(machine: Machine) -> None:
    write(machine.proc / "self/status", "Name:\tx\nCapEff:\t0000000000001000\n")
    finding = kernel.capabilities(machine)
    assert finding.detail.startswith("without CAP_SYS_PTRACE (owners of other users' sockets), CAP_SYS_ADMIN (")
    write(machine.proc / "self/status", "CapEff:\t000001ffffffffff\n")
    assert kernel.capabilities(machine).state == "ok"


def test_network_namespaces_are_counted(machine: Machine) -> None:
    for pid, namespace in ((1, 10), (2, 10), (3, 11)):
        (machine.proc / str(pid) / "ns").mkdir(parents=True)
        (machine.proc / str(pid) / "ns/net").symlink_to(f"net:[{namespace}]")
    (machine.proc / "4").mkdir()  # ended while it was looked at
    assert kernel.namespaces(machine) == ok("2 readable")


def test_hidepid_is_named(machine: Machine) -> None:
    write(machine.proc / "self/mounts", "proc /proc proc rw,relatime,hidepid=invisible 0 0\ntmpfs /tmp tmpfs rw 0 0\n")
    assert "(hidepid=invisible)" in kernel.visible_processes(machine).detail


def test_a_containers_processes_are_not_the_machines(machine: Machine) -> None:
    write(machine.proc / "1/status", "Name:\tx\n")
    write(machine.proc / "self/ns/pid", "")
    assert "of this container" in kernel.visible_processes(machine).detail


@pytest.mark.parametrize(
    ("files", "state", "said"),
    [
        ({}, "lack", "not loaded"),
        ({"nf_conntrack_count": "5", "nf_conntrack_acct": "0"}, "lack", "counts no bytes"),
        ({"nf_conntrack_count": "0", "nf_conntrack_acct": "1"}, "lack", "tracks nothing"),
        ({"nf_conntrack_count": "5", "nf_conntrack_acct": "1"}, "ok", "tracks 5"),
    ],
)
def test_conntrack(machine: Machine, files: dict[str, str], state: str, said: str) -> None:
    for name, text in files.items():
        write(machine.proc / "sys/net/netfilter" / name, text + "\n")
    finding = kernel.conntrack(machine)
    assert finding.state == state
    assert finding.detail.startswith(said)


@pytest.mark.parametrize(
    ("there", "state"), [("cgroup.controllers", "ok"), ("unified/cgroup.controllers", "lack"), ("memory/tasks", "lack"), (None, "unknown")]
)
def test_cgroup_versions(machine: Machine, there: str | None, state: str) -> None:
    if there:
        write(machine.sys / "fs/cgroup" / there, "")
    assert kernel.cgroups(machine).state == state


def test_memory_is_what_kernel_and_cgroup_leave(machine: Machine) -> None:
    write(machine.proc / "meminfo", "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    assert resources.memory(machine) == ok("8.2 GB available")
    write(machine.sys / "fs/cgroup/memory.max", "max\n")
    assert resources.memory(machine) == ok("8.2 GB available")
    write(machine.sys / "fs/cgroup/memory.max", "900000000\n")
    write(machine.sys / "fs/cgroup/memory.current", "400000000\n")
    finding = resources.memory(machine)
    assert (finding.state, finding.detail) == ("lack", "500 MB available")


def test_shared_memory_must_hold_the_object_store(machine: Machine) -> None:
    assert resources.shared_memory(machine).state == "ok"
    huge = with_settings(machine, Settings(ray=RaySettings(object_store_bytes=2**60)))
    assert resources.shared_memory(huge).state == "lack"
    machine.shm.rmdir()
    assert resources.shared_memory(machine).detail == f"no {machine.shm}"


def test_a_taken_port_is_named(machine: Machine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = with_settings(machine, Settings(ray=RaySettings(dashboard_port=port)))
        assert f"{port} (dashboard)" in resources.ports(taken).detail
    assert f"{port} (dashboard)" not in resources.ports(taken).detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(machine: Machine) -> None:
    closed = with_settings(machine, Settings(store=StoreSettings(path="/proc/rayscope/x.db")))
    assert "/proc cannot be written" in resources.state_directory(closed).detail


def test_the_state_directory_is_looked_for_in_what_exists(machine: Machine) -> None:
    finding = resources.state_directory(machine)
    assert finding.detail.startswith(f"{machine.environ['HOME']}/.local/state/rayscope can be written")
    assert not Path(machine.environ["HOME"]).exists()


def test_the_clock_is_asked_of_the_kernel(machine: Machine) -> None:
    assert resources.clock(machine).state in {"ok", "lack"}


def test_a_tracer_that_answers_and_one_that_does_not(machine: Machine, answering: Path, tmp_path: Path) -> None:
    assert services.tracer(machine).detail == f"none answers on {tmp_path}/run/rayscope/tracer.sock"
    own = with_settings(machine, Settings(tracer=TracerSettings(socket=str(answering))))
    assert services.tracer(own) == ok(f"answers on {answering}")


def test_docker_that_answers_is_absent_or_not_asked(machine: Machine, answering: Path) -> None:
    def docker(path: str | None) -> Finding:
        return services.docker(with_settings(machine, Settings(collector=CollectorSettings(docker_socket=path))))

    assert docker(None) == ok("not asked, as the settings say")
    assert docker(f"{answering}.absent").detail == f"none answers on {answering}.absent"
    assert docker(str(answering)) == ok(f"answers on {answering}")


def test_stores_of_all_kinds(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    own = with_settings(machine, Settings(store=StoreSettings(path=str(path))))
    assert services.store(own).detail.startswith("none yet")
    place.create(path, "a test")
    assert services.store(own) == ok(f"{path} can be read")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    assert "is of version 999" in services.store(own).detail
    path.write_text("not a database at all")
    assert services.store(own).state == "lack"


def test_sizes_are_for_people() -> None:
    assert (human(999_000_000), human(2_500_000_000)) == ("999 MB", "2.5 GB")
