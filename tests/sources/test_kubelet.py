"""The kubelet as a source: its real document over real HTTPS, joined with processes, and on to the store."""

from __future__ import annotations

import json
import logging
import tracemalloc
import urllib.parse
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.core.aggregate import Aggregate
from cluster.core.collector import Collector
from cluster.core.commands import Reply, Write
from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed
from cluster.core.events import BatchReceived, Committed, Event, Hello, Tick
from cluster.core.identities import Identities
from cluster.core.wire import Answer
from cluster.sources.containers import Containers
from cluster.sources.kubelet import KubeletSource
from cluster.sources.namespaces import Namespaces
from cluster.sources.pod_servers import PAGES_LIMIT, PODS_LIMIT, ApiServer, Kubelet, who
from cluster.sources.pods import Page, decode_pods
from cluster.sources.proc import Processes
from cluster.sources.registry import metadata_sources
from cluster.stores.sqlite import SqliteStore
from configs.settings import KubeletSettings
from tests.sources.fake_proc import FakeProc
from tests.sources.test_pods import REAL, pod
from tests.sources.tls_peer import TOKEN, Authority, TlsPeer, serves

WEB, SIDE = (
    "39592756c740fcf84dc0f8f03acb8380769c976f42d7d2686e6a3481224a383e",
    "4dab038e7e4a773b961cfa1e5b319811bc20248dd4e7f046d38a576e68880b2e",
)
AGENT, PAUSE = (
    "ba98245732e492a951e4e9104e067b79ee7e42f517989490adf2ccfe9d35e0c1",
    "45763282f51520b43f032213e8e2e218343e1221d77486daeb9dd76e9d723119",
)
WEB_UID, AGENT_UID = "d20251d6-5e49-4860-bb5b-58e2741948a7", "8a973881-3f63-4780-a299-4a1adfa3cc00"
MACHINE, WEB_NS = 4_026_531_840, 4_026_532_500
SECRET = "hunter2-do-not-tell"
EMPTY = b'{"items": []}'


@pytest.fixture(autouse=True)
def outside_of_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST_IP", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """The machine's /proc, as it was beside the kubelet whose document is used: web, its sidecar, its pause container, and the agent."""
    folder = tmp_path / "proc"
    folder.mkdir()
    made = FakeProc(folder)
    made.add(1, b"systemd", 1, net_ns=MACHINE)
    cgroup = "9:name=systemd:/kubepods/{0}\n4:memory:/kubepods/{0}\n0::/kubepods/{0}\n"
    for pid, name, place, nspid, net_ns in (
        (25225, b"pause", f"burstable/pod{WEB_UID}/{PAUSE}", "1", WEB_NS),
        (25283, b"httpd", f"burstable/pod{WEB_UID}/{WEB}", "1", WEB_NS),
        (25300, b"httpd", f"burstable/pod{WEB_UID}/{WEB}", "9", WEB_NS),
        (25347, b"sh", f"burstable/pod{WEB_UID}/{SIDE}", "1", WEB_NS),
        (24722, b"sh", f"besteffort/pod{AGENT_UID}/{AGENT}", "", MACHINE),
    ):
        made.add(pid, name, pid, cgroup.format(place).encode(), nspid, net_ns)
    return made


