"""What the other tests of this folder rest on: the control plane refuses, remembers, forgets and stalls as a real one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as kubernetes_client
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError, ReadTimeoutError

from tests.kubernetes.control_plane import ControlPlane

VERSIONS = dict(re.findall(r"^\t(\S+) v(\S+) // indirect$", (Path(__file__).parent / "go.mod").read_text(), re.MULTILINE))


def core(client: Any) -> Any:
    return kubernetes_client.CoreV1Api(client)


def eventually(true: Callable[[], object], seconds: float = 30.0) -> None:
    """RBAC and tokens are cached by the API server: what changed holds a moment later."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not true in time"
        time.sleep(0.05)


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except ApiException as error:
        return int(error.status)
    return 200


def config_map(plane: ControlPlane, namespace: str, name: str) -> str:
    """Make one; its resource version."""
    body = {"metadata": {"name": name}, "data": {"key": "value"}}
    status, answer = plane.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body)
    assert status == 201, answer
    return str(answer["metadata"]["resourceVersion"])


def test_the_servers_are_the_releases_that_go_mod_pins(control_plane: ControlPlane) -> None:
    told = json.loads(control_plane.kubectl("version", "--output=json").stdout)
    assert {told[side]["gitVersion"] for side in ("clientVersion", "serverVersion")} == {f"v{VERSIONS['k8s.io/kubernetes']}"}
    assert control_plane.request("GET", "/openapi/v3")[0] == 200


# Who may do what


def test_a_service_account_may_what_a_role_says_and_nothing_else(control_plane: ControlPlane, namespace: str) -> None:
    api = core(control_plane.client(f"{namespace}/reader"))
    assert status_of(lambda: api.list_namespaced_config_map(namespace)) == 403
    control_plane.kubectl("-n", namespace, "create", "role", "reads", "--verb=list", "--resource=configmaps")
    control_plane.kubectl("-n", namespace, "create", "rolebinding", "reads", "--role=reads", f"--serviceaccount={namespace}:reader")
    eventually(lambda: status_of(lambda: api.list_namespaced_config_map(namespace)) == 200)
    assert status_of(lambda: api.list_namespaced_secret(namespace)) == 403


def test_whoever_the_admin_impersonates_has_that_ones_rights(control_plane: ControlPlane, namespace: str) -> None:
    user = f"system:serviceaccount:{namespace}:default"
    assert status_of(lambda: core(control_plane.client()).list_namespaced_secret(namespace)) == 200
    assert status_of(lambda: core(control_plane.client(impersonate=user)).list_namespaced_secret(namespace)) == 403
    assert "no" in control_plane.kubectl("auth", "can-i", "list", "secrets", impersonate=user, check=False).stdout
    told = control_plane.kubectl("auth", "whoami", "--output=json", impersonate=user).stdout
    assert f"system:serviceaccounts:{namespace}" in json.loads(told)["status"]["userInfo"]["groups"]


def test_a_client_certificate_names_a_user_and_groups(control_plane: ControlPlane) -> None:
    kubeconfig = control_plane.user_kubeconfig("system:node:worker-1", "system:nodes")
    told = control_plane.kubectl(f"--kubeconfig={kubeconfig}", "auth", "whoami", "--output=json").stdout
    assert json.loads(told)["status"]["userInfo"]["username"] == "system:node:worker-1"
    assert "system:nodes" in json.loads(told)["status"]["userInfo"]["groups"]


