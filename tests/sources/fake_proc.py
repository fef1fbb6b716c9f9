"""A /proc in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path


class FakeProc:
    """A /proc in a folder: real files that the product reads as it reads the kernel's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, pid: int, name: bytes = b"curl", start: int = 100, cgroup: bytes = b"0::/\n", nspid: str = "", net_ns: int = 0) -> None:
        """A process; `nspid` are its numbers in the PID namespaces below this one, `net_ns` its network namespace (0: cannot be read)."""
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_bytes(b"%d (%b) S 1 %b %d 0 0\n" % (pid, name, b" ".join([b"0"] * 17), start))
        (folder / "cgroup").write_bytes(cgroup)
        (folder / "status").write_text(f"Name:\tx\nPid:\t{pid}\nNSpid:\t{pid}\t{nspid}\nVmPeak:\t1 kB\n")
        if net_ns:
            (folder / "ns").mkdir(exist_ok=True)
            (folder / "ns/net").unlink(missing_ok=True)
            (folder / "ns/net").symlink_to(f"net:[{net_ns}]")

    def end(self, pid: int) -> None:
        """The process ends."""
        shutil.rmtree(self.root / str(pid))
