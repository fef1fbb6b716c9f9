"""Network namespaces that hold exactly one container: what is in one of them is that container's, also where no process tells."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.sources.proc import read_membership

LINK = re.compile(r"net:\[(\d+)\]")  # namespaces(7), "The /proc/pid/ns/ directory"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A running container; `network` is the id of the container whose network it is in, its own id, or "" for the machine's."""

    id: str
    workload: str
    pid: int  # 0: not known
    network: str


class Namespaces:
    """The owners of network namespaces, as inode numbers. Reading them takes root, or the containers' user; without, none has an owner."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._found: dict[int, Tenant] = {}
        self._owners: dict[int, Tenant] = {}

    def update(self, tenants: Iterable[Tenant]) -> None:
        """All containers that run now. One is an owner from the second time on: an inode number is used again at once, and rows of the
        container that had it before may still be on their way."""
        found = self._alone(list(tenants))
        self._owners = {net_ns: tenant for net_ns, tenant in found.items() if self._found.get(net_ns) == tenant}
        self._found = found

    def workload_of(self, net_ns: int) -> str:
        """The workload of the only container in a namespace, "" for any other namespace, and where it has ended."""
        tenant = self._owners.get(net_ns)
        return tenant.workload if tenant and self._net_ns(tenant) == net_ns else ""

    def _alone(self, tenants: list[Tenant]) -> dict[int, Tenant]:
        networks = Counter(tenant.network for tenant in tenants)
        inside = [(self._net_ns(tenant), tenant) for tenant in tenants]
        held = Counter(net_ns for net_ns, _ in inside)
        machine = (0, net_ns_of(self._proc, 1), net_ns_of("/proc", os.getpid()))
        own = [(net_ns, tenant) for net_ns, tenant in inside if tenant.network == tenant.id and networks[tenant.id] == 1]
        return {net_ns: tenant for net_ns, tenant in own if held[net_ns] == 1 and net_ns not in machine}

    def _net_ns(self, tenant: Tenant) -> int:
        """Where its process is, 0 where it is not any more; the pid may be another's by now."""
        net_ns = net_ns_of(self._proc, tenant.pid) if tenant.pid else 0
        return net_ns if net_ns and tenant.id in read_membership(self._proc, tenant.pid).containers else 0


def net_ns_of(proc: str, pid: int) -> int:
    """The inode number of a process's network namespace, 0 where it cannot be read."""
    try:
        link = LINK.fullmatch(str(Path(proc, str(pid), "ns/net").readlink()))
    except (OSError, ValueError):
        return 0
    return int(link[1]) if link else 0
