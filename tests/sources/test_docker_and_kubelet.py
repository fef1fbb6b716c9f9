"""Docker beside a kubelet on one machine, with real containers: one container has one claim."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.sources import registry
from cluster.sources.containers import Containers
from cluster.sources.docker import DockerSource
from cluster.sources.kubelet import KubeletSource
from cluster.sources.registry import Machine
from configs.settings import KubeletSettings
from tests.sources.docker_daemon import Dockerd
from tests.sources.kubelet_node import Fixed
from tests.sources.test_pods import pod


def test_beside_a_kubelet_one_container_has_one_claim(dockerd: Dockerd) -> None:
    """A pod's container, its pause container, a container that only looks like nothing's, and one that Docker runs for itself."""
    uid = "d20251d6-5e49-4860-bb5b-58e2741948a7"
    pause = dockerd.run("k8s_POD_web", "--network", "none", "--label", f"io.kubernetes.pod.uid={uid}")
    web = dockerd.run("k8s_web_web", "--network", f"container:{pause}", "--label", f"io.kubernetes.pod.uid={uid}")
    bare = dockerd.run("unlabelled", "--network", f"container:{pause}")
    own = dockerd.run("registry", "--network", "none")
    states = [{"name": name, "containerID": f"docker://{each}", "state": {"running": {}}} for name, each in (("web", web), ("bare", bare))]
    pods = [pod(metadata__uid=uid, spec__containers=[{"name": "web"}, {"name": "bare"}], status__containerStatuses=states)]
    machine = Machine("here", docker_socket=dockerd.socket, kubelet=KubeletSettings(mode="kubelet"))
    docker, containers = registry.docker(machine), Containers()
    assert isinstance(docker, DockerSource)
    kubelet = KubeletSource(Fixed(json.dumps({"items": pods}).encode()), containers, machine.workloads, machine.namespaces)
    net_ns = {name: Path(f"/proc/{dockerd.inspect(name)['State']['Pid']}/ns/net").stat().st_ino for name in ("k8s_POD_web", "registry")}
    for _ in range(3):
        by_kubelet, by_docker = kubelet.read(), docker.read()
    claimed = {each["id"]: each["pid"] for record in by_kubelet.values() for each in record["containers"]}
    assert claimed == {each: dockerd.inspect(each)["State"]["Pid"] for each in (web, bare)}
    assert {identity for _, identity in by_docker} == {own}
    assert docker.status()["of_pods"] == 3
    assert machine.workloads == {uid: "pod/shop/cart-x2x", web: "pod/shop/cart-x2x", bare: "pod/shop/cart-x2x", own: "container/registry"}
    assert machine.namespaces.workload_of(net_ns["k8s_POD_web"]) == "pod/shop/cart-x2x"
    assert machine.namespaces.workload_of(net_ns["registry"]) == "container/registry"
    assert machine.processes.workload_of(claimed[web]) == "pod/shop/cart-x2x"


def test_what_the_kubelet_names_later_docker_gives_up_without_taking_the_name_away(dockerd: Dockerd) -> None:
    web = dockerd.run("web", "--network", "none")
    machine = Machine("here", docker_socket=dockerd.socket, kubelet=KubeletSettings(mode="kubelet"))
    docker = registry.docker(machine)
    assert docker is not None
    docker.read()
    assert machine.workloads == {web: "container/web"}
    states = [{"name": "web", "containerID": f"docker://{web}", "state": {"running": {}}}]
    fixed = Fixed(json.dumps({"items": [pod(status__containerStatuses=states)]}).encode())
    kubelet = KubeletSource(fixed, Containers(), machine.workloads, machine.namespaces)
    kubelet.read()
    assert docker.read() == {}
    assert machine.workloads[web] == "pod/shop/cart-x2x"
    fixed.body = b'{"items": []}'
    kubelet.read()
    docker.read()
    assert machine.workloads == {web: "container/web"}
