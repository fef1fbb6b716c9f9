"""The ClusterWatcher: one actor that watches the API server and delivers what it knows, as a node's collector delivers what its node knows.

Its name as a collector is not a node's, so that it is no node among those that have to be covered. The Kubernetes client takes tens of
megabytes, so it is imported in this actor's process only.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from typing import Any

from actors import threads
from actors.delivery import Delivery
from actors.metrics import Metrics
from actors.version import code_version
from actors.warnings import Warnings
from cluster.core.collector import Collector
from cluster.core.errors import SourceError
from cluster.core.metadata import WATCHER
from configs.settings import Settings

log = logging.getLogger(__name__)
COALESCE = 1.0  # s: changes within are said together, so that a rolling update does not send a record for each step


class ClusterWatcher:
    """Watches Services, EndpointSlices, Nodes, ReplicaSets and Jobs."""

    def __init__(self, settings: Settings) -> None:
        from cluster.sources.api_server import ApiServer
        from cluster.sources.cluster_source import ClusterSource

        kubernetes = settings.kubernetes
        self._core = Collector(WATCHER, secrets.randbits(63))
        self._lock = threading.Lock()  # the core
        server = ApiServer(kubernetes.kubeconfig, kubernetes.timeout, settings.kubelet.service_account)
        self._source = ClusterSource(server, threads.start)
        self._warnings = Warnings(log)
        Delivery(self._core, self._lock, settings.aggregator.call_timeout, Metrics("watcher"), self._warnings)
        threads.start(self._tell_forever)

    def __repr__(self) -> str:
        return "ClusterWatcher()"

    def version(self) -> str:
        """The code that this actor runs."""
        return code_version()

    def status(self) -> dict[str, Any]:
        """The state of each resource, and of the delivery."""
        with self._lock:
            delivery = self._core.status()
        return {"pid": os.getpid(), "version": self.version(), "delivery": delivery, **self._source.status()}

    def _tell_forever(self) -> None:
        while True:
            time.sleep(COALESCE)
            self._warn()
            with self._lock:
                if not self._core.wants_poll():
                    continue
            self._tell()

    def _tell(self) -> None:
        """Say what changed since the last time; before everything is known, only that and why it is not."""
        records = None
        if self._source.settled:
            records = self._source.read()
        with self._lock:
            if records is not None:
                self._core.on_metadata(self._source.name, records)
            self._core.say(time.time(), self._source.status())

    def _warn(self) -> None:
        for name, resource in self._source.status()["resources"].items():
            if resource["error"]:
                self._warnings.say(name, SourceError(resource["error"]))
            else:
                self._warnings.over(name)
