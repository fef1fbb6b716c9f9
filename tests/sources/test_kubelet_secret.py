"""A secret that a kubelet's document could show is found nowhere afterwards."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.core.errors import SourceError
from cluster.sources.pod_servers import Kubelet
from cluster.stores.sqlite import SqliteStore
from tests.sources.core_path import CorePath
from tests.sources.fake_proc import FakeProc
from tests.sources.kubelet_node import (
    Node,
    machine,
    settings,
)
from tests.sources.test_pods import REAL
from tests.sources.tls_peer import TOKEN, TlsPeer, serves

SECRET = "hunter2-do-not-tell"


@pytest.fixture(autouse=True)
def outside_of_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST_IP", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return machine(tmp_path)


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
        parts = CorePath(store).tell("kubelet", node.source.read())
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
