"""What the API server knows of the cluster, as records: one watch for each resource, each in a thread of its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from cluster.core.errors import SourceError
from cluster.ports import MetadataRecords
from cluster.sources.api_server import ApiServer
from cluster.sources.cluster_objects import RESOURCES
from cluster.sources.cluster_records import ClusterRecords
from cluster.sources.reflector import Reflector
from cluster.sources.watching import Timing, Watching

Start = Callable[[Callable[[], None]], threading.Thread]  # runs a loop in a thread


class ClusterSource:
    """A MetadataSource. It watches from the first moment on; `start` runs one loop in a thread."""

    name = "apiserver"

    def __init__(self, server: ApiServer, start: Start, timing: Timing | None = None) -> None:
        self._server = server
        self._records = ClusterRecords()
        self.watchings = {one.name: Watching(server, Reflector(one), timing or Timing(), random.random) for one in RESOURCES}
        self._threads = [start(watching.run) for watching in self.watchings.values()]

    @property
    def settled(self) -> bool:
        """Whether all is known that the server lets us see. What is said before would look as if the rest were gone."""
        return all(watching.settled for watching in self.watchings.values())

    def read(self) -> MetadataRecords:
        """The records of all objects as they are now. Raises SourceError until it is `settled`."""
        if not self.settled:
            raise SourceError("; ".join(self._problems()) or "the API server's objects are being listed")
        changed: dict[str, set[str]] = {}
        for name, watching in self.watchings.items():
            with watching.lock:
                changed[name], watching.reflector.changed = watching.reflector.changed, set()
        self._records.update({name: watching.reflector.objects for name, watching in self.watchings.items()}, changed)
        return self._records.records

    def status(self) -> dict[str, Any]:
        """`resources` by name, as Watching.status; `records`; how many objects, and backends of how many Services, found no room."""
        return {
            "resources": {name: watching.status() for name, watching in self.watchings.items()},
            "records": len(self._records.records),
            "left_out": len(self._records.left_out),
            "cut": len(self._records.cut),
            "credentials_renewed": self._server.generation,
        }

    def stop(self, timeout: float = 5.0) -> None:
        """End the watches."""
        for watching in self.watchings.values():
            watching.stop()
        for thread in self._threads:
            thread.join(timeout)
        self._server.close()

    def _problems(self) -> list[str]:
        return [error for watching in self.watchings.values() if not watching.settled and (error := watching.status()["error"])]
