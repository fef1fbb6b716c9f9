"""Network namespaces that hold exactly one container, or one pod: what is in one of them is that one's, also where no process tells."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.sources.proc import read_membership

LINK = re.compile(r"net:\[(\d+)\]")  # namespaces(7), "The /proc/pid/ns/ directory"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A running container. `network` names the network that it is in: for a pod's container the pod's UID, else the id of the container
    whose network it is, mostly its own; "" for the machine's."""

    id: str  # "": a container of the pod `network` that has no id here
    workload: str
    pid: int  # 0: not known
    network: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has a namespace, and which source said it."""

    source: str
    network: str
    workload: str


class Namespaces:
    """The owners of network namespaces, as inode numbers. Reading them takes root, or the containers' user; without, none has an owner.

    `inside` is as in `cgroup.parse`.
    """

    def __init__(self, proc: str = "/proc", inside: str = "") -> None:
        self._proc = proc
        self._inside = inside
        self._tenants: dict[str, list[Tenant]] = {}  # by source
        self._found: dict[str, dict[int, Owner]] = {}  # by source, at its last read
        self._owners: dict[int, Owner] = {}
        self._held: dict[int, list[Tenant]] = {}

    def update(self, tenants: Iterable[Tenant], source: str = "docker") -> None:
        """All containers that run now and are this source's. One is an owner from the source's second read on: an inode number is used
        again at once, and rows of the container that had it before may still be on their way."""
        self._tenants[source] = list(tenants)
        found = self._alone()
        before = self._found.get(source, {})
        self._owners = {
            net_ns: owner for net_ns, owner in found.items() if (before if owner.source == source else self._owners).get(net_ns) == owner
        }
        self._found[source] = {net_ns: owner for net_ns, owner in found.items() if owner.source == source}

    def workload_of(self, net_ns: int) -> str:
        """The workload of the only container or pod in a namespace, "" for any other namespace, and where it has ended."""
        owner = self._owners.get(net_ns)
        there = owner and any(self._net_ns(tenant) == net_ns for tenant in self._held.get(net_ns, ()))
        return owner.workload if owner and there else ""

    def _alone(self) -> dict[int, Owner]:
        """The owner of each namespace that only one network's containers are in, all of one workload."""
        by_network: dict[str, set[str]] = defaultdict(set)
        inside: dict[int, set[Owner]] = defaultdict(set)
        held: dict[int, list[Tenant]] = defaultdict(list)
        for source, tenants in self._tenants.items():
            for tenant in tenants:
                by_network[tenant.network].add(tenant.workload)
                net_ns = self._net_ns(tenant)
                inside[net_ns].add(Owner(source, tenant.network, tenant.workload))
                held[net_ns].append(tenant)
        self._held = dict(held)
        machine = {0, net_ns_of(self._proc, 1)}
        if self._proc == "/proc":  # else we may be in a pod, whose namespace is a pod's like others
            machine.add(net_ns_of("/proc", os.getpid()))
        single = ((net_ns, next(iter(owners))) for net_ns, owners in inside.items() if len(owners) == 1 and net_ns not in machine)
        return {net_ns: owner for net_ns, owner in single if owner.network and len(by_network[owner.network]) == 1}

    def _net_ns(self, tenant: Tenant) -> int:
        """Where its process is, 0 where it is not any more; the pid may be another's by now."""
        net_ns = net_ns_of(self._proc, tenant.pid) if tenant.pid else 0
        if not net_ns:
            return 0
        membership = read_membership(self._proc, tenant.pid, self._inside)
        there = tenant.id in membership.containers if tenant.id else tenant.network == membership.pod
        return net_ns if there else 0


def net_ns_of(proc: str, pid: int) -> int:
    """The inode number of a process's network namespace, 0 where it cannot be read."""
    try:
        link = LINK.fullmatch(str(Path(proc, str(pid), "ns/net").readlink()))
    except (OSError, ValueError):
        return 0
    return int(link[1]) if link else 0
