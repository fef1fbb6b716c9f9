"""The kubelet as a source: its real document over real HTTPS, joined with processes, and on to the store."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.core.collector import Collector
from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed
from cluster.core.identities import Identities
from cluster.sources.containers import Containers
from cluster.sources.kubelet import KubeletSource
from cluster.sources.pod_servers import Kubelet
from cluster.sources.registry import metadata_sources
from configs.settings import KubeletSettings
from tests.sources.fake_proc import FakeProc
from tests.sources.kubelet_node import (
    AGENT_UID,
    EMPTY,
    MACHINE,
    SIDE,
    WEB,
    WEB_NS,
    WEB_UID,
    Fixed,
    Node,
    items,
    machine,
    settings,
)
from tests.sources.test_pods import REAL, pod
from tests.sources.tls_peer import Authority, TlsPeer, serves


@pytest.fixture(autouse=True)
def outside_of_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST_IP", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return machine(tmp_path)


def test_a_real_kubelets_pods_with_their_processes(certificate: Path, account: Path, proc: FakeProc) -> None:
    with TlsPeer(certificate, serves([], REAL.read_bytes())) as peer:
        records = Node(Kubelet(settings(peer, account)), proc).source.read()
    assert {(address, record["workload"]) for (address, _), record in records.items()} == {
        ("10.244.0.40", "pod/lab/web-5774f55fcc-dn95m"),
        ("10.244.0.39", "pod/lab/web-5774f55fcc-5rb7l"),
        ("10.244.0.38", "pod/lab/guaranteed"),
        ("10.244.0.37", "pod/lab/besteffort"),
        ("10.99.0.1", "pod/lab/agent-nrhms"),
    }
    assert {each["name"]: each.get("pid") for each in records["10.244.0.40", WEB_UID]["containers"]} == {"web": 25283, "side": 25347}
    assert [each.get("pid") for each in records["10.99.0.1", AGENT_UID]["containers"]] == [24722]


def test_processes_and_namespaces_belong_to_their_pods(proc: FakeProc) -> None:
    node = Node(Fixed(REAL.read_bytes()), proc)
    node.source.read()
    node.source.read()
    web, agent = "pod/lab/web-5774f55fcc-dn95m", "pod/lab/agent-nrhms"
    assert {pid: node.processes.workload_of(pid) for pid in (1, 25283, 25300, 25347, 25225, 24722)} == {
        1: "process/systemd",
        25283: web,
        25300: web,
        25347: web,
        25225: web,
        24722: agent,
    }
    assert (node.namespaces.workload_of(WEB_NS), node.namespaces.workload_of(MACHINE)) == (web, "")
    node.source = KubeletSource(Fixed(EMPTY), Containers(str(proc.root)), node.workloads, node.namespaces)
    assert node.source.read() == {}


def test_our_own_container_is_the_one_that_is_left(proc: FakeProc) -> None:
    """On cgroup v2 we see ourselves at the root of our own cgroup namespace, and our pod's other containers beside it."""
    ids = dict(zip(("worker", "tracer"), (WEB, SIDE), strict=True))
    states = [{"name": name, "containerID": f"containerd://{each}", "state": {"running": {}}} for name, each in ids.items()]
    own = pod(spec__containers=[{"name": name} for name in ids], status__containerStatuses=states)
    for pid in (25225, 25283, 25300, 25347):
        proc.end(pid)
    proc.add(70, b"ray", 70, b"0::/\n", nspid="1", net_ns=WEB_NS)
    proc.add(71, b"raylet", 71, b"0::/\n", nspid="8", net_ns=WEB_NS)
    proc.add(72, b"tracer", 72, f"0::/../cri-containerd-{SIDE}.scope\n".encode(), nspid="1", net_ns=WEB_NS)
    node = Node(Fixed(items(own)), proc, inside=WEB_UID)
    record = [node.source.read() for _ in range(2)][-1]["10.244.0.40", WEB_UID]
    assert {each["name"]: each["pid"] for each in record["containers"]} == {"worker": 70, "tracer": 72}
    assert {node.processes.workload_of(pid) for pid in (70, 71, 72)} == {"pod/shop/cart-x2x"}
    assert node.namespaces.workload_of(WEB_NS) == "pod/shop/cart-x2x"


