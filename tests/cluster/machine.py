"""A machine of the cluster: a network namespace, our tracer, and a Ray node under our launcher, each a container of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from actors.options import NODE_LABEL, ROLE_LABEL
from cluster.cli.tracer_process import answers
from tests.actors.waiting import wait_for
from tests.cluster.container import Container
from tests.cluster.network import Network

PORT = 6379
OPTIONS = ("--num-cpus=0", "--object-store-memory=80000000", "--disable-usage-stats")


@dataclass
class Machine:
    """`number` 1 is the head. Everything of it on the disk is in `base/NAME`, which it sees as `base/here`."""

    name: str
    number: int
    network: Network
    base: Path
    containers: dict[str, Container] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Its own."""
        return self.network.address(self.number)

    @property
    def directory(self) -> Path:
        """What it sees as `base/here`."""
        return self.base / self.name

    def start(self) -> None:
        """Its tracer, where there is none, and its Ray node."""
        self.directory.mkdir(exist_ok=True)
        if "tracer" not in self.containers:
            self._run("tracer", "cluster", "tracer", "--socket", str(self.base / "here" / "tracer.sock"))
            wait_for(lambda: answers(str(self.directory / "tracer.sock")))
        labels = {NODE_LABEL: self.name} | ({ROLE_LABEL: "head"} if self.number == 1 else {})
        joined = ",".join(f"{name}={value}" for name, value in labels.items())
        head = ("--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={self.base / 'here' / 'ray'}")
        place = head if self.number == 1 else (f"--address={self.network.address(1)}:{PORT}",)
        self._run("ray", "actors.node", *place, f"--node-ip-address={self.address}", f"--labels={joined}", *OPTIONS)

    def terminate(self) -> int:
        """SIGTERM to the Ray node; the launcher's exit code."""
        return self.containers.pop("ray").terminate()

    def cut_power(self, *containers: str) -> None:
        """SIGKILL to everything in these, or all, containers."""
        for name in containers or tuple(self.containers):
            self.containers.pop(name).kill()

    def pull(self) -> None:
        """Pull its cable."""
        self.network.pull(self.number)

    def plug(self) -> None:
        """Put it in again."""
        self.network.plug(self.number)

    def actors(self, kind: str) -> list[int]:
        """The processes of actors of this class in this machine's network namespace; Ray gives them their title."""
        return self.processes(f"ray::{kind}")

    def raylet(self) -> int:
        """The process of its raylet."""
        (pid,) = [pid for pid in self.processes("") if _command(pid).partition("\0")[0].endswith("/raylet")]
        return pid

    def processes(self, title: str) -> list[int]:
        """Those in its network namespace whose command begins so."""
        everywhere = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in everywhere if self._is_here(pid) and _command(pid).startswith(title)]

    def _is_here(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/ns/net").stat().st_ino == self.network.spaces[self.number - 1].inode
        except OSError:
            return False

    def joined(self) -> bool:
        """Whether its launcher says that the Ray node runs."""
        return "the node runs" in (self.directory / "ray.log").read_text()

    def _run(self, name: str, module: str, *arguments: str) -> None:
        place = self.base / "here"
        log = self.directory / f"{name}.log"
        log.unlink(missing_ok=True)
        space = self.network.spaces[self.number - 1]
        self.containers[name] = Container(space, self.directory, place, log, sys.executable, "-m", module, *arguments)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
