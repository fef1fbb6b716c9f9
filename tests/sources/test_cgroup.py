from pathlib import Path

import pytest

from cluster.sources.cgroup import Membership, parse
from cluster.sources.inside import INITIAL, own_pod

A, B = "3f" * 32, "b7" * 32
UID = "d20251d6-5e49-4860-bb5b-58e2741948a7"
PODS = f"/kubepods/burstable/pod{UID}"
SLICE = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podd20251d6_5e49_4860_bb5b_58e2741948a7.slice"
RECORDED = (
    Path(__file__).parent / "data" / "kubelet-cgroups.txt"
)  # read beside a kubelet with containerd, cgroupfs driver, hybrid hierarchy


@pytest.mark.parametrize(
    "path",
    [
        f"/docker/{A}",
        f"/system.slice/docker-{A}.scope",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
        f"/docker/{A}/system.slice/nginx.service",
        f"{PODS}/{A}",
        f"/kubepods/pod1fa57c93-1490-4d1b-b543-24ac5ad1b3ae/{A}",
        f"{PODS}/crio-{A}",
        f"{SLICE}/cri-containerd-{A}.scope",
        f"{SLICE}/crio-{A}.scope",
        f"{SLICE}/docker-{A}.scope",
        f"{SLICE}/crio-{A}.scope/container",
        f"/system.slice/containerd.service/kubepods-burstable-podd20251d6_5e49.slice:cri-containerd:{A}",
        f"/machine.slice/libpod-{A}.scope/container",
        f"/../../{A}",
        f"/default/{A} (deleted)",
        f"/ecs/0123456789abcdef/{A}",
    ],
)
@pytest.mark.parametrize("form", ["0::{}", "4:memory:{}\n1:cpu:{}", "9:name=systemd:{}\n4:memory:/\n0::/", "4:memory:{}\n0::/"])
def test_a_container_is_found_in_every_layout(path: str, form: str) -> None:
    assert parse(form.replace("{}", path)).containers == (A,)


def test_the_recorded_lines_of_a_kubelet_name_their_containers() -> None:
    blocks = RECORDED.read_text().split("== ")[1:]
    found = [parse(block.split("\n", 1)[1]) for block in blocks]
    assert [each.pod for each in found] == [UID, "8a973881-3f63-4780-a299-4a1adfa3cc00", "1fa57c93-1490-4d1b-b543-24ac5ad1b3ae", UID]
    assert [[container[:12] for container in each.containers] for each in found] == [
        ["39592756c740"],
        ["ba98245732e4"],
        ["52580ddc7766"],
        ["45763282f515"],
    ]


def test_a_container_inside_a_container_comes_last() -> None:
    assert parse(f"0::/docker/{A}/docker/{B}").containers == (A, B)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/docker/{A[:63]}",
        f"/docker/{A}0",
        f"/docker/{A.upper()}",
        f"{PODS}/crio-conmon-{A}",
        f"/machine.slice/libpod-conmon-{A}.scope",
        f"/foo-{A}.slice",
        "/process_api/bdb4706b801692cd8c017c02c74a2c77",
    ],
)
def test_what_is_no_container_is_none(path: str) -> None:
    assert parse(f"0::{path}").containers == ()


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/ssh.service", "ssh.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/postgresql.service/postgres-main", "postgresql.service"),
        ("/system.slice/_cgroup.helper.service", "cgroup.helper.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service", "syncthing.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-4242.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", "machine-qemu\\x2d1\\x2dvm.scope"),
        ("/system.slice/run-r0d3a.scope", ""),
        ("/init.scope", ""),
        ("/", ""),
    ],
)
@pytest.mark.parametrize("form", ["0::{}", "4:memory:/\n1:name=systemd:{}\n0::/", "1:name=systemd:{}\n0::{}"])
def test_the_unit_is_the_innermost_one_that_tells_something(path: str, unit: str, form: str) -> None:
    assert parse(form.replace("{}", path)) == Membership((), unit)


@pytest.mark.parametrize("text", ["", "\n\n", "0:", ":::::", "no colon", "0::\x00\x00", "0::" + "/a" * 100_000, f"0::{'-' * 70_000}"])
def test_anything_else_is_no_membership(text: str) -> None:
    assert parse(text) == Membership()