def test_a_pod_that_is_gone_names_nothing_any_more(proc: FakeProc) -> None:
    fixed = Fixed(REAL.read_bytes())
    node = Node(fixed, proc)
    node.source.read()
    node.source.read()
    fixed.body = EMPTY
    assert node.source.read() == {}
    assert node.workloads == {}
    assert node.processes.workload_of(25283) == f"container/{WEB[:12]}"
    assert node.namespaces.workload_of(WEB_NS) == ""


def test_unchanged_pods_are_not_sent_again(proc: FakeProc) -> None:
    node, collector = Node(Fixed(REAL.read_bytes()), proc), Collector("lab0", 1)
    first = node.source.read()
    collector.on_metadata("kubelet", first)
    assert len(collector._metadata.take()) == 5
    again = node.source.read()
    assert again == first
    collector.on_metadata("kubelet", again)
    assert collector._metadata.take() == []


def test_the_address_of_a_pod_that_ended_nobody_knows_when_is_the_next_ones(proc: FakeProc) -> None:
    over: dict[str, Any] = {"status__podIPs": None, "status__containerStatuses": None}
    done = pod(metadata__uid="a", metadata__name="a", status__phase="Succeeded", **over)
    later = pod(metadata__uid="b", metadata__name="b", status__phase="Failed", status__startTime="2026-11-24T00:00:00Z", **over)
    runs = pod(metadata__uid="c", metadata__name="c", status__podIPs=None)

    def named(*pods: dict[str, Any]) -> list[str | None]:
        records = Node(Fixed(items(*pods)), proc).source.read()
        assert len(records) == len(pods)
        return [record.get("workload") for record in records.values()]

    assert named(done) == ["pod/shop/a"], "as long as nobody else has it"
    assert named(done, later) == [None, "pod/shop/b"]
    assert named(runs, done, later) == ["pod/shop/c", None, None]
    assert named(runs, {**runs, "metadata": {**runs["metadata"], "uid": "d", "name": "d"}}) == ["pod/shop/c", "pod/shop/d"]
    host = [pod(metadata__uid=uid, spec__hostNetwork=True, status__phase="Succeeded", status__podIPs=None) for uid in "ef"]
    assert named(*host) == ["pod/shop/cart-x2x"] * 2


def test_the_address_of_a_pod_that_ended_is_its_own_for_that_time(proc: FakeProc) -> None:
    finished = [{"name": "web", "state": {"terminated": {"finishedAt": "2026-11-24T00:00:00Z"}}}]
    done = pod(metadata__uid="a", metadata__name="a", status__phase="Succeeded", status__containerStatuses=finished)
    runs = pod(metadata__uid="c", metadata__name="c", status__startTime="2026-11-24T01:00:00Z")
    identities = Identities()
    for (address, uid), record in Node(Fixed(items(done, runs)), proc).source.read().items():
        identities.put(address, ("kubelet", uid), {**record, "node": "worker-1"}, 2e9)
    began, ended, next_began = (
        datetime.fromisoformat(text).timestamp() for text in ("2026-11-23T23:15:27Z", "2026-11-24T00:00:00Z", "2026-11-24T01:00:00Z")
    )
    times = (began - 60, began + 60, ended + 60, next_began + 60)
    assert [identities.who("worker-1", "10.244.0.40", at) for at in times] == [None, "pod/shop/a", None, "pod/shop/c"]


def test_a_pod_without_an_address_stands_under_its_name(proc: FakeProc) -> None:
    records = Node(Fixed(items(pod(status={"phase": "Pending"}))), proc).source.read()
    assert list(records) == [("pod/shop/cart-x2x", WEB_UID)]


# Its failures


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "the kubelet does not accept the token.*kubelet.service_account.*authentication.webhook"),
        (403, "needs the verb get on nodes/pods.*kubelet.mode: apiserver"),
        (404, "kubelet.host and kubelet.port"),
        (429, "asked too often; asked again at the next read"),
        (500, "trouble of its own; asked again at the next read"),
    ],
)
def test_a_kubelet_that_refuses_is_counted_and_asked_again(
    certificate: Path, account: Path, proc: FakeProc, status: int, remedy: str
) -> None:
    behaviours = [serves([], b"no", status=b"%d No" % status), serves([], REAL.read_bytes())]
    with TlsPeer(certificate, lambda connection, stopped: behaviours.pop(0)(connection, stopped)) as peer:
        node = Node(Kubelet(settings(peer, account)), proc)
        with pytest.raises(SourceError, match=f"HTTP {status}.*{remedy}"):
            node.source.read()
        assert node.source.status()["failures"] == 1
        assert len(node.source.read()) == 5
        assert node.source.status()["pods"] == 5


