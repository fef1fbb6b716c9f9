"""A watched cluster for tests: the source under test on one side, a fresh list by the admin on the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import yaml

from cluster.core.errors import SourceError
from cluster.sources.api_server import ApiServer
from cluster.sources.cluster_objects import RESOURCES
from cluster.sources.cluster_records import ClusterRecords
from cluster.sources.cluster_source import ClusterSource
from cluster.sources.reflector import Reflector
from cluster.sources.watching import Timing
from tests.kubernetes.control_plane import ControlPlane

QUICK = Timing(silence=3.0, watch=(20, 40), backoff=(0.1, 1.0), steady=1.0)
DEADLINE = 120.0  # s, on a machine that does much else


def wait_for(answer: Callable[[], Any], what: str = "", seconds: float = DEADLINE) -> Any:
    """The first true answer; a SourceError, or a server that is away, counts as not yet."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = answer()
            if last:
                return last
        except (SourceError, OSError) as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"not true within {seconds:g} s: {what}; last answer: {last!r:.2000}")


def through(plane: ControlPlane, port: int, folder: Path) -> Path:
    """The admin's kubeconfig, by another port of loopback."""
    config = yaml.safe_load(plane.admin_kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    path = folder / "through-proxy.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


class Watched:
    """A ClusterSource that runs. Use as a context."""

    def __init__(self, plane: ControlPlane, kubeconfig: Path | None = None, timing: Timing = QUICK, **further: Any) -> None:
        self._plane = plane
        self.server = ApiServer(str(kubeconfig or plane.admin_kubeconfig) if not further else None, timeout=2.0, **further)
        self._timing = timing

    def __enter__(self) -> Watched:
        self.source = ClusterSource(self.server, started, self._timing)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.source.stop(10)

    def objects(self) -> dict[str, dict[str, Any]]:
        """What the source holds."""
        return {name: dict(watching.reflector.objects) for name, watching in self.source.watchings.items()}

    def truth(self) -> dict[str, dict[str, Any]]:
        """What a list that is made now has, without the source's connection or its loop."""
        found = {}
        for resource in RESOURCES:
            status, listed = self._plane.request("GET", resource.path)
            assert status == 200, listed
            fresh: Reflector[Any] = Reflector(resource)
            fresh.on_page(msgspec.json.encode(listed))
            found[resource.name] = fresh.objects
        return found

    def equals_the_truth(self) -> bool:
        """Whether both hold the same, and the records are those of the truth."""
        truth = self.truth()
        return self.objects() == truth and self.source.settled and self.records() == records_of(truth)

    def records(self) -> Any:
        """As the actor reads them."""
        return self.source.read()

    def count(self, resource: str, name: str) -> int:
        """A counter of a resource."""
        return int(self.source.watchings[resource].reflector.counts[name])

    def resource(self, name: str) -> dict[str, Any]:
        """A resource's state."""
        return self.source.watchings[name].status()


def records_of(objects: dict[str, dict[str, Any]]) -> Any:
    """The records that these objects have, made at once."""
    made = ClusterRecords()
    made.update(objects, {name: set(found) for name, found in objects.items()})
    return made.records


def started(loop: Callable[[], None]) -> threading.Thread:
    """A thread that runs it."""
    thread = threading.Thread(target=loop)
    thread.start()
    return thread
