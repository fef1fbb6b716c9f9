import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.core.errors import RayscopeError, SourceAbsent, SourceError
from cluster.core.kinds import Container, Node, Owner, Pod, PodContainer, Process, line, plain, record
from cluster.sources import registry
from cluster.sources.registry import Machine, metadata_sources, register
from configs.settings import KubeletSettings

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture(autouse=True)
def kinds() -> Iterator[None]:
    before = dict(registry.KINDS)
    yield
    registry.KINDS.clear()
    registry.KINDS.update(before)


def names(**settings: Any) -> list[str]:
    return [source.name for source in metadata_sources("here", **settings)[0]]


IN_README = str(re.search(r"^```python\n(from cluster.sources.registry import register\n.*?)^```$", README, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
IN_DOCSTRING = textwrap.dedent(str(registry.__doc__).partition("\n\n")[2].partition("\nFrom then on")[0])


def test_readme_and_the_docstring_show_the_same_example() -> None:
    assert IN_README.strip() == IN_DOCSTRING.strip()


@pytest.mark.parametrize("example", [IN_README, IN_DOCSTRING], ids=["README", "docstring"])
def test_the_example_adds_a_kind(example: str) -> None:
    exec(example, {})
    source = next(source for source in metadata_sources("here", docker_socket=None)[0] if source.name == "sensors")
    assert source.read() == {("192.0.2.7", "sensor-7"): {"kind": "sensor", "name": "hall", "workload": "sensor/hall"}}
    assert source.status() == {"state": "ok", "records": 1}


def test_containers_are_read_before_the_processes_that_are_named_after_them() -> None:
    assert names() == ["node", "docker", "proc"]
    assert names(docker_socket=None) == ["node", "proc"]


def test_a_name_is_registered_once() -> None:
    with pytest.raises(RayscopeError, match="'proc' is registered already"):
        register("proc", lambda machine: machine.identity)


def test_all_sources_of_this_machine_can_be_read_and_say_how_it_went(tmp_path: Any) -> None:
    sources, processes, _ = metadata_sources("here", docker_socket=str(tmp_path / "none.sock"))
    assert {source.name: source.status()["state"] for source in sources} == dict.fromkeys(("node", "docker", "proc"), "unread")
    assert processes.workload_of(1)
    records = {source.name: source.read() for source in sources}
    assert {entry["workload"] for entry in records["node"].values()} == {"node/here"}
    assert [entry["pid"] for entry in records["proc"].values()] == [1]
    assert {address for address, _ in records["proc"]} <= {address for address, _ in records["node"]}
    assert {source.name: source.status()["state"] for source in sources} == {"node": "ok", "docker": "absent", "proc": "ok"}
    assert {source.name: source.read() for source in sources} == records


class Broken:
    name = "broken"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [SourceAbsent("nobody home"), ZeroDivisionError("nobody home")])
def test_a_kind_that_fails_is_a_source_error_and_no_other(error: Exception) -> None:
    register("broken", lambda _: Broken(error))
    source = metadata_sources("here", docker_socket=None)[0][-1]
    with pytest.raises(SourceError, match="nobody home"):
        source.read()
    assert source.status()["state"] == "failed"
    assert "nobody home" in source.status()["reason"]


def test_a_machine_shares_what_its_sources_know() -> None:
    machine = Machine("here", workloads={"3f" * 32: "container/web"})
    assert machine.address() in {address for address, _ in machine.identity.read()}


def test_in_a_pod_the_machine_is_the_node_and_not_the_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_IP", "192.0.2.7")
    account, proc = tmp_path / "account", tmp_path / "proc"
    (proc / "1/root/etc").mkdir(parents=True)
    (proc / "1/root/etc/os-release").write_text('PRETTY_NAME="The node"\n')
    (proc / "sys/kernel").mkdir(parents=True)
    (proc / "sys/kernel/osrelease").write_text("6.1-node\n")
    machine = Machine("worker-1", str(proc), kubelet=KubeletSettings(service_account=str(account)))
    assert "192.0.2.7" not in {address for address, _ in machine.identity.read()}, "without a service account we are in no pod"
    account.mkdir()
    (account / "token").write_text("x")
    machine = Machine("worker-1", str(proc), kubelet=KubeletSettings(service_account=str(account)))
    (((address, _), node),) = machine.identity.read().items()
    assert (address, machine.address()) == ("192.0.2.7", "192.0.2.7")
    assert (node["name"], node["os"], node["kernel"], node["addresses"]) == ("worker-1", "The node", "6.1-node", ["192.0.2.7"])


def test_a_nodes_collector_does_without_the_kubernetes_client() -> None:
    code = "import sys, actors.collector; sys.exit('kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, "it costs 33 MB on every node" + done.stderr


@pytest.mark.parametrize(
    "kind",
    [
        Node("uid", "a", ("192.0.2.7",), "6.1", "Debian"),
        Container("uid", "web", networks={"net": ("10.0.0.1", "10.0.0.2")}, ports=("80/tcp",), labels={"service": "shop"}),
        Process("7-100", "curl", "process/curl", 7),
        Pod(
            "uid",
            "cart",
            "shop",
            ("10.0.0.1",),
            Owner("ReplicaSet", "cart", "u"),
            {"app": ""},
            containers=(PodContainer("id", "web", pid=7),),
        ),
    ],
)
def test_a_record_equals_itself_after_the_journey(kind: Any) -> None:
    packed = record(kind)
    assert json.loads(json.dumps(packed)) == packed
    assert packed["kind"] == type(kind).__name__.lower()
    assert "/" in packed["workload"]
    assert all(packed.values())


def test_names_are_printable_bounded_and_without_slash() -> None:
    assert plain("a/b\x00\x1b\u202ec") == "a_b___c"
    assert plain("  x  ") == "x"
    assert len(plain("x" * 1_000)) == 128
    assert line("repo/image:1\n") == "repo/image:1_"
    assert len(line("x/" * 1_000)) <= 128
