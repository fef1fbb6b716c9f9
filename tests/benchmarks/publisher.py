"""What publishing costs on a real API server: `python -m tests.benchmarks.publisher`, after `make kube-binaries`.

Time and bytes of 1, 5 and 16 full pages, from a store of as many rows as fit and from one of a million, beside the same bytes written as
plain objects of one value; the memory of the process before and after; and how long commits take beside it.
"""

from __future__ import annotations

import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.core.checkpoint import COUNTERS, Commit
from cluster.core.paging import VALUE_BYTES
from cluster.core.publication import ROW_BYTES
from cluster.sources.backoff import Backoff
from cluster.stores.api_server import ApiServer
from cluster.stores.busiest import Busiest
from cluster.stores.config_maps import ConfigMaps, PublishLimits
from cluster.stores.sqlite import SqliteStore
from tests.benchmarks.report import report, seconds
from tests.benchmarks.store import ADDRESSES, columns, rows
from tests.kubernetes.binaries import SERVERS, find
from tests.kubernetes.control_plane import ControlPlane

ROUNDS = 3
MILLION = 1_000_000
STEP = 100_000


def pss() -> float:
    """MB of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """One with the namespace `rayscope`."""
    binaries, why = find(*SERVERS)
    if why:
        raise SystemExit(why)
    plane = ControlPlane(binaries, folder)
    try:
        plane.start()
        plane.make_namespace("rayscope")
        yield plane
    finally:
        plane.stop()


def filled(path: Path, count: int) -> SqliteStore:
    """A store of so many rows, with metadata of a thousand addresses."""
    store = SqliteStore(path)
    fence = store.open().fence
    metadata = {
        address: {"kubelet": {"uid": {"kind": "pod", "name": "cart-7f9c-x2x", "namespace": "shop"}}} for address in ADDRESSES[:1_000]
    }
    for number, first in enumerate(range(1, count + 1, STEP), 1):
        made = columns(first, min(STEP, count + 1 - first), seed=number)
        made["flags"][:] = 0
        store.commit(Commit(number, fence, 1.7e9, rows(made), {}, metadata=metadata))
    return store


def change(store: SqliteStore, number: int) -> float:
    """Every page's rows move, in commits of a thousand rows: the seconds of one."""
    moved = columns(1, 1_000, seed=number)
    return seconds(
        lambda: store.commit(
            Commit(number, 1, 1.7e9, rows({k: v[:0] for k, v in moved.items()}), {n: moved[n] for n in ("uid", *COUNTERS)})
        )
    )


def publisher(plane: ControlPlane, path: Path, pages: int) -> ConfigMaps:
    """One without a pace."""
    limits = PublishLimits(interval=0.0, bytes_per_round=10**9, pages=pages)
    source = Busiest(path, pages * VALUE_BYTES // ROW_BYTES)
    return ConfigMaps(ApiServer(str(plane.admin_kubeconfig)), "rayscope", source, limits, "benchmark", Backoff())


def plainly(api: ApiServer, pages: int) -> None:
    """As many bytes, as objects of one value each: what the API server takes at best."""
    for index in range(pages):
        body: dict[str, Any] = {"metadata": {"name": f"plain-{index}", "managedFields": [{}]}, "data": {"k": "v" * VALUE_BYTES}}
        api.request("POST", "/api/v1/namespaces/rayscope/configmaps", body, metadata_only=True)


def measure(plane: ControlPlane, path: Path, pages: int) -> tuple[float, float]:
    """Medians of whole rounds and of the bare writes, in seconds, in turn; commits go on meanwhile."""
    made, api = publisher(plane, path, pages), ApiServer(str(plane.admin_kubeconfig))
    taking = seconds(lambda: made.step(1))
    assert made.status()["state"] == "publishing", made.status()
    ours, bare = [], []
    for _ in range(ROUNDS):
        for kind in made._kinds.values():
            for index in range(len(kind.pages)):
                kind.pages[index].written = type(kind.pages[index].written)(b"", kind.count, 0.0)
        ours.append(seconds(lambda: made.step(1)))
        for index in range(pages):
            plane.request("DELETE", f"/api/v1/namespaces/rayscope/configmaps/plain-{index}")
        bare.append(seconds(lambda: plainly(api, pages)))
    status = made.status()
    print(
        f"{pages:3} pages: first {taking:.2f} s, then {statistics.median(ours):.2f} s for {status['written']:,} bytes of keys and values"
        f" (bare objects {statistics.median(bare):.2f} s); pages {status['pages']}, left out {status['left_out']}; {pss():.0f} MB"
    )
    made.close()
    api.close()
    return statistics.median(ours), statistics.median(bare)


def beside(plane: ControlPlane, store: SqliteStore, path: Path) -> tuple[float, float]:
    """Medians of a commit of 1,000 rows, alone and beside a publisher that never pauses."""
    numbers = iter(range(1_000, 10_000))
    alone = [change(store, next(numbers)) for _ in range(30)]
    made, ended = publisher(plane, path, 16), threading.Event()

    def publish() -> None:
        while not ended.is_set():
            made.step(1)

    thread = threading.Thread(target=publish)
    thread.start()
    time.sleep(1)
    busy = [change(store, next(numbers)) for _ in range(30)]
    ended.set()
    thread.join()
    made.close()
    print(
        f"commit of 1,000 rows: alone {statistics.median(alone) * 1e3:.1f} ms (longest {max(alone) * 1e3:.1f}), beside a publisher that"
        f" never pauses {statistics.median(busy) * 1e3:.1f} ms (longest {max(busy) * 1e3:.1f})"
    )
    return statistics.median(alone), statistics.median(busy)


def memory(path: str, kubeconfig: str) -> None:
    """Of a process that publishes and does nothing else: before, after each of three rounds, and the peak."""
    said = [pss()]
    limits = PublishLimits(interval=0.0, bytes_per_round=10**9)
    made = ConfigMaps(ApiServer(kubeconfig), "rayscope", Busiest(path, 16 * VALUE_BYTES // ROW_BYTES), limits, "memory", Backoff())
    for _ in range(3):
        made.step(1)
        assert made.status()["state"] == "publishing", made.status()
        said.append(pss())
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    after = ", ".join(f"{each:.0f}" for each in said[1:])
    print(f"memory: {said[0]:.0f} MB before, then {after} MB; peak {int(peak.split()[1]) / 1024:.0f} MB")


def main() -> None:
    """Print the figures."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory, control_plane(Path(directory)) as plane:
        paths = {count: Path(directory, f"{count}.db") for count in (2_500, 12_500, 48_000, MILLION)}
        stores = {count: filled(path, count) for count, path in paths.items()}
        print(f"before: {pss():.0f} MB")
        ratios = {}
        for count, pages in ((2_500, 1), (12_500, 5), (48_000, 16), (MILLION, 16)):
            print(f"{count:,} rows: ", end="")
            ours, bare = measure(plane, paths[count], pages)
            ratios[f"bare_{pages}_of_{count}"] = ours / bare
        alone, busy = beside(plane, stores[MILLION], paths[MILLION])
        for store in stores.values():
            store.close()
        command = [sys.executable, "-m", "tests.benchmarks.publisher", str(paths[MILLION]), str(plane.admin_kubeconfig)]
        subprocess.run(command, check=True)
        report("publisher", {**ratios, "commit_beside": busy / alone})


if __name__ == "__main__":
    memory(*sys.argv[1:]) if sys.argv[1:] else main()
