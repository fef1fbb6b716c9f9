"""What is watched equals what the API server has, whatever happens between: no missed object, and no ghost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from cluster.sources.api_server import ApiServer, Stream
from cluster.sources.cluster_objects import RESOURCES
from cluster.sources.reflector import Reflector
from cluster.sources.watching import Watching
from tests.kubernetes.changes import Changes
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.network import Proxy
from tests.kubernetes.watched import QUICK, Watched, through, wait_for


@pytest.fixture
def changes(control_plane: ControlPlane, namespace: str) -> Iterator[Changes]:
    """Who changes the cluster."""
    with Changes(control_plane, namespace) as made:
        yield made


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    """A network to the API server that fails on demand."""
    with Proxy(int(control_plane.url.rpartition(":")[2])) as made:
        yield made


@pytest.fixture
def watched(control_plane: ControlPlane, proxy: Proxy, tmp_path: Path) -> Iterator[Watched]:
    """The cluster as it is seen through that network, in step."""
    with Watched(control_plane, through(control_plane, proxy.port, tmp_path)) as made:
        wait_for(made.equals_the_truth, "in step at the start")
        yield made


def test_what_is_made_changed_and_removed(watched: Watched, changes: Changes) -> None:
    changes.some(120)
    wait_for(watched.equals_the_truth, "in step")
    assert watched.count("services", "lists") == 1
    assert all(watched.objects().values()), "some of each resource"
    assert changes.statuses[200] + changes.statuses[201] > 100


def test_a_cut_watch_goes_on_without_a_list(watched: Watched, changes: Changes, proxy: Proxy) -> None:
    changes.some(30)
    proxy.drop()
    changes.some(40)
    proxy.mode = "pass"
    wait_for(watched.equals_the_truth, "in step after a cut")
    assert watched.count("services", "lists") == 1
    assert watched.count("services", "reconnects") >= 1


def test_cut_again_and_again_under_changes(watched: Watched, changes: Changes, proxy: Proxy) -> None:
    ended = threading.Event()

    def cut() -> None:
        while not ended.wait(0.15):
            proxy.limit = 5_000  # in the middle of what the server says
            proxy.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        changes.some(100)
    finally:
        ended.set()
        cutting.join()
    proxy.limit = 0
    wait_for(watched.equals_the_truth, "in step after many cuts")


def test_a_half_open_connection_is_noticed(watched: Watched, changes: Changes, proxy: Proxy) -> None:
    changes.some(20)
    proxy.mode = "hole"
    changes.some(20)
    wait_for(lambda: watched.count("services", "silent") > 0 and watched.resource("services")["state"] == "failing", "noticed")
    proxy.mode = "pass"
    wait_for(watched.equals_the_truth, "in step after a silence")


def test_a_slow_network_is_waited_for(watched: Watched, changes: Changes, proxy: Proxy) -> None:
    proxy.mode = "slow"
    changes.some(40)
    wait_for(watched.equals_the_truth, "in step over a slow network")
    assert watched.count("services", "lists") == 1


def test_a_paused_server(watched: Watched, changes: Changes, control_plane: ControlPlane) -> None:
    changes.some(20)
    control_plane.pause()
    wait_for(lambda: watched.count("nodes", "silent") > 0, "noticed")
    control_plane.resume()
    changes.some(20)
    wait_for(watched.equals_the_truth, "in step after a pause")


def test_a_restarted_server(watched: Watched, changes: Changes, control_plane: ControlPlane) -> None:
    changes.some(30)
    control_plane.restart_apiserver(kill_after=0.0)
    changes.some(30)
    wait_for(watched.equals_the_truth, "in step after a restart")


def test_compaction_while_the_watch_is_cut(watched: Watched, changes: Changes, proxy: Proxy, control_plane: ControlPlane) -> None:
    """A watch from a version that is forgotten gets 410 as an ERROR event; what went meanwhile must be gone."""
    changes.some(60)
    wait_for(watched.equals_the_truth, "in step before")
    proxy.drop()
    changes.remove(0.5)
    changes.some(20)
    control_plane.compact()
    before = sum(len(found) for found in watched.objects().values())
    proxy.mode = "pass"
    wait_for(watched.equals_the_truth, "in step after a compaction")
    assert watched.count("services", "gone") >= 1
    assert before > 0


def test_a_list_whose_next_page_is_forgotten(control_plane: ControlPlane, changes: Changes) -> None:
    """The other dress of 410: HTTP's own status, to a continue token of a version that was compacted."""
    changes.some(60)
    services = replace(next(one for one in RESOURCES if one.name == "services"), page=1)

    class Forgetful(ApiServer):
        """Its first list is overtaken by a compaction, between two pages."""

        asked = 0

        def get(self, path: str, query: Mapping[str, str], accept: str = "application/json", silence: float = 0.0) -> Stream:
            self.asked += 1
            if self.asked == 2:
                changes.some(5)
                control_plane.compact()
            return super().get(path, query, accept, silence)

    server = Forgetful(str(control_plane.admin_kubeconfig))
    watching = Watching(server, Reflector(services), QUICK, lambda: 0.5)
    thread = threading.Thread(target=watching.run)
    thread.start()
    try:
        wait_for(lambda: watching.reflector.version, "listed")
    finally:
        watching.stop()
        thread.join(30)
        server.close()
    assert watching.reflector.counts["gone"] == 1
    _, listed = control_plane.request("GET", services.path)
    assert len(watching.reflector.objects) == len(listed["items"]) > 5


