from __future__ import annotations

import json
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cluster.core.errors import SourceError, SourceMalformed, SourceTimeout
from cluster.sources import docker
from cluster.sources.docker import DockerSource
from cluster.sources.docker_api import decode_list
from cluster.sources.proc import Processes, ProcSource
from cluster.sources.registry import metadata_sources
from tests.sources.docker_daemon import IMAGE, Dockerd

NODE = "192.0.2.7"
SECRET = "hunter2-do-not-tell"


def node() -> str:
    return NODE


def source(dockerd: Dockerd, workloads: dict[str, str] | None = None) -> DockerSource:
    return DockerSource(dockerd.socket, node, workloads)


def test_a_container_stands_under_its_own_address(dockerd: Dockerd) -> None:
    identity = dockerd.run(
        "web", "--network", "private", "--ip", "10.99.0.5", "--publish", "8080:80", "--label", "com.docker.compose.service=shop"
    )
    docker = source(dockerd)
    state = dockerd.inspect("web")["State"]
    assert docker.read() == {
        ("10.99.0.5", identity): {
            "kind": "container",
            "workload": "container/web",
            "uid": identity,
            "name": "web",
            "image": IMAGE,
            "pid": state["Pid"],
            "state": "running",
            "started": state["StartedAt"],
            "networks": {"private": ["10.99.0.5"]},
            "ports": ["80/tcp"],
            "published": ["0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp"],
            "labels": {"com.docker.compose.service": "shop"},
        }
    }
    assert docker.status()["state"] == "ok"
    assert docker.status()["containers"] == 1
    assert "API" in docker.status()["version"]


def test_host_network_containers_share_the_nodes_address_by_uid(dockerd: Dockerd) -> None:
    first = dockerd.run("one", "--network", "host", command=("httpd", "-f", "-p", "127.0.0.1:8081"))
    second = dockerd.run("two", "--network", "host", command=("httpd", "-f", "-p", "127.0.0.1:8082"))
    records = source(dockerd).read()
    assert set(records) == {(NODE, first), (NODE, second)}
    assert all(record["host_network"] for record in records.values())


def test_a_container_in_several_networks_stands_under_each_address(dockerd: Dockerd) -> None:
    dockerd.command("network", "create", "--ipv6", "--subnet", "10.98.0.0/24", "--subnet", "fd99:0:0::/64", "dual")
    try:
        identity = dockerd.run("web", "--network", "private", "--ip", "10.99.0.5")
        dockerd.command("network", "connect", "--ip", "10.98.0.5", "--ip6", "fd99::5", "dual", "web")
        records = source(dockerd).read()
        assert set(records) == {("10.99.0.5", identity), ("10.98.0.5", identity), ("fd99::5", identity)}
        assert records["fd99::5", identity]["networks"] == {"dual": ["10.98.0.5", "fd99::5"], "private": ["10.99.0.5"]}
    finally:
        dockerd.remove_all()
        dockerd.command("network", "rm", "dual")


def test_a_shared_network_is_the_owners(dockerd: Dockerd) -> None:
    owner = dockerd.run("web", "--network", "private", "--ip", "10.99.0.5")
    side = dockerd.run("side", "--network", "container:web")
    alone = dockerd.run("alone", "--network", "none")
    assert set(source(dockerd).read()) == {("10.99.0.5", owner), ("10.99.0.5", side), (NODE, alone)}


def test_only_a_container_alone_in_its_network_owns_the_namespace(dockerd: Dockerd) -> None:
    names = {"alone": "none", "host": "host", "web": "private", "side": "container:web"}
    for name, network in names.items():
        dockerd.run(name, "--network", network)
    net_ns = {name: Path(f"/proc/{dockerd.inspect(name)['State']['Pid']}/ns/net").stat().st_ino for name in names}
    assert net_ns["web"] == net_ns["side"]
    sources, _, namespaces = metadata_sources("here", dockerd.socket)
    docker = next(source for source in sources if source.name == "docker")
    docker.read()
    docker.read()
    expected = {"alone": "container/alone", "host": "", "web": "", "side": ""}
    assert {name: namespaces.workload_of(number) for name, number in net_ns.items()} == expected
    dockerd.remove("side")
    docker.read()
    docker.read()
    assert namespaces.workload_of(net_ns["web"]) == "container/web"
    dockerd.remove("alone")
    assert namespaces.workload_of(net_ns["alone"]) == ""


def test_starting_restarting_and_stopping_one_changes_one_record(dockerd: Dockerd) -> None:
    dockerd.run("first", "--network", "private")
    docker = source(dockerd)
    before = docker.read()
    assert docker.read() == before

    dockerd.run("second", "--network", "host")
    started = docker.read()
    assert changes(before, started) == ["second"]

    dockerd.command("restart", "--time", "0", "second")
    restarted = docker.read()
    assert changes(started, restarted) == ["second"]
    pids = [record["pid"] for record in restarted.values() if record["name"] == "second"]
    assert pids == [dockerd.inspect("second")["State"]["Pid"]]

    dockerd.command("stop", "--time", "0", "second")
    assert docker.read() == before


