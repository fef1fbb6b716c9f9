"""Who is asked for a node's pods: the API server where the kubelet may not be asked, and what `auto` means."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path

import pytest

from cluster.core.errors import SourceError, SourceMalformed
from cluster.sources.pod_servers import PAGES_LIMIT, ApiServer, who
from configs.settings import KubeletSettings
from tests.sources.fake_proc import FakeProc
from tests.sources.kubelet_node import Node, machine
from tests.sources.test_pods import pod
from tests.sources.tls_peer import TOKEN, TlsPeer, serves


@pytest.fixture(autouse=True)
def outside_of_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST_IP", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return machine(tmp_path)


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
