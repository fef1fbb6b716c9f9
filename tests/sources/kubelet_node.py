"""A node with pods: the /proc that belongs to the recorded document, and what reads both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.sources.containers import Containers
from cluster.sources.kubelet import KubeletSource
from cluster.sources.namespaces import Namespaces
from cluster.sources.pod_servers import PODS_LIMIT
from cluster.sources.pods import Page, decode_pods
from cluster.sources.proc import Processes
from configs.settings import KubeletSettings
from tests.sources.fake_proc import FakeProc

WEB, SIDE = (
    "39592756c740fcf84dc0f8f03acb8380769c976f42d7d2686e6a3481224a383e",
    "4dab038e7e4a773b961cfa1e5b319811bc20248dd4e7f046d38a576e68880b2e",
)
AGENT, PAUSE = (
    "ba98245732e492a951e4e9104e067b79ee7e42f517989490adf2ccfe9d35e0c1",
    "45763282f51520b43f032213e8e2e218343e1221d77486daeb9dd76e9d723119",
)
WEB_UID, AGENT_UID = "d20251d6-5e49-4860-bb5b-58e2741948a7", "8a973881-3f63-4780-a299-4a1adfa3cc00"
MACHINE, WEB_NS = 4_026_531_840, 4_026_532_500
EMPTY = b'{"items": []}'


def machine(tmp_path: Path) -> FakeProc:
    """The machine's /proc, as it was beside the kubelet whose document is used: web, its sidecar, its pause container, and the agent."""
    folder = tmp_path / "proc"
    folder.mkdir()
    made = FakeProc(folder)
    made.add(1, b"systemd", 1, net_ns=MACHINE)
    cgroup = "9:name=systemd:/kubepods/{0}\n4:memory:/kubepods/{0}\n0::/kubepods/{0}\n"
    for pid, name, place, nspid, net_ns in (
        (25225, b"pause", f"burstable/pod{WEB_UID}/{PAUSE}", "1", WEB_NS),
        (25283, b"httpd", f"burstable/pod{WEB_UID}/{WEB}", "1", WEB_NS),
        (25300, b"httpd", f"burstable/pod{WEB_UID}/{WEB}", "9", WEB_NS),
        (25347, b"sh", f"burstable/pod{WEB_UID}/{SIDE}", "1", WEB_NS),
        (24722, b"sh", f"besteffort/pod{AGENT_UID}/{AGENT}", "", MACHINE),
    ):
        made.add(pid, name, pid, cgroup.format(place).encode(), nspid, net_ns)
    return made


class Fixed:
    """A PodSource of bytes."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def pods(self) -> Page:
        return decode_pods(self.body, PODS_LIMIT)


class Node:
    """A source and what it shares with others."""

    def __init__(self, source: Any, proc: FakeProc, inside: str = "") -> None:
        self.workloads: dict[str, str] = {}
        self.namespaces = Namespaces(str(proc.root), inside)
        self.processes = Processes(proc.root, self.workloads, inside=inside)
        self.source = KubeletSource(source, Containers(str(proc.root), inside), self.workloads, self.namespaces)


def settings(peer: Any, account: Path, **fields: Any) -> KubeletSettings:
    return KubeletSettings(host=peer.host, port=peer.port, service_account=str(account), **fields)


def items(*pods: dict[str, Any]) -> bytes:
    return json.dumps({"items": list(pods)}).encode()