def test_a_server_that_is_away(watched: Watched, changes: Changes, control_plane: ControlPlane) -> None:
    changes.some(30)
    wait_for(watched.equals_the_truth, "in step before")
    held = watched.objects()
    control_plane.stop_apiserver(kill_after=0.0)
    wait_for(
        lambda: all(watching.status()["failures"] > 3 for watching in watched.source.watchings.values()), "it is asked again and again"
    )
    assert watched.objects() == held, "what is known stays known"
    assert watched.source.settled
    control_plane.start_apiserver()
    changes.some(30)
    wait_for(watched.equals_the_truth, "in step after it came back")


# Who we are

RULES = [{"apiGroups": [one.group], "resources": [one.name], "verbs": ["list", "watch"]} for one in RESOURCES]
Account = tuple[str, Callable[[list[dict[str, list[str]]]], None]]


@pytest.fixture
def account(control_plane: ControlPlane, namespace: str) -> Iterator[Account]:
    """A service account, and what gives it rights of the whole cluster."""
    path, name = "/apis/rbac.authorization.k8s.io/v1", f"{namespace}-watcher"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subjects = [{"kind": "ServiceAccount", "name": "watcher", "namespace": namespace}]

    def grant(rules: list[dict[str, list[str]]]) -> None:
        body = {"metadata": {"name": name}, "rules": rules}
        assert control_plane.request("PUT", f"{path}/clusterroles/{name}", body)[0] in (200, 201)

    control_plane.request("POST", f"{path}/clusterrolebindings", {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects})
    yield f"{namespace}/watcher", grant
    for kind in ("clusterroles", "clusterrolebindings"):
        control_plane.request("DELETE", f"{path}/{kind}/{name}")


def watched_by_token(plane: ControlPlane, account: str, how: str, patch: pytest.MonkeyPatch, folder: Path) -> Watched:
    """By the service account's directory, as in a pod, or by a kubeconfig that names the token's file."""
    directory = plane.service_account(account)
    if how == "pod":
        address = urlsplit(plane.url)
        patch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
        patch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
        return Watched(plane, service_account=str(directory))
    config = yaml.safe_load(plane.admin_kubeconfig.read_text())
    config["users"][0]["user"] = {"tokenFile": str(directory / "token")}
    path = folder / "token-file.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return Watched(plane, path)


@pytest.mark.parametrize("how", ["pod", "kubeconfig"])
def test_credentials_that_expire(
    control_plane: ControlPlane, account: Account, changes: Changes, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The token's service account is deleted, and another one of that name gets a token: every request is 401 until the file is read."""
    name, grant = account
    grant(RULES)
    namespace, own = name.split("/")
    with watched_by_token(control_plane, name, how, monkeypatch, tmp_path) as watched:
        wait_for(watched.equals_the_truth, "in step at the start")
        status, _ = control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}/serviceaccounts/{own}")
        assert status == 200
        changes.some(20)
        control_plane.restart_apiserver(kill_after=0.0)  # or the watches would go on with the old token
        changes.some(10)
        wait_for(lambda: "services: Unauthorized" in watched.resource("services")["error"], "401")
        control_plane.service_account(name)
        wait_for(watched.equals_the_truth, "in step with the new token")
        assert watched.server.generation > 0


def test_a_right_that_is_missing_is_named_and_taken_up_when_given(
    control_plane: ControlPlane, account: Account, changes: Changes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, grant = account
    grant([rule for rule in RULES if rule["resources"] != ["jobs"]])
    changes.some(30)
    with watched_by_token(control_plane, name, "pod", monkeypatch, tmp_path) as watched:
        wait_for(lambda: watched.source.settled, "settled without Jobs")
        jobs = watched.resource("jobs")
        assert jobs["state"] == "forbidden"
        assert 'the ClusterRole lacks the rule apiGroups: ["batch"], resources: ["jobs"], verbs: ["list", "watch"]' in jobs["error"]
        assert watched.resource("services")["state"] == "synced"
        assert watched.records()
        grant(RULES)
        wait_for(watched.equals_the_truth, "in step once the right is there")