def changes(old: docker.Records, new: docker.Records) -> list[str]:
    keys = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    return [str((new.get(key) or old[key])["name"]) for key in keys]


def test_processes_inside_are_the_containers(dockerd: Dockerd) -> None:
    workloads: dict[str, str] = {}
    identity = dockerd.run("web", "--network", "private", command=("sh", "-c", "httpd -p 80; sleep 600"))
    pids = [int(pid) for pid in dockerd.command("top", "web", "-eo", "pid").stdout.split()[1:]]
    processes = Processes(workloads=workloads)
    assert {processes.workload_of(pid) for pid in pids} == {f"container/{identity[:12]}"}
    docker = source(dockerd, workloads)
    docker.read()
    assert {processes.workload_of(pid) for pid in pids} == {"container/web"}
    records = ProcSource(processes, node).read()
    assert {record["container"] for record in records.values()} == {identity}
    assert len(records) == len(pids) >= 2
    dockerd.remove("web")
    assert {processes.workload_of(pid) for pid in pids} == {""}
    docker.read()
    assert workloads == {}


def test_nothing_secret_of_a_container_is_in_its_record(dockerd: Dockerd) -> None:
    told = (f"--env=TOKEN={SECRET}", f"--label=token={SECRET}", f"--label=com.docker.compose.config={SECRET}", "--network=host")
    dockerd.run("web", *told, command=("sh", "-c", f": {SECRET}; sleep 600"))
    assert json.dumps(dockerd.inspect("web")).count(SECRET) >= 4
    workloads: dict[str, str] = {}
    docker, processes = source(dockerd, workloads), Processes(workloads=workloads)
    processes.workload_of(dockerd.inspect("web")["State"]["Pid"])
    records = {**docker.read(), **ProcSource(processes, node).read()}
    packed = msgpack.packb([[*key, record] for key, record in records.items()])
    assert len(records) == 2
    assert b"container/web" in packed
    assert SECRET.encode() not in packed
    assert SECRET not in json.dumps([docker.status(), workloads])


def test_a_docker_that_hangs_is_a_timeout_and_heals(dockerd: Dockerd) -> None:
    dockerd.run("web", "--network", "host")
    docker = DockerSource(dockerd.socket, node, timeout=0.5)
    before = docker.read()
    dockerd.pause(True)
    try:
        with pytest.raises(SourceTimeout):
            docker.read()
        assert docker.status()["state"] == "failed"
    finally:
        dockerd.pause(False)
    deadline = time.monotonic() + 10
    while docker.status()["state"] != "ok":
        assert time.monotonic() < deadline, docker.status()
        try:
            assert docker.read() == before
        except SourceTimeout:
            continue


def test_no_docker_is_a_state(tmp_path: Path) -> None:
    docker = DockerSource(str(tmp_path / "docker.sock"), node)
    assert docker.status()["state"] == "unread"
    assert docker.read() == {}
    assert docker.status()["state"] == "absent"
    assert "docker.sock" in docker.status()["reason"]


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A unix socket that answers like the Engine API, for amounts and oddities that no dockerd shows on command."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Answers)
        self.path = str(path)
        self.answers: dict[str, Any] = {"/version": {"Version": "99.0", "ApiVersion": "1.99"}}
        self.asked: list[str] = []


