"""The ClusterWatcher on a real Ray, from a real API server into the aggregator, whoever of them is killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import deploy, session
from actors.calls import Peer
from actors.options import AGGREGATOR, CLUSTER_WATCHER, QUERY
from cluster.sources.cluster_objects import SERVICE_LABEL
from configs.settings import CollectorSettings, KubernetesSettings, RaySettings, Settings, StoreSettings
from tests.actors.waiting import wait_for
from tests.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane) -> Iterator[Settings]:
    """The actors, with the API server and without a tracer."""
    base = Path(tempfile.mkdtemp(prefix="rs-"))  # short: the path of a unix socket has 107 bytes at most
    settings = Settings(
        collector=CollectorSettings(docker_socket=None),
        store=StoreSettings(commit_interval=0.5),
        kubernetes=KubernetesSettings(mode="on", kubeconfig=str(control_plane.admin_kubeconfig)),
        ray=RaySettings(namespace="rayscope-kube", dashboard=False, temp_dir=str(base / "ray")),
    )
    session.start("worker-1", settings.ray, base)
    try:
        deploy.deploy(str(base / "rayscope.db"), str(base / "absent.sock"), settings)
        wait_for(lambda: ask("status")["kubernetes"]["state"] == "ok")
        yield settings
        deploy.take_down()
        assert deploy.names() == []
    finally:
        session.leave()
        shutil.rmtree(base, ignore_errors=True)


def ask(method: str, *arguments: Any) -> Any:
    return Peer(AGGREGATOR).call(method, *arguments, group=QUERY)


def watcher() -> Any:
    return Peer(CLUSTER_WATCHER).call("status", group=QUERY)


def record(address: str) -> dict[str, Any]:
    """What the API server says of an address, or nothing."""
    return next(iter(ask("metadata", address).get(address, {}).get("apiserver", {}).values()), {})


def make_service(plane: ControlPlane, namespace: str, name: str) -> str:
    """Its cluster IP."""
    body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
    status, made = plane.request("POST", f"/api/v1/namespaces/{namespace}/services", body)
    assert status == 201, made
    return str(made["spec"]["clusterIP"])


@pytest.mark.usefixtures("running")
def test_a_service_its_backends_and_its_end(control_plane: ControlPlane, namespace: str) -> None:
    address = make_service(control_plane, namespace, "web")
    assert wait_for(lambda: record(address))["workload"] == f"service/{namespace}/web"
    endpoints = {
        "metadata": {"name": "web-1", "labels": {SERVICE_LABEL: "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"]}],
        "ports": [{"name": "", "port": 8080}],
    }
    control_plane.request("POST", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", endpoints)
    wait_for(lambda: record(address).get("backends") == {"80/tcp": ["10.1.0.1:8080"]})
    control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}/services/web")
    wait_for(lambda: not record(address))


@pytest.mark.usefixtures("running")
def test_status_shows_the_watcher_apart_and_the_nodes_without_cover(control_plane: ControlPlane) -> None:
    addresses = [{"type": "InternalIP", "address": "192.0.2.77"}]
    control_plane.request("POST", "/api/v1/nodes", {"metadata": {"name": "worker-77"}, "status": {"addresses": addresses}})
    try:
        wait_for(lambda: ask("status")["kubernetes"]["uncovered"] == ["worker-77"])
        assert record("192.0.2.77")["workload"] == "node/worker-77"
        status = ask("status")
        assert [node["node"] for node in status["nodes"]] == ["worker-1"]
        kubernetes = status["kubernetes"]
        assert (kubernetes["nodes"], set(kubernetes["resources"])) == (1, {"services", "endpointslices", "nodes", "replicasets", "jobs"})
        assert all(one["age"] < 3600 and one["state"] == "synced" for one in kubernetes["resources"].values())
    finally:
        control_plane.request("DELETE", "/api/v1/nodes/worker-77")
    wait_for(lambda: ask("status")["kubernetes"]["nodes"] == 0)


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("role", [CLUSTER_WATCHER, AGGREGATOR])
def test_what_ends_while_nobody_looks_is_no_ghost(control_plane: ControlPlane, namespace: str, role: str) -> None:
    gone, stays = make_service(control_plane, namespace, "gone"), make_service(control_plane, namespace, "stays")
    wait_for(lambda: record(gone) and record(stays))
    pid, blind = Peer(role).call("status", group=QUERY)["pid"], watcher()["pid"]
    os.kill(blind, signal.SIGSTOP)
    try:
        control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}/services/gone")
        new = make_service(control_plane, namespace, "new")
        os.kill(pid, signal.SIGKILL)
    finally:
        if blind != pid:
            os.kill(blind, signal.SIGCONT)
    wait_for(lambda: record(new) and not record(gone))
    assert record(stays)["workload"] == f"service/{namespace}/stays"
    assert Peer(role).call("status", group=QUERY)["pid"] != pid


@pytest.mark.usefixtures("running")
def test_a_watcher_that_starts_while_the_server_is_away_takes_nothing_back(control_plane: ControlPlane, namespace: str) -> None:
    address = make_service(control_plane, namespace, "web")
    wait_for(lambda: record(address))
    before = watcher()["pid"]
    control_plane.stop_apiserver(kill_after=0.0)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: watcher()["pid"] != before)
    wait_for(lambda: ask("status")["kubernetes"]["state"] == "failing")
    assert "refused" in ask("status")["kubernetes"]["resources"]["services"]["error"]
    assert record(address)
    control_plane.start_apiserver()
    control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}/services/web")
    wait_for(lambda: ask("status")["kubernetes"]["state"] == "ok" and not record(address))
