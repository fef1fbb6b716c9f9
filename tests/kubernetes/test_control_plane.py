"""What the other tests of this folder rest on: the control plane refuses, remembers, forgets and stalls as a real one."""

from __future__ import annotations

import pytest
from kubernetes import client as kubernetes_client
from kubernetes.client.exceptions import ApiException

from tests.kubernetes.control_plane import ControlPlane


def core(client: object) -> kubernetes_client.CoreV1Api:
    return kubernetes_client.CoreV1Api(client)


def test_a_service_account_may_what_a_role_says_and_nothing_else(control_plane: ControlPlane, namespace: str) -> None:
    api = core(control_plane.client(f"{namespace}/reader"))
    with pytest.raises(ApiException, match="403"):
        api.list_namespaced_config_map(namespace)
    control_plane.kubectl("-n", namespace, "create", "role", "reads", "--verb=list", "--resource=configmaps")
    control_plane.kubectl("-n", namespace, "create", "rolebinding", "reads", "--role=reads", f"--serviceaccount={namespace}:reader")
    assert api.list_namespaced_config_map(namespace).items == []
    with pytest.raises(ApiException, match="403"):
        api.list_namespaced_secret(namespace)