FORMS = ["0::{}", "4:memory:{}\n1:cpu:{}", "9:name=systemd:{}\n4:memory:/\n0::/", "4:memory:{}\n0::/"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"{PODS}/{A}", A),  # containerd and CRI-O's pause container, cgroupfs
        (f"/kubepods/besteffort/pod{UID}/crio-{A}", A),
        (f"/kubepods/pod{UID}/{A}", A),
        (f"{SLICE}/cri-containerd-{A}.scope", A),
        (f"{SLICE}/crio-{A}.scope", A),
        (f"{SLICE}/crio-{A}.scope/container", A),
        (f"{SLICE}/docker-{A}.scope", A),
        (f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{A}.scope", A),
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{A}.scope", A),
        (f"/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}", A),  # a node that is itself a container
        (f"/system.slice/containerd.service/kubepods-burstable-pod{UID.replace('-', '_')}.slice:cri-containerd:{A}", A),
        (f"/../../kubepods-besteffort-pod{UID.replace('-', '_')}.slice/cri-containerd-{A}.scope", A),
        (f"{SLICE}/crio-conmon-{A}.scope", None),  # beside the container, in the pod
        (PODS, None),
    ],
)
def test_a_pod_is_found_in_every_layout(path: str, container: str | None, form: str) -> None:
    found = parse(form.replace("{}", path))
    assert found.pod == UID
    assert found.containers[-1:] == ((container,) if container else ())


def test_a_pod_from_a_file_of_the_node_has_a_uid_without_dashes() -> None:
    digits = "0123456789abcdef" * 2
    for path in (f"/kubepods/burstable/pod{digits}/{A}", f"/kubepods.slice/kubepods-burstable-pod{digits}.slice/crio-{A}.scope"):
        assert parse(f"0::{path}").pod == digits


@pytest.mark.parametrize(
    "path", ["/podman/x", f"/pod{UID}x/{A}", f"/tripod{UID}/{A}", f"/docker/{A}", f"/machine.slice/libpod-{A}.scope", "/pod"]
)
def test_what_is_no_pod_is_none(path: str) -> None:
    assert parse(f"0::{path}").pod == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/\n", Membership(pod=UID)),
        ("0::/init.scope\n", Membership(pod=UID)),
        (f"0::/../cri-containerd-{A}.scope\n", Membership((A,))),
        (f"0::/../../kubepods-pod{UID.replace('-', '_')}.slice/crio-{A}.scope\n", Membership((A,), pod=UID)),
        ("0::/../../../../system.slice/ssh.service\n", Membership((), "ssh.service")),
        ("0::/../../../..\n", Membership()),
        ("", Membership()),
    ],
)
def test_below_our_own_cgroup_is_our_own_pod(text: str, expected: Membership) -> None:
    found = parse(text, inside=UID)
    assert (found.containers, found.pod) == (expected.containers, expected.pod)
    assert found.unit in (expected.unit, f"crio-{A}.scope", f"cri-containerd-{A}.scope")


def test_our_own_pod_is_read_from_what_the_kubelet_mounts(tmp_path: Path) -> None:
    (tmp_path / "ns").mkdir()
    link = tmp_path / "ns/cgroup"
    link.symlink_to("cgroup:[4026532700]")
    assert own_pod(tmp_path) == ""
    mounts = f"""1 0 0:50 / / rw - overlay overlay rw
2 1 8:1 /var/lib/kubelet/pods/11111111-1111-1111-1111-111111111111/volumes/x /data rw - ext4 /dev/sda1 rw
3 1 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
short
"""
    (tmp_path / "mountinfo").write_text(mounts)
    assert own_pod(tmp_path) == UID
    (tmp_path / "mountinfo").write_text(mounts.replace("etc-hosts", "hosts"))
    assert own_pod(tmp_path) == ""
    (tmp_path / "mountinfo").write_text(mounts)
    link.unlink()
    link.symlink_to(INITIAL)
    assert own_pod(tmp_path) == "", "cgroup paths are whole there"