class Answers(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def listed(number: int, **fields: Any) -> dict[str, Any]:
    address = {"IPAddress": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}
    return {"Id": f"{number:064x}", "Names": [f"/c{number}"], "NetworkSettings": {"Networks": {"bridge": address}}, **fields}


def live(engine: Engine, *containers: dict[str, Any]) -> None:
    engine.answers["/containers/json"] = list(containers)
    for container in containers:
        engine.answers[f"/containers/{container['Id']}/json"] = {"State": {"Pid": 7, "StartedAt": "2026-01-01T00:00:00Z"}}


def test_a_container_is_inspected_once_while_its_process_lives(engine: Engine, tmp_path: Path) -> None:
    container = listed(1)
    live(engine, container)
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(f"0::/docker/{container['Id']}\n")
    docker = DockerSource(engine.path, node, proc=tmp_path)
    assert docker.read() == docker.read()
    assert engine.asked.count(f"/containers/{container['Id']}/json") == 1
    (tmp_path / "7/cgroup").write_text("0::/\n")
    engine.answers[f"/containers/{container['Id']}/json"] = {"State": {"Pid": 8}}
    (record,) = docker.read().values()
    assert record["pid"] == 8


def test_thousands_of_containers_are_read_within_bounds(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.sources.docker.CONTAINERS_LIMIT", 3_000)
    monkeypatch.setattr("cluster.sources.docker.INSPECT_TIME", 0.1)
    live(engine, *(listed(number) for number in range(1, 3_501)))
    docker = DockerSource(engine.path, node, proc=tmp_path)
    records = docker.read()
    status = docker.status()
    assert len(records) == 3_000
    assert (status["containers"], status["left_out"], status["refused"]) == (3_000, 500, 0)
    tried = sum("/containers/0" in path for path in engine.asked)
    assert 0 < tried < 3_000  # the time for one read is bounded ...
    docker.read()
    again = [path for path in engine.asked if "/containers/0" in path]
    assert len(set(again)) == len(again)  # ... and the next one goes on with the others


def test_containers_with_the_same_address_do_not_hide_each_other(engine: Engine, tmp_path: Path) -> None:
    first, second = listed(1), listed(2)
    second["NetworkSettings"] = first["NetworkSettings"]
    live(engine, first, second)
    assert set(DockerSource(engine.path, node, proc=tmp_path).read()) == {("10.0.0.1", first["Id"]), ("10.0.0.1", second["Id"])}


def test_a_container_that_ends_while_it_is_read_has_no_pid(engine: Engine, tmp_path: Path) -> None:
    live(engine, listed(1))
    del engine.answers[f"/containers/{1:064x}/json"]
    docker = DockerSource(engine.path, node, proc=tmp_path)
    (record,) = docker.read().values()
    assert "pid" not in record
    assert docker.status()["without_pid"] == 1


@pytest.mark.parametrize("pid", [-1, 2**32, 2**80, "7", None, 1.5])
def test_a_pid_that_cannot_be_is_not_believed(engine: Engine, tmp_path: Path, pid: object) -> None:
    live(engine, listed(1))
    engine.answers[f"/containers/{1:064x}/json"] = {"State": {"Pid": pid}}
    (record,) = DockerSource(engine.path, node, proc=tmp_path).read().values()
    assert "pid" not in record


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        [],
        {},
        {"Id": "../../secrets"},
        {"Id": "a" * 63},
        {"Id": f"{9:064x}", "Names": "web"},
        {"Id": f"{9:064x}", "Ports": [{"PrivatePort": "80"}]},
        {"Id": f"{9:064x}", "Labels": {"com.docker.compose.service": 7}},
        {"Id": f"{9:064x}", "NetworkSettings": {"Networks": {"bridge": "10.0.0.9"}}},
    ],
)
def test_a_bad_record_costs_only_itself(engine: Engine, tmp_path: Path, bad: Any) -> None:
    live(engine, listed(1))
    engine.answers["/containers/json"] = [bad, listed(1)]
    docker = DockerSource(engine.path, node, proc=tmp_path)
    assert list(docker.read()) == [("10.0.0.1", f"{1:064x}")]
    assert docker.status()["refused"] == 1


@pytest.mark.parametrize("body", [b"", b"nonsense", b"{}", b'{"message":"no"}', b'"\xff"', b"[" * 100_000])
def test_what_is_no_list_is_refused_and_the_names_stay(engine: Engine, tmp_path: Path, body: bytes) -> None:
    live(engine, listed(1))
    workloads: dict[str, str] = {}
    docker = DockerSource(engine.path, node, workloads, proc=tmp_path)
    docker.read()
    engine.answers["/containers/json"] = body
    with pytest.raises(SourceMalformed):
        docker.read()
    assert docker.status()["state"] == "failed"
    assert workloads == {f"{1:064x}": "container/c1"}


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["/web"], "web"),
        (["/other/alias", "/web"], "web"),
        (["web"], "web"),
        (["/\x1b[31m\n\u202e"], "_[31m__"),
        (["/" + "x" * 10_000], "x" * 127 + "…"),
        (["/"], "0" * 12),
        ([], "0" * 12),
        (None, "0" * 12),
    ],
)
def test_a_container_may_be_called_anything(names: list[str] | None, name: str) -> None:
    (container,), refused, left_out = decode_list(json.dumps([listed(1, Names=names)]).encode(), 10)
    assert (container.name, refused, left_out) == (name, 0, 0)


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ({"IPAddress": "10.0.0.9"}, "10.0.0.9"),
        ({"IPAddress": "", "GlobalIPv6Address": "2001:DB8:0::9"}, "2001:db8::9"),
        ({"IPAddress": "not an address"}, NODE),
        ({"IPAddress": "0.0.0.0"}, NODE),
        ({"IPAddress": "127.0.0.1"}, NODE),
        ({"IPAddress": None}, NODE),
        (None, NODE),
    ],
)
def test_addresses_are_written_as_connections_have_them(engine: Engine, tmp_path: Path, network: Any, address: str) -> None:
    live(engine, listed(1, NetworkSettings={"Networks": {"bridge": network}}))
    assert [key for key, _ in DockerSource(engine.path, node, proc=tmp_path).read()] == [address]


def test_containers_that_share_in_a_circle_end_at_the_node(engine: Engine, tmp_path: Path) -> None:
    first, second = listed(1, NetworkSettings=None), listed(2, NetworkSettings=None)
    first["HostConfig"], second["HostConfig"] = {"NetworkMode": f"container:{second['Id']}"}, {"NetworkMode": f"container:{first['Id']}"}
    live(engine, first, second)
    assert set(DockerSource(engine.path, node, proc=tmp_path).read()) == {(NODE, first["Id"]), (NODE, second["Id"])}


def test_a_socket_that_one_may_not_use_says_so(engine: Engine, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may use every socket")
    Path(engine.path).chmod(0)
    with pytest.raises(SourceError, match="not permitted"):
        DockerSource(engine.path, node, proc=tmp_path).read()
