"""What a process belongs to, from the text of /proc/PID/cgroup: containers and a systemd unit.

One line per hierarchy, `number:controllers:path` (cgroups(7)); version 2 alone is the line `0::path`. Container paths of the runtimes:

    docker, cgroupfs driver        /docker/<id>
    docker, systemd driver         /system.slice/docker-<id>.scope
    Kubernetes, cgroupfs           /kubepods/burstable/pod<uid>/<id>, CRI-O /kubepods/.../pod<uid>/crio-<id>
    Kubernetes, systemd            /kubepods.slice/.../kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope (crio-, docker-)
    containerd, drivers mixed      /system.slice/containerd.service/kubepods-...-pod<uid>.slice:cri-containerd:<id>
    podman                         /machine.slice/libpod-<id>.scope/container
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CONTAINER = re.compile(r"(?:^|[/:-])(?<!conmon-)([0-9a-f]{64})(?:\.scope)?(?=/|$)")  # conmon watches a container from outside it
UNIT = re.compile(r"[^/]+\.(?:service|scope)\Z")
TELLS_NOTHING = re.compile(r"init\.scope|run-.*|user@\d+\.service")


@dataclass(frozen=True, slots=True)
class Membership:
    """Containers that a process is in, outermost first (one may run inside another), and its systemd unit or ""."""

    containers: tuple[str, ...] = ()
    unit: str = ""


def parse(text: str) -> Membership:
    """The membership that the text shows; whatever is not of this form is passed over."""
    paths = [(controllers, path.removesuffix(" (deleted)")) for _, controllers, path in _lines(text)]
    found = (tuple(CONTAINER.findall(path)) for _, path in paths)
    containers = max(found, key=len, default=())
    units = (unit_of(path) for controllers, path in paths if controllers in ("name=systemd", ""))
    return Membership(containers, next(filter(None, units), ""))


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