def test_a_token_names_its_service_account_and_ends_with_it(control_plane: ControlPlane, namespace: str) -> None:
    account = control_plane.service_account(f"{namespace}/short-lived")
    assert (account / "namespace").read_text() == namespace
    assert "BEGIN CERTIFICATE" in (account / "ca.crt").read_text()
    kubeconfig = f"--kubeconfig={control_plane.kubeconfig(f'{namespace}/short-lived')}"
    told = json.loads(control_plane.kubectl(kubeconfig, "auth", "whoami", "--output=json").stdout)
    assert told["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:short-lived"

    api = core(control_plane.client(f"{namespace}/short-lived"))  # a token that the server has not seen: it keeps those for 10 s
    control_plane.kubectl("-n", namespace, "delete", "serviceaccount", "short-lived")
    eventually(lambda: status_of(lambda: api.list_namespaced_pod(namespace)) == 401)


def test_a_token_is_renewed_in_place(control_plane: ControlPlane, namespace: str) -> None:
    tokens = {(control_plane.service_account(f"{namespace}/default") / "token").read_text() for _ in range(2)}
    assert len(tokens) == 2


def test_nobody_is_refused(control_plane: ControlPlane) -> None:
    configuration = kubernetes_client.Configuration(host=control_plane.url)
    configuration.ssl_ca_cert = str(control_plane.ca_file)
    with kubernetes_client.ApiClient(configuration) as client:
        assert status_of(lambda: core(client).list_namespace()) == 403
        client.set_default_header("Authorization", "Bearer nonsense")
        assert status_of(lambda: core(client).list_namespace()) == 401


# Failing


def test_a_stopped_server_refuses_connections_and_a_restarted_one_knows_everything(control_plane: ControlPlane, namespace: str) -> None:
    version = config_map(control_plane, namespace, "kept")
    url, api = control_plane.url, core(control_plane.client(f"{namespace}/default"))
    control_plane.stop_apiserver()
    with pytest.raises(ConnectionRefusedError):
        control_plane.request("GET", "/readyz")
    control_plane.start_apiserver()
    assert control_plane.url == url
    kept = core(control_plane.client()).read_namespaced_config_map("kept", namespace)
    assert (kept.metadata.resource_version, kept.data) == (version, {"key": "value"})
    assert status_of(lambda: api.list_namespaced_pod(namespace)) == 403  # the token is still one


def test_a_paused_server_accepts_a_connection_and_says_nothing(control_plane: ControlPlane) -> None:
    control_plane.pause()
    with pytest.raises(TimeoutError):
        control_plane.request("GET", "/readyz", timeout=0.5)
    control_plane.resume()
    assert control_plane.request("GET", "/readyz")[0] == 200


def test_a_server_that_a_test_leaves_paused_or_stopped_is_mended(control_plane: ControlPlane) -> None:
    control_plane.pause()
    control_plane.ensure()
    assert control_plane.request("GET", "/readyz")[0] == 200
    control_plane.stop_apiserver(kill_after=0.0)
    control_plane.processes["etcd"].stop()
    control_plane.ensure()
    assert control_plane.request("GET", "/readyz")[0] == 200


def test_a_watch_ends_when_the_server_is_restarted(control_plane: ControlPlane, namespace: str) -> None:
    watch, api = Watch(), core(control_plane.client())
    version = config_map(control_plane, namespace, "first")
    config_map(control_plane, namespace, "second")
    events = watch.stream(api.list_namespaced_config_map, namespace, resource_version=version, _request_timeout=30)
    assert next(events)["object"].metadata.name == "second"
    control_plane.restart_apiserver(kill_after=0.0)
    with pytest.raises((StopIteration, HTTPError)):
        next(events)
    watch.stop()


def test_compaction_answers_410_to_an_old_watch_and_an_old_list(control_plane: ControlPlane, namespace: str) -> None:
    api = core(control_plane.client())
    old = config_map(control_plane, namespace, "first")
    config_map(control_plane, namespace, "second")
    token = api.list_namespaced_config_map(namespace, limit=1).metadata._continue
    assert [event["object"].metadata.name for event in watched(api, namespace, old)] == ["second"]

    assert control_plane.compact() > int(old)
    assert status_of(lambda: list(watched(api, namespace, old))) == 410
    with pytest.raises(ApiException) as failed:
        api.list_namespaced_config_map(namespace, limit=1, _continue=token)
    assert failed.value.status == 410
    assert json.loads(str(failed.value.body))["metadata"]["continue"]
    now = api.list_namespaced_config_map(namespace)
    assert [item.metadata.name for item in now.items if item.metadata.name != "kube-root-ca.crt"] == ["first", "second"]


def watched(api: Any, namespace: str, version: str) -> list[Any]:
    """The events since a resource version, until nothing comes for a second."""
    found = []
    try:
        for event in Watch().stream(api.list_namespaced_config_map, namespace, resource_version=version, _request_timeout=1):
            found.append(event)
    except ReadTimeoutError:
        pass
    return found


# Fixtures


def test_a_removed_namespace_is_gone_with_what_was_in_it(control_plane: ControlPlane) -> None:
    control_plane.make_namespace("passing")
    config_map(control_plane, "passing", "one")
    control_plane.remove_namespace("passing")
    assert control_plane.request("GET", "/api/v1/namespaces/passing")[0] == 404
    assert control_plane.request("GET", "/api/v1/namespaces/passing/configmaps/one")[0] == 404


def test_another_control_plane_takes_further_arguments(control_plane: ControlPlane, new_control_plane: Callable[..., ControlPlane]) -> None:
    other = new_control_plane(etcd=["--quota-backend-bytes=1000000"], apiserver=["--max-requests-inflight=7"])
    assert other.url != control_plane.url
    full = {"metadata": {"name": "large"}, "data": {"key": "x" * 900_000}}
    answers = [other.request("POST", "/api/v1/namespaces/default/configmaps", full | {"metadata": {"name": f"n{n}"}}) for n in range(5)]
    assert "database space exceeded" in str(answers[-1])


def test_controllers_make_the_slices_of_a_service_and_collect_what_is_orphaned(controllers: ControlPlane, namespace: str) -> None:
    controllers.kubectl("-n", namespace, "create", "service", "clusterip", "web", "--tcp=80:8080")
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    eventually(lambda: controllers.request("GET", slices)[1]["items"])
    controllers.kubectl("-n", namespace, "delete", "service", "web")
    eventually(lambda: not controllers.request("GET", slices)[1]["items"])
