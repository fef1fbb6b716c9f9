"""What a process belongs to, from the text of /proc/PID/cgroup: containers, a pod and a systemd unit.

One line per hierarchy, `number:controllers:path` (cgroups(7)); version 2 alone is the line `0::path`. Container paths of the runtimes:

    docker, cgroupfs driver        /docker/<id>
    docker, systemd driver         /system.slice/docker-<id>.scope
    Kubernetes, cgroupfs           /kubepods/burstable/pod<uid>/<id>, CRI-O /kubepods/.../pod<uid>/crio-<id>
    Kubernetes, systemd            /kubepods.slice/.../kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope (crio-, docker-)
    containerd, drivers mixed      /system.slice/containerd.service/kubepods-...-pod<uid>.slice:cri-containerd:<id>
    podman                         /machine.slice/libpod-<id>.scope/container

<uid> is the pod's, with `_` for `-` in the names of slices; a pod from a file of the node has 32 digits without. Whoever reads the text
in a cgroup namespace of his own sees paths from his own cgroup on (cgroup_namespaces(7)): /../../kubepods-...-pod<uid>.slice/... for
other pods, /../cri-containerd-<id>.scope for other containers of his own pod, and / for his own container, where neither is said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CONTAINER = re.compile(r"(?:^|[/:-])(?<!conmon-)([0-9a-f]{64})(?:\.scope)?(?=/|$)")  # conmon watches a container from outside it
POD = re.compile(r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=[/:]|$)")
UNIT = re.compile(r"[^/]+\.(?:service|scope)\Z")
TELLS_NOTHING = re.compile(r"init\.scope|run-.*|user@\d+\.service")


@dataclass(frozen=True, slots=True)
class Membership:
    """Containers that a process is in, outermost first (one may run inside another), its systemd unit or "", its pod's UID or ""."""

    containers: tuple[str, ...] = ()
    unit: str = ""
    pod: str = ""


def parse(text: str, inside: str = "") -> Membership:
    """The membership that the text shows; whatever is not of this form is passed over.

    `inside` is the UID of the pod that we are in, where we have a cgroup namespace of our own: what is below our own cgroup is that pod's.
    """
    paths = [(controllers, path.removesuffix(" (deleted)")) for _, controllers, path in _lines(text)]
    found = (tuple(CONTAINER.findall(path)) for _, path in paths)
    containers = max(found, key=len, default=())
    units = (unit_of(path) for controllers, path in paths if controllers in ("name=systemd", ""))
    pods = [found for _, path in paths for found in POD.findall(path)]
    if inside and not containers and any(controllers == "" and not path.startswith("/..") for controllers, path in paths):
        return Membership(pod=inside)
    return Membership(containers, next(filter(None, units), ""), pods[-1].replace("_", "-") if pods else "")


def unit_of(path: str) -> str:
    """The systemd unit of a cgroup path, or "".

    The innermost .service or .scope. A login session, a desktop's scope, a transient unit or a user's own manager have names that tell less
    than the command does: "" then.
    """
    for piece in reversed(path.split("/")):
        if UNIT.match(piece):
            name = piece.removeprefix("_")  # systemd's escape of names that the kernel uses itself
            of_a_session = name.endswith(".scope") and "/user.slice/" in path
            return "" if of_a_session or TELLS_NOTHING.fullmatch(name) else name
    return ""


def _lines(text: str) -> list[list[str]]:
    return [fields for fields in (line.split(":", 2) for line in text.splitlines()) if len(fields) == 3]
