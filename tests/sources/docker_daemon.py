"""A real dockerd with folders, socket, network and mounts of its own: nothing of it is seen from the machine's own network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

IMAGE = "rayscope-test/box:1"
START_TIME = 30.0  # s
BUSYBOX = shutil.which("busybox")
TOOLS = ("dockerd", "docker", "containerd", "busybox", "setpriv", "unshare")


def missing() -> str:
    """Why no dockerd can run here, or ""."""
    if os.geteuid():
        return "dockerd needs root"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(lacking)} (apt-get install docker.io busybox-static)"
    if subprocess.run(["ldd", str(BUSYBOX)], capture_output=True, check=False).returncode == 0:
        return "busybox is not static (apt-get install busybox-static)"
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode:
        return "root may not make namespaces here"
    return ""


class Dockerd:
    """The daemon, and the `docker` command that speaks to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rayscope-docker-"))  # short: a unix socket's path has 107 bytes
        self.socket = str(self.folder / "docker.sock")
        self._cgroups = cgroups()
        self._log = (self.folder / "log").open("wb")
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # Its own mounts go with it; where the tests are killed, the kernel ends it.
        options = f"--data-root {self.folder}/data --exec-root {self.folder}/exec --pidfile {self.folder}/pid --host unix://{self.socket}"
        kernel = "--storage-driver=vfs --oom-score-adjust=0 --bridge=none --iptables=false"
        command = f"{BUSYBOX} ip link set lo up && exec dockerd {options} {kernel}"
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "unshare", "--net", "--mount", "sh", "-c", command],
            cwd=self.folder,
            stdout=self._log,
            stderr=self._log,
        )

    def wait_until_ready(self) -> None:
        """Raises AssertionError with the end of the daemon's log."""
        deadline = time.monotonic() + START_TIME
        while self._process.poll() is None and time.monotonic() < deadline:
            if Path(self.socket).exists() and self.command("version", check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError("dockerd did not start:\n" + (self.folder / "log").read_text()[-2_000:])

    def import_image(self) -> None:
        """An image that holds only busybox."""
        binaries = self.folder / "root/bin"
        binaries.mkdir(parents=True)
        shutil.copy(str(BUSYBOX), binaries / "busybox")
        for name in ("sh", "sleep", "httpd"):
            (binaries / name).symlink_to("busybox")
        archive = subprocess.run(["tar", "-C", self.folder / "root", "-c", "."], stdout=subprocess.PIPE, check=True).stdout
        command = ["docker", "--host", f"unix://{self.socket}", "import", "-", IMAGE]
        subprocess.run(command, input=archive, stdout=subprocess.DEVNULL, check=True)

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`docker ARGUMENTS`, against this daemon."""
        done = subprocess.run(["docker", "--host", f"unix://{self.socket}", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
        return done

    def run(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "600")) -> str:
        """Start a container; its id."""
        return self.command("run", "--detach", "--name", name, *options, IMAGE, *command).stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        """What `docker inspect` tells."""
        (found,) = json.loads(self.command("inspect", name).stdout)
        return dict(found)

    def remove(self, *names: str) -> None:
        """End and remove containers."""
        self.command("rm", "--force", "--volumes", *names)

    def remove_all(self) -> None:
        """End and remove every container."""
        if names := self.command("ps", "--all", "--quiet").stdout.split():
            self.remove(*names)

    def pause(self, paused: bool) -> None:
        """Freeze the daemon itself, or let it go on."""
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)
        tasks = Path(f"/proc/{self._process.pid}/task")
        deadline = time.monotonic() + 10
        while paused and any(" T " not in (task / "stat").read_text() for task in tasks.iterdir()):
            assert time.monotonic() < deadline, "dockerd does not stop"
            time.sleep(0.01)

    def stop(self) -> None:
        """End it, and leave nothing."""
        if self._process.poll() is None:
            with suppress(AssertionError, subprocess.TimeoutExpired):
                self.remove_all()
            self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        for path in cgroups() - self._cgroups:
            with suppress(OSError):  # another daemon uses it by now
                path.rmdir()
        shutil.rmtree(self.folder)


def cgroups() -> set[Path]:
    """The cgroups in which a dockerd puts its containers, as far as they exist."""
    root = Path("/sys/fs/cgroup")
    return {path for path in (root / "docker", *root.glob("*/docker")) if path.exists()}
