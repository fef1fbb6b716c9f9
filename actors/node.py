"""A Ray node for as long as this process lives: `python -m actors.node ARGUMENTS` runs `ray start ARGUMENTS` and stays. For containers.

`ray start --block` would do the same, and costs more: its Python with all of Ray in it stays, which with the log monitor is 100 MB, and on
SIGTERM it drains the node, in which it waits for actors that never end (31 s were measured, 0.2 s here). This one imports nothing of Ray.
It adopts what `ray start` leaves behind (as process 1, or as a subreaper, prctl(2)), ends Ray's processes in order when it is told to, and
starts Ray again when the raylet has ended: a raylet does that by itself when its node was cut off and taken for dead, or when the head was
away. Kubernetes would begin the container again, too, but waits up to five minutes when that happens often.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from actors.options import RAY_ENVIRONMENT
from cluster.sources.backoff import Backoff

PR_SET_CHILD_SUBREAPER = 36
RETRY = (1.0, 15.0)  # s: the first and the longest wait before Ray is started again
STEADY = 60.0  # s that a raylet has to live for the waits to begin anew
GRACE = (8.0, 1.0)  # s for the raylet to end in order, then for what it leaves behind; together well below Kubernetes' 30 s
LOOK = 0.02  # s between two looks at what is still there
# No log monitor: it sends what actors print to drivers, which we do not want, and costs 48 MB.
START = (sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.exit(main())", "start", "--include-log-monitor=false")


class Asked(Exception):
    """SIGTERM or SIGINT came."""


def main(arguments: list[str]) -> int:
    """Keep a Ray node up until a signal comes; the exit code."""
    if "--block" in arguments:
        say("--block is not needed: this process itself stays for as long as the node lives")
        return 2
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    backoff = Backoff(*RETRY, random.random)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ask)
        while True:
            began = time.monotonic()
            reason = run_once(arguments)
            if time.monotonic() - began > STEADY:
                backoff.reset()
            wait = backoff.failed()
            say(f"{reason}; starting again in {wait:.1f} s")
            end_children()
            time.sleep(wait)
    except Asked:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        end_children()
    return 0


def run_once(arguments: list[str]) -> str:
    """Start Ray and wait for its raylet's end; why it is over."""
    code = subprocess.Popen([*START, *arguments], stdin=subprocess.DEVNULL).wait()
    if code:
        return f"ray start ended with code {code}"
    raylet = next((pid for pid, name in children() if name == "raylet"), None)
    if raylet is None:
        return "ray start left no raylet behind"
    say(f"the node runs, raylet {raylet}")
    while True:
        ended, status = os.wait()  # orphans of the node's, too
        if ended == raylet:
            return f"the raylet ended with code {os.waitstatus_to_exitcode(status)}"


def end_children() -> None:
    """End the raylet, which ends its workers and says goodbye to the head; then everything that is left, by force where it must be."""
    end(lambda: [pid for pid, name in children() if name == "raylet"], GRACE[0])
    end(lambda: [pid for pid, _ in children()], GRACE[1])


def end(find: Callable[[], list[int]], seconds: float) -> None:
    """SIGTERM to each that `find` gives, once; SIGKILL to those that are left after so long. Orphans appear meanwhile."""
    told: set[int] = set()
    deadline = time.monotonic() + seconds
    while left := find():
        late = time.monotonic() > deadline
        for pid in left:
            if late or pid not in told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told.update(left)
        time.sleep(LOOK)
        collect()


def collect() -> None:
    """Take in the exit codes of children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def children() -> list[tuple[int, str]]:
    """Pid and name of each process whose parent is this one (proc(5), /proc/PID/stat)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            before, _, after = path.read_text(errors="replace").rpartition(")")
            if int(after.split()[1]) == os.getpid():
                pid, _, name = before.partition(" (")
                found.append((int(pid), name))
    return found


def say(text: str) -> None:
    """A line for whoever reads the container's log."""
    print(f"rayscope: node: {text}", file=sys.stderr, flush=True)


def _ask(_number: int, _frame: FrameType | None) -> None:
    raise Asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
