"""What the machine offers to Ray and to the store: memory, files, ports, disk, time."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import resource
import socket
import sys
from pathlib import Path

from cluster.cli.checks.finding import Finding, Machine, human, lack, ok, unknown
from cluster.cli.checks.kernel import field
from configs import paths

MEMORY_NEEDED = 1_000_000_000  # bytes: a local Ray with five actors and its dashboard, measured
FILES_NEEDED = 4_096
DISK_NEEDED = 200_000_000
RAY_PORTS = {6379: "GCS", 10001: "client server"}
STA_UNSYNC = 0x40  # sys/timex.h
TIMEX_SIZE = 208  # bytes of struct timex on 64-bit Linux; status is at 40


def python(_: Machine) -> Finding:
    """The interpreter that runs this."""
    found = sys.version.split()[0]
    return ok(found) if sys.version_info >= (3, 11) else lack(found, "use Python 3.11 or newer: make PYTHON=python3.11")


def ray(_: Machine) -> Finding:
    """Whether Ray is installed; it is not imported, since that takes seconds."""
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return lack("not installed", "make install")
    if importlib.util.find_spec("ray") is None:
        return lack(f"{version} is listed and cannot be imported", "make clean install")
    wanted = next((text for text in importlib.metadata.requires("rayscope") or [] if text.startswith("ray[")), "ray")
    return ok(f"{version} ({wanted} is wanted)")


def memory(machine: Machine) -> Finding:
    """What is free for Ray's processes, by the kernel and by the cgroup."""
    free = int(field(machine.proc / "meminfo", "MemAvailable").split()[0]) * 1024
    limit = machine.sys / "fs/cgroup/memory.max"
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int((limit.parent / "memory.current").read_text()))
    found = f"{human(free)} available"
    return ok(found) if free >= MEMORY_NEEDED else lack(found, f"free {human(MEMORY_NEEDED)}; ray.dashboard=false saves a quarter of it")


def shared_memory(machine: Machine) -> Finding:
    """Room for Ray's object store."""
    wanted = machine.settings.ray.object_store_bytes
    if not machine.shm.is_dir():
        return lack(f"no {machine.shm}", f"mount a tmpfs there of {human(wanted)}; without it Ray uses /tmp, slower")
    free = space(machine.shm)
    found = f"{human(free)} free in {machine.shm}"
    return (
        ok(found) if free >= wanted else lack(found, f"enlarge it to {human(wanted)} (docker: --shm-size); Ray uses /tmp instead, slower")
    )


def open_files(_: Machine) -> Finding:
    """The limit of open files: Ray has many, and raises its own soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"limit {soft:,}, can be raised to {hard:,}" if hard != resource.RLIM_INFINITY else f"limit {soft:,}, can be raised"
    return ok(found) if hard == resource.RLIM_INFINITY or hard >= FILES_NEEDED else lack(found, f"ulimit -n {FILES_NEEDED}, as root")


def ports(machine: Machine) -> Finding:
    """Whether something else, another Ray perhaps, has the ports that Ray takes by default."""
    wanted = RAY_PORTS | {machine.settings.ray.dashboard_port: "dashboard"}
    taken = [f"{port} ({name})" for port, name in wanted.items() if port and not _is_free(port)]
    remedy = "if a Ray runs here, join it by ray.address; else Ray takes other ports, `rayscope up` says which"
    return lack(f"taken: {', '.join(taken)}", remedy) if taken else ok(f"{', '.join(map(str, wanted))} are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def state_directory(machine: Machine) -> Finding:
    """Whether the store's directory can be written, and has room."""
    directory = paths.store_path(machine.environ, machine.settings).parent
    there = next(place for place in (directory, *directory.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return lack(f"{there} cannot be written", f"make {directory} writable, or set store.path to a file in a directory of your own")
    free = space(there)
    found = f"{directory} can be written, {human(free)} free"
    return ok(found) if free >= DISK_NEEDED else lack(found, "free some disk space, or set store.path to another disk")


def space(directory: Path) -> int:
    """Free bytes of a directory's file system, for this user."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def clock(_: Machine) -> Finding:
    """Whether the kernel holds its clock for synchronised, which several nodes' times rest on."""
    timex = ctypes.create_string_buffer(TIMEX_SIZE)  # modes = 0: only read
    if ctypes.sizeof(ctypes.c_long) != 8 or ctypes.CDLL(None).adjtimex(timex) < 0:
        return unknown("the kernel does not say whether its clock is synchronised")
    if int.from_bytes(timex.raw[40:44], sys.byteorder) & STA_UNSYNC:
        return lack(
            "not synchronised, says the kernel", "sudo apt-get install systemd-timesyncd, or chrony; one machine alone needs neither"
        )
    return ok("synchronised")