def test_what_a_failing_kubelet_said_before_still_holds(certificate: Path, account: Path, proc: FakeProc) -> None:
    with TlsPeer(certificate, serves([], REAL.read_bytes())) as peer:
        node = Node(Kubelet(settings(peer, account)), proc)
        node.source.read()
        node.source.read()
    with pytest.raises(SourceAbsent, match="Connection refused; is the kubelet there"):
        node.source.read()
    assert node.processes.workload_of(25283) == "pod/lab/web-5774f55fcc-dn95m"
    assert node.namespaces.workload_of(WEB_NS) == "pod/lab/web-5774f55fcc-dn95m"


def test_a_kubelet_of_an_unknown_authority_says_where_to_set_it(account: Path, proc: FakeProc, tmp_path: Path) -> None:
    own = Authority(tmp_path, "kubelet")
    with TlsPeer(own.sign("node"), serves([], REAL.read_bytes())) as peer:
        with pytest.raises(SourceError, match=r"kubeadm and kind sign kubelets.*set kubelet\.ca_file.*kubelet\.insecure_tls: true by hand"):
            Node(Kubelet(settings(peer, account)), proc).source.read()
        assert Node(Kubelet(settings(peer, account, ca_file=own.certificate)), proc).source.read()
        assert Node(Kubelet(settings(peer, account, insecure_tls=True)), proc).source.read()


def test_a_kubelet_that_answers_something_else_is_named(certificate: Path, account: Path, proc: FakeProc) -> None:
    with (
        TlsPeer(certificate, serves([], b"<html>hello</html>")) as peer,
        pytest.raises(SourceMalformed, match=f"https://127.0.0.1:{peer.port}: not a list of pods: .*is this the right server and port"),
    ):
        Node(Kubelet(settings(peer, account)), proc).source.read()
    with (
        TlsPeer(certificate, serves([], REAL.read_bytes())) as peer,
        pytest.raises(SourceMalformed, match=r"larger than 1000 bytes.*kubelet\.reply_limit"),
    ):
        Node(Kubelet(settings(peer, account, reply_limit=1_000)), proc).source.read()


def test_without_an_address_the_variable_of_the_pod_is_the_kubelets(
    certificate: Path, account: Path, proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsPeer(certificate, serves([], EMPTY)) as peer:
        source = Node(Kubelet(KubeletSettings(port=peer.port, service_account=str(account))), proc).source
        with pytest.raises(SourceError, match=r"set kubelet\.host, or HOST_IP by the downward API"):
            source.read()
        monkeypatch.setenv("HOST_IP", "127.0.0.1")
        assert source.read() == {}


def test_the_collectors_status_tells_of_the_kubelet(certificate: Path, account: Path, tmp_path: Path) -> None:
    def sources(**fields: Any) -> dict[str, Any]:
        made = metadata_sources("lab0", str(tmp_path / "docker.sock"), "/proc", settings(peer, account, **fields))
        return {source.name: source for source in made[0]}

    with TlsPeer(certificate, serves([], REAL.read_bytes())) as peer:
        assert list(sources()) == ["node", "kubelet", "docker", "proc"]
        assert list(sources(mode="off")) == ["node", "docker", "proc"]
        kubelet = sources(insecure_tls=True)["kubelet"]
        assert kubelet.status()["state"] == "unread"
        kubelet.read()
        status = kubelet.status()
        assert {name: status[name] for name in ("state", "pods", "refused", "insecure_tls", "mode", "failures")} == {
            "state": "ok",
            "pods": 5,
            "refused": 0,
            "insecure_tls": True,
            "mode": "kubelet",
            "failures": 0,
        }
        kubelet = sources()["kubelet"]
    with pytest.raises(SourceAbsent):
        kubelet.read()
    status = kubelet.status()
    assert (status["state"], status["insecure_tls"], status["failures"]) == ("failed", False, 1)
    assert "Connection refused" in status["reason"]


def test_many_pods_are_decoded_in_less_memory_than_their_text(proc: FakeProc) -> None:
    template = json.loads(REAL.read_text())["items"][0]
    many = [{**template, "metadata": {**template["metadata"], "uid": f"u{number}", "name": f"p{number}"}} for number in range(300)]
    source = Node(Fixed(json.dumps({"items": many}).encode()), proc).source
    tracemalloc.start()
    try:
        assert len(source.read()) == 300
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_400_000
