"""The publisher of this process: made from the settings, stepped by a thread of its own beside whatever else the process does."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import threading
from pathlib import Path
from typing import Any

from actors import threads
from actors.warnings import Warnings
from cluster.core.errors import PublishError
from cluster.core.paging import VALUE_BYTES
from cluster.core.publication import ROW_BYTES
from cluster.ports import Publisher
from cluster.sources.backoff import Backoff
from cluster.stores.api_server import ApiServer
from cluster.stores.busiest import Busiest
from cluster.stores.config_maps import ConfigMaps, PublishLimits
from configs.pod import uses_api_server
from configs.settings import Settings

log = logging.getLogger(__name__)
RETRY = (1.0, 60.0)  # s: the first and the longest wait between two tries
NAMESPACE = "rayscope"  # where neither the settings nor a pod's service account name one
LEAVE_TIME = 5.0  # s that a step under way is waited for at the end


def is_wanted(settings: Settings) -> bool:
    """Whether the ConfigMaps are to be written: `publish.enabled` and `kubernetes.mode`."""
    return settings.publish.enabled and uses_api_server(settings)


def make(store: str, settings: Settings) -> ConfigMaps:
    """The publisher of a store, which asks nothing of anybody before its first step."""
    publish, kubernetes = settings.publish, settings.kubernetes
    account = settings.kubelet.service_account
    limits = PublishLimits(publish.interval, publish.bytes_per_round, publish.pages, publish.lease_seconds)
    return ConfigMaps(
        ApiServer(kubernetes.kubeconfig, kubernetes.timeout, account),
        kubernetes.namespace or _own_namespace(account),
        Busiest(store, publish.pages * VALUE_BYTES // ROW_BYTES),
        limits,
        f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        Backoff(*RETRY, random.random),
    )


def _own_namespace(account: str) -> str:
    try:
        return Path(account, "namespace").read_text().strip() or NAMESPACE
    except (OSError, ValueError):
        return NAMESPACE


class Publishing:
    """Steps a publisher for the aggregator whose fence was last told. Nothing here waits for the API server but the thread itself."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._warnings = Warnings(log)
        self._fence = 0
        self._wake = threading.Event()
        self._ending = False
        self._thread = threads.start(self._publish_forever)

    def serve(self, fence: int) -> None:
        """The store belongs to the aggregator of that fence, which was just proved: publish for it."""
        if fence != self._fence:
            self._fence = fence
            self._wake.set()

    def status(self) -> dict[str, Any]:
        """The publisher's."""
        return self._publisher.status()

    def stop(self) -> None:
        """Let the next publisher begin at once, unless the API server takes too long."""
        self._ending = True
        self._wake.set()
        self._thread.join(LEAVE_TIME)

    def _publish_forever(self) -> None:
        wait: float | None = None
        while not self._ending:
            self._wake.wait(wait)
            self._wake.clear()
            if self._fence and not self._ending:
                wait = self._step()
        self._publisher.close()

    def _step(self) -> float:
        try:
            wait = self._publisher.step(self._fence)
        except Exception:  # what is shown is not worth the process that has the store
            log.exception("the publisher failed in a way that nobody expected")
            return RETRY[1]
        if error := self._publisher.status()["error"]:
            self._warnings.say("publisher", PublishError(error))
        else:
            self._warnings.over("publisher")
        return wait
