"""The storage writer on a real API server: a commit is shown, commits never wait for it, a restart goes on, an orderly end lets go."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors import publishing as making
from actors.storage_writer import StorageWriter
from configs.settings import KubeletSettings, KubernetesSettings, PublishSettings, Settings
from tests.kubernetes.proxy import Fault, Proxy
from tests.kubernetes.publishing import PATIENCE, Publishing
from tests.stores.commits import commit, record


def configured(publishing: Publishing, **kubernetes: Any) -> Settings:
    return Settings(
        kubernetes=KubernetesSettings(
            **{"mode": "on", "namespace": publishing.namespace, "kubeconfig": str(publishing.kubeconfig)} | kubernetes
        ),
        publish=PublishSettings(interval=0.05, pages=2, lease_seconds=2),
    )


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_commits_are_shown_over_a_restart_of_the_writer_and_of_the_aggregator(publishing: Publishing, tmp_path: Path) -> None:
    path, settings = str(tmp_path / "rayscope.db"), configured(publishing)
    writer = StorageWriter(path, settings)
    assert writer.status()["publisher"]["state"] == "starting"
    fence = writer.open().fence
    writer.commit(commit(1, fence, record(1, sent=1)))
    wait_for(lambda: publishing.numbers() == {1})
    writer.stop()
    writer = StorageWriter(path, settings)  # its process is another: the first commit says whom it serves
    writer.commit(commit(2, fence, record(1, sent=2)))
    wait_for(lambda: publishing.numbers() == {2})
    fence = writer.open().fence  # another aggregator
    writer.commit(commit(1, fence, record(1, sent=3)))
    wait_for(lambda: publishing.numbers() == {3})
    said = writer.status()["publisher"]
    assert said["state"] == "publishing"
    assert said["fence"] == fence == 2
    assert said["pages"] == {"transactions": 1, "metadata": 1}
    writer.stop()
    lease = publishing.plane.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{publishing.namespace}/leases/rayscope-publisher")[1]
    assert not lease["spec"].get("holderIdentity")


def test_no_commit_waits_for_an_api_server_that_stalls(publishing: Publishing, proxy: Proxy, tmp_path: Path) -> None:
    proxy.always(Fault(500, stall=3.0))
    writer = StorageWriter(
        str(tmp_path / "rayscope.db"), configured(publishing, kubeconfig=str(publishing._kubeconfig(proxy.url)), timeout=5)
    )
    fence = writer.open().fence
    for number in range(1, 1_000):
        writer.commit(commit(number, fence, record(1, sent=number)))
        if proxy.seen and number > 20:
            break
        time.sleep(0.005)
    assert proxy.seen
    assert writer.status()["publisher"]["error"] == ""  # the first request is still unanswered
    writer.stop()


def test_a_publisher_that_fails_is_said_in_status_and_costs_no_commit(publishing: Publishing, tmp_path: Path) -> None:
    writer = StorageWriter(str(tmp_path / "rayscope.db"), configured(publishing, kubeconfig=str(tmp_path / "absent")))
    fence = writer.open().fence
    wait_for(lambda: writer.status()["publisher"]["state"] == "failing")
    assert "absent cannot be used" in writer.status()["publisher"]["error"]
    writer.commit(commit(1, fence, record(1)))
    writer.stop()


def test_it_publishes_where_it_is_told_to_or_in_a_pod(publishing: Publishing, tmp_path: Path) -> None:
    account = publishing.plane.service_account(f"{publishing.namespace}/publisher")
    in_a_pod, elsewhere = KubeletSettings(service_account=str(account)), KubeletSettings(service_account=str(tmp_path))
    for mode, kubelet, enabled, expected in (
        ("auto", in_a_pod, True, True),
        ("auto", elsewhere, True, False),
        ("on", elsewhere, True, True),
        ("on", in_a_pod, False, False),
        ("off", in_a_pod, True, False),
    ):
        settings = Settings(kubernetes=KubernetesSettings(mode=mode), kubelet=kubelet, publish=PublishSettings(enabled=enabled))
        assert making.is_wanted(settings) is expected
    writer = StorageWriter(str(tmp_path / "rayscope.db"), Settings(kubelet=elsewhere))
    assert writer.status()["publisher"] == {"state": "off"}
    writer.stop()


def test_the_pods_own_service_account_is_used_where_there_is_no_kubeconfig(
    publishing: Publishing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = publishing.plane.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    account = publishing.plane.service_account(f"{publishing.namespace}/publisher")
    writer = StorageWriter(str(tmp_path / "rayscope.db"), Settings(kubelet=KubeletSettings(service_account=str(account))))
    fence = writer.open().fence
    writer.commit(commit(1, fence, record(1, sent=4)))
    wait_for(lambda: publishing.numbers() == {4})
    assert writer.status()["publisher"]["namespace"] == publishing.namespace
    writer.stop()
