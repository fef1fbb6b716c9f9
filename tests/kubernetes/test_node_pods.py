"""`kubelet.mode: apiserver`: one node's pods from the real API server, with the rights of a service account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from cluster.core.errors import SourceAbsent, SourceError
from cluster.core.kinds import record
from cluster.sources.pod_servers import ApiServer
from configs.settings import KubeletSettings
from tests.kubernetes.control_plane import ControlPlane

RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}  # what the overlay for this mode gives


@pytest.fixture
def settings(control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> KubeletSettings:
    """As a pod with a service account of that namespace finds them."""
    place = urlsplit(control_plane.url)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(place.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(place.port))
    return KubeletSettings(mode="apiserver", service_account=str(control_plane.service_account(f"{namespace}/node")))


@pytest.fixture
def allowed(control_plane: ControlPlane, namespace: str) -> Iterator[None]:
    """The service account may list pods, and nothing else."""
    group = "/apis/rbac.authorization.k8s.io/v1"
    name = {"name": namespace}
    subject = {"kind": "ServiceAccount", "name": "node", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace}
    demand(control_plane, "POST", f"{group}/clusterroles", {"metadata": name, "rules": [RULE]})
    demand(control_plane, "POST", f"{group}/clusterrolebindings", {"metadata": name, "roleRef": reference, "subjects": [subject]})
    yield
    for kind in ("clusterrolebindings", "clusterroles"):
        demand(control_plane, "DELETE", f"{group}/{kind}/{namespace}")


def demand(control_plane: ControlPlane, method: str, path: str, body: Any = None) -> None:
    status, answer = control_plane.request(method, path, body)
    assert status < 300, answer


def make_pod(control_plane: ControlPlane, namespace: str, name: str, node: str, address: str) -> None:
    """A pod as a kubelet would have it run; no kubelet does here."""
    secret = {"name": "PW", "value": "hunter2-do-not-tell"}
    container = {"name": "web", "image": "shop/web:1", "ports": [{"containerPort": 8080}], "env": [secret], "args": ["hunter2-do-not-tell"]}
    pods = f"/api/v1/namespaces/{namespace}/pods"
    demand(control_plane, "POST", pods, {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container]}})
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": "2026-11-23T23:15:27Z"}
    control_plane.kubectl(
        "patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", str({"status": status}).replace("'", '"')
    )


@pytest.mark.usefixtures("allowed")
def test_only_this_nodes_pods_are_listed_also_page_by_page(control_plane: ControlPlane, namespace: str, settings: KubeletSettings) -> None:
    node = f"node-{namespace}"
    for number in range(5):
        make_pod(control_plane, namespace, f"web-{number}", node, f"10.244.0.{number + 1}")
    make_pod(control_plane, namespace, "other", f"other-{namespace}", "10.244.1.1")
    cached, paged = ApiServer(settings, node).pods(), ApiServer(settings, node, page=2, cached=False).pods()
    for page in (cached, paged):
        assert (page.refused, page.left_out, page.more) == (0, 0, "")
        assert sorted((each.pod.name, each.pod.addresses) for each in page.found) == [
            (f"web-{number}", (f"10.244.0.{number + 1}",)) for number in range(5)
        ]
    one = record(cached.found[0].pod)
    assert (one["node"], one["namespace"], one["phase"], one["started"]) == (node, namespace, "Running", 1_795_475_727)
    assert one["containers"] == [{"name": "web", "image": "shop/web:1", "ports": ["8080/tcp"]}]
    assert "hunter2" not in repr((cached, paged))
    assert ApiServer(settings, f"none-{namespace}").pods().found == ()


def test_without_the_rule_the_message_says_what_is_lacking(settings: KubeletSettings) -> None:
    with pytest.raises(SourceError, match=r"HTTP 403 .*cannot list resource.*needs the verb list on pods: apply the overlay"):
        ApiServer(settings, "worker-1").pods()


@pytest.mark.usefixtures("allowed")
def test_a_token_that_ended_and_a_server_that_is_away_are_told_apart(
    control_plane: ControlPlane, settings: KubeletSettings, tmp_path: Any
) -> None:
    wrong = tmp_path / "account"
    wrong.mkdir()
    (wrong / "token").write_text("eyJhbGciOiJSUzI1NiJ9.e30.x")
    (wrong / "ca.crt").write_text(control_plane.ca_file.read_text())
    with pytest.raises(SourceError, match="HTTP 401: the API server does not accept the token"):
        ApiServer(settings.model_copy(update={"service_account": str(wrong)}), "worker-1").pods()
    control_plane.stop_apiserver(kill_after=0.0)
    with pytest.raises(SourceAbsent, match="Connection refused; is the API server up"):
        ApiServer(settings, "worker-1").pods()
    control_plane.start_apiserver()
    assert ApiServer(settings, "worker-1").pods().found == ()