class Fixed:
    """A PodSource of bytes."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def pods(self) -> Page:
        return decode_pods(self.body, PODS_LIMIT)


class Node:
    """A source and what it shares with others."""

    def __init__(self, source: Any, proc: FakeProc, inside: str = "") -> None:
        self.workloads: dict[str, str] = {}
        self.namespaces = Namespaces(str(proc.root), inside)
        self.processes = Processes(proc.root, self.workloads, inside=inside)
        self.source = KubeletSource(source, Containers(str(proc.root), inside), self.workloads, self.namespaces)


def settings(peer: Any, account: Path, **fields: Any) -> KubeletSettings:
    return KubeletSettings(host=peer.host, port=peer.port, service_account=str(account), **fields)


def items(*pods: dict[str, Any]) -> bytes:
    return json.dumps({"items": list(pods)}).encode()


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


# The API server instead


def test_the_api_server_is_asked_for_this_nodes_pods_page_by_page(
    certificate: Path, account: Path, proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [
        {"metadata": {"continue": "a&b"}, "items": [pod(), 7]},
        {"metadata": {}, "items": [pod(metadata__uid="b", metadata__name="b")]},
    ]
    requests: list[bytes] = []
    with TlsPeer(certificate, serves(requests, *(json.dumps(page).encode() for page in pages))) as peer:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(peer.port))
        source = Node(ApiServer(KubeletSettings(service_account=str(account)), "worker-1"), proc).source
        records = source.read()
    assert {record["name"] for record in records.values()} == {"cart-x2x", "b"}
    assert source.status()["refused"] == 1
    asked = [urllib.parse.urlsplit(request.split()[1].decode()) for request in requests]
    assert {each.path for each in asked} == {"/api/v1/pods"}
    assert [dict(urllib.parse.parse_qsl(each.query)) for each in asked] == [
        {"fieldSelector": "spec.nodeName=worker-1", "limit": "250", "resourceVersion": "0"},
        {"fieldSelector": "spec.nodeName=worker-1", "limit": "250", "continue": "a&b"},
    ]
    assert all(TOKEN.encode() in request for request in requests)


def test_a_list_without_end_is_given_up(certificate: Path, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []
    with TlsPeer(certificate, serves(requests, b'{"metadata": {"continue": "more"}, "items": []}')) as peer:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(peer.port))
        with pytest.raises(SourceMalformed, match=f"a list of more than {PAGES_LIMIT} pages"):
            ApiServer(KubeletSettings(service_account=str(account)), "worker-1").pods()
    assert len(requests) == PAGES_LIMIT


@pytest.mark.parametrize("value", ["", "x", "0", "70000", "-1"])
def test_outside_of_pods_there_is_no_api_server_to_ask(account: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    if value:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", value)
    with pytest.raises(SourceError, match="the API server is not known"):
        ApiServer(KubeletSettings(service_account=str(account)), "worker-1").pods()


def test_who_is_asked(account: Path, tmp_path: Path) -> None:
    there, absent = {"service_account": str(account)}, {"service_account": str(tmp_path / "none")}
    assert [who(KubeletSettings(**place)) for place in (there, absent)] == ["kubelet", "off"]
    for mode in ("kubelet", "apiserver", "off"):
        assert who(KubeletSettings(mode=mode, **absent)) == mode


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


# The secret


def with_secrets() -> bytes:
    """The real document, with what its secret's reference leads to wherever a cluster could show it."""
    document = json.loads(REAL.read_text())
    for each in document["items"]:
        each["metadata"].setdefault("annotations", {})["kubectl.kubernetes.io/last-applied-configuration"] = SECRET
        for container in each["spec"]["containers"] + each["spec"].get("initContainers", []):
            container["env"] = [*container.get("env", []), {"name": "PW", "value": SECRET}]
            container["command"] = ["sh", "-c", f"login --password={SECRET}"]
            container["args"] = [SECRET]
        each["spec"]["volumes"].append({"name": "s", "csi": {"driver": "d", "volumeAttributes": {"password": SECRET}}})
        each["status"]["message"] = SECRET
    secretly = {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "p"}}}
    assert secretly in document["items"][0]["spec"]["containers"][0]["env"], "what the document is recorded for"
    return json.dumps(document).encode()


class Delivery:
    """One node's metadata through collector, aggregate and the SQLite store."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._aggregate = Aggregate(store.open())
        self._collector = Collector("lab0", 1)

    def deliver(self, records: Any) -> list[bytes]:
        """The parts as they travelled; all of it is in the store afterwards."""
        parts = []
        while not self._collector.greeted:
            answer = self._handle(Hello("lab0", self._collector.stream, 1.0))
            assert answer is not None
            if answer.verdict == "ok":
                self._collector.greet(answer)
            self._handle(Tick(1.0))
        self._collector.on_metadata("kubelet", records)
        self._collector.on_reply(b'{"connections": []}', "1:1", 2.0, lambda pid: "")  # noqa: ARG005
        while (part := self._collector.next_part()) is not None:
            parts.append(part)
            answer = self._handle(BatchReceived(part, 2.0))
            assert answer is not None
            assert answer.verdict == "ok", answer
            self._collector.on_answer(answer)
        self._handle(Tick(10.0))
        return parts

    def _handle(self, event: Event) -> Answer | None:
        answer = None
        for command in self._aggregate.handle(event):
            match command:
                case Reply():
                    answer = command.answer
                case Write():
                    self._store.commit(command.commit)
                    self._handle(Committed(command.commit.number, 1.0))
        return answer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store" / "rayscope.db")
    yield made
    made.close()


def test_a_secret_of_the_kubelets_document_is_found_nowhere_afterwards(
    certificate: Path,
    account: Path,
    proc: FakeProc,
    store: SqliteStore,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    body = with_secrets()
    broken = [body[:-1], body.replace(b'"uid"', b'"uid": 7, "x"'), body + b"x"]
    said: list[str] = []
    with TlsPeer(certificate, serves([], body)) as peer:
        node = Node(Kubelet(settings(peer, account)), proc)
        parts = Delivery(store).deliver(node.source.read())
        said.append(repr(node.source.status()))
    for worse in broken:
        with TlsPeer(certificate, serves([], worse)) as peer:
            node = Node(Kubelet(settings(peer, account)), proc)
            try:
                said.append(repr(node.source.read()))
            except SourceError as error:
                said.append(repr([error, error.__cause__, error.__context__]))
            said.append(repr(node.source.status()))
    store.close()
    files = {path.name: path.read_bytes() for path in store.path.parent.iterdir()}
    everything = b"\n".join(
        [*files.values(), *parts, *(text.encode() for text in said), caplog.text.encode(), *map(str.encode, capfd.readouterr())]
    )
    assert b"pod/lab/web-5774f55fcc-dn95m" in files["rayscope.db"]
    for secret in (SECRET, TOKEN, "secretKeyRef", "hunter2"):
        assert secret.encode() not in everything, secret


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
