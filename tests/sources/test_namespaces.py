from __future__ import annotations

from pathlib import Path

import pytest

from cluster.sources.namespaces import Namespaces, Tenant, net_ns_of

MACHINE, WEB, SHOP = 4_026_531_840, 4_026_532_500, 4_026_532_600


def ident(pid: int) -> str:
    return f"{pid:064x}"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc in a folder, with the machine's first process."""
    place(tmp_path, 1, MACHINE)
    return tmp_path


def place(proc: Path, pid: int, net_ns: int, container: str | None = None) -> None:
    """A process of a container, in a network namespace."""
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True, exist_ok=True)
    (folder / "cgroup").write_text(f"0::/docker/{container or ident(pid)}\n")
    (folder / "ns/net").unlink(missing_ok=True)
    (folder / "ns/net").symlink_to(f"net:[{net_ns}]")


def tenant(name: str, pid: int, network: str | None = None) -> Tenant:
    return Tenant(ident(pid), f"container/{name}", pid, ident(pid) if network is None else network)


def known(proc: Path, *tenants: Tenant) -> Namespaces:
    """After two reads."""
    namespaces = Namespaces(str(proc))
    for _ in range(2):
        namespaces.update(tenants)
    return namespaces


def test_a_namespace_of_its_own_is_the_containers_from_the_second_read_on(proc: Path) -> None:
    place(proc, 7, WEB)
    namespaces = Namespaces(str(proc))
    namespaces.update([tenant("web", 7)])
    assert namespaces.workload_of(WEB) == ""
    namespaces.update([tenant("web", 7)])
    assert (namespaces.workload_of(WEB), namespaces.workload_of(SHOP), namespaces.workload_of(0)) == ("container/web", "", "")


def test_the_machines_namespace_has_no_owner_whatever_docker_calls_it(proc: Path) -> None:
    place(proc, 7, MACHINE)
    place(proc, 8, SHOP)
    namespaces = known(proc, tenant("web", 7), tenant("host", 8, network=""))
    assert [namespaces.workload_of(net_ns) for net_ns in (MACHINE, SHOP)] == ["", ""]


def test_a_shared_namespace_has_no_owner_also_where_one_pid_is_not_known(proc: Path) -> None:
    place(proc, 7, WEB)
    place(proc, 8, WEB)
    assert known(proc, tenant("web", 7), tenant("side", 8)).workload_of(WEB) == ""
    side = Tenant(ident(9), "container/side", 0, network=ident(7))
    assert known(proc, tenant("web", 7), side).workload_of(WEB) == ""
    assert known(proc, tenant("web", 7), Tenant(ident(9), "container/other", 0, ident(9))).workload_of(WEB) == "container/web"


def test_a_namespace_whose_container_ended_has_no_owner_also_if_its_number_or_pid_is_used_again(proc: Path) -> None:
    place(proc, 7, WEB)
    namespaces = known(proc, tenant("web", 7))
    place(proc, 7, WEB, container=ident(99))
    assert namespaces.workload_of(WEB) == ""
    place(proc, 7, SHOP)
    assert namespaces.workload_of(WEB) == ""
    place(proc, 8, WEB)
    namespaces.update([tenant("next", 8)])
    assert namespaces.workload_of(WEB) == ""
    namespaces.update([tenant("next", 8)])
    assert namespaces.workload_of(WEB) == "container/next"
    namespaces.update([])
    assert namespaces.workload_of(WEB) == ""


@pytest.mark.parametrize("link", ["net:[x]", "pid:[4026532500]", "net:[4026532500] ", "/"])
def test_what_is_no_namespace_is_none(proc: Path, link: str) -> None:
    (proc / "1/ns/net").unlink()
    (proc / "1/ns/net").symlink_to(link)
    assert net_ns_of(str(proc), 1) == 0
    assert net_ns_of(str(proc), 2) == 0


def pod_tenant(pid: int, uid: str = "uid-1", name: str = "web", network: str | None = None) -> Tenant:
    return Tenant(ident(pid), f"pod/shop/{name}", pid, uid if network is None else network)


def test_the_containers_of_one_pod_share_its_namespace_and_the_pod_owns_it(proc: Path) -> None:
    for pid in (7, 8, 9):
        place(proc, pid, WEB)
    namespaces = Namespaces(str(proc))
    for _ in range(2):
        namespaces.update([pod_tenant(7), pod_tenant(8), pod_tenant(9)], "kubelet")
    assert namespaces.workload_of(WEB) == "pod/shop/web"
    place(proc, 7, SHOP, container=ident(70))
    assert namespaces.workload_of(WEB) == "pod/shop/web", "one container ended, the others hold the namespace"
    namespaces.update([pod_tenant(70), pod_tenant(8), pod_tenant(9)], "kubelet")
    assert namespaces.workload_of(WEB) == "pod/shop/web", "a container that was started again does not make it another pod"
    for pid in (8, 9):
        place(proc, pid, SHOP, container=ident(pid + 70))
    assert namespaces.workload_of(WEB) == ""


def test_two_pods_or_a_pod_and_a_container_in_one_namespace_leave_it_without_an_owner(proc: Path) -> None:
    for pid in (7, 8):
        place(proc, pid, WEB)
    namespaces = Namespaces(str(proc))
    for _ in range(2):
        namespaces.update([pod_tenant(7), pod_tenant(8, "uid-2", "other")], "kubelet")
    assert namespaces.workload_of(WEB) == ""
    for _ in range(3):
        namespaces.update([pod_tenant(7)], "kubelet")
        namespaces.update([tenant("guest", 8)], "docker")
    assert namespaces.workload_of(WEB) == ""
    for _ in range(2):
        namespaces.update([], "docker")
        namespaces.update([pod_tenant(7)], "kubelet")
    assert namespaces.workload_of(WEB) == "pod/shop/web"


def test_each_source_needs_two_reads_of_its_own_and_forgets_only_its_own(proc: Path) -> None:
    place(proc, 7, WEB)
    place(proc, 8, SHOP)
    namespaces = Namespaces(str(proc))
    namespaces.update([pod_tenant(7)], "kubelet")
    for _ in range(3):
        namespaces.update([tenant("shop", 8)], "docker")
    assert [namespaces.workload_of(net_ns) for net_ns in (WEB, SHOP)] == ["", "container/shop"]
    namespaces.update([pod_tenant(7)], "kubelet")
    assert [namespaces.workload_of(net_ns) for net_ns in (WEB, SHOP)] == ["pod/shop/web", "container/shop"]
    namespaces.update([], "docker")
    assert [namespaces.workload_of(net_ns) for net_ns in (WEB, SHOP)] == ["pod/shop/web", ""]


def test_a_host_network_pod_owns_nothing_wherever_it_is(proc: Path) -> None:
    place(proc, 7, MACHINE)
    place(proc, 8, SHOP)
    namespaces = Namespaces(str(proc))
    for _ in range(2):
        namespaces.update([pod_tenant(7), pod_tenant(8, network="")], "kubelet")
    assert [namespaces.workload_of(net_ns) for net_ns in (MACHINE, SHOP)] == ["", ""]


def test_a_namespace_that_gets_another_pod_waits_for_a_second_read(proc: Path) -> None:
    place(proc, 7, WEB)
    namespaces = Namespaces(str(proc))
    for _ in range(2):
        namespaces.update([pod_tenant(7)], "kubelet")
    for expected in ("", "pod/shop/next"):
        namespaces.update([pod_tenant(7, "uid-2", "next")], "kubelet")
        assert namespaces.workload_of(WEB) == expected
