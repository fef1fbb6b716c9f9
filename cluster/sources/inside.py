"""Where we are ourselves: in which pod, if in one, so that what reads like nothing in /proc is named after it."""

from __future__ import annotations

import re
from pathlib import Path

INITIAL = "cgroup:[4026531835]"  # PROC_CGROUP_INIT_INO, linux/proc_ns.h
HOSTS = re.compile(r"/pods/([0-9a-f-]{32,36})/etc-hosts")  # a file that the kubelet makes for each pod and mounts at /etc/hosts
READ_LIMIT = 4_000_000  # bytes of mountinfo


def own_pod(process: str | Path = "/proc/self") -> str:
    """The UID of the pod that we are in, where cgroup paths begin at our own cgroup, since we have a cgroup namespace; else ""."""
    try:
        if str(Path(process, "ns/cgroup").readlink()) == INITIAL:
            return ""
        with Path(process, "mountinfo").open("rb") as file:
            mounts = file.read(READ_LIMIT).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    fields = (line.split(" ") for line in mounts)
    roots = (each[3] for each in fields if len(each) > 4 and each[4] == "/etc/hosts")  # proc_pid_mountinfo(5)
    return next((found[1] for root in roots if (found := HOSTS.search(root))), "")
