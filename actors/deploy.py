"""Bring our actors up, replace what runs other code, and take them all down again."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import ray
from ray.util import list_named_actors

from actors.aggregator import Aggregator
from actors.calls import Peer, call, find
from actors.options import AGGREGATOR, GROUPS, QUERY, STORAGE_WRITER, SUPERVISOR, collector_name, singleton_options
from actors.storage_writer import StorageWriter
from actors.version import code_version
from cluster.core.errors import ActorUnavailable, RayscopeError, VersionMismatch
from configs.settings import Settings

log = logging.getLogger(__name__)
START = 60.0  # s for an actor's process to start and answer


def ensure(cls: type, options: dict[str, Any], groups: dict[str, int], arguments: tuple[Any, ...]) -> Any:
    """The named actor, made where there is none. Raises ActorUnavailable, VersionMismatch."""
    with contextlib.suppress(ActorUnavailable):
        return find(options["name"])
    remote = ray.remote(concurrency_groups=groups)(cls)  # type: ignore[call-overload]
    return remote.options(**options, get_if_exists=True).remote(*arguments)


def ensure_singletons(store_path: str, settings: Settings) -> None:
    """The storage writer, then the aggregator."""
    store = settings.store
    ensure(StorageWriter, singleton_options(STORAGE_WRITER), GROUPS[STORAGE_WRITER], (store_path, store.retention, store.size_limit))
    ensure(Aggregator, singleton_options(AGGREGATOR), GROUPS[AGGREGATOR], (settings,))


def deploy(store_path: str, socket: str, settings: Settings) -> None:
    """Start everything, or attach to what runs already; actors of other code are flushed and replaced. Raises ActorError."""
    from actors.supervisor import Supervisor  # it deploys, too

    if outdated():
        take_down()
    ensure_singletons(store_path, settings)
    ensure(Supervisor, singleton_options(SUPERVISOR), GROUPS[SUPERVISOR], (store_path, socket, settings))
    for name in (STORAGE_WRITER, AGGREGATOR, SUPERVISOR):
        running = call(find(name), "version", timeout=START)
        if running != code_version():
            raise VersionMismatch(f"actor {name} runs {running}, this is {code_version()}: run `rayscope down` first")


def names() -> list[str]:
    """The names of our actors that exist, collectors first, the store last."""
    order = {SUPERVISOR: 1, AGGREGATOR: 2, STORAGE_WRITER: 3}
    ours = [name for name in list_named_actors() if name in order or name.startswith(collector_name(""))]
    return sorted(ours, key=lambda name: order.get(name, 0))


def outdated() -> list[str]:
    """The names of our actors that exist and run other code than ours."""
    found = []
    for name in names():
        with contextlib.suppress(RayscopeError):
            if call(find(name), "version", timeout=START) != code_version():
                found.append(name)
    return found


def flush(timeout: float = 30.0) -> bool:
    """Let the collectors deliver and the aggregator commit; True where all of it is durable."""
    delivered = committed = False
    with contextlib.suppress(RayscopeError):
        delivered = Peer(SUPERVISOR).call("stop", timeout / 2, group=QUERY, timeout=timeout)
    with contextlib.suppress(RayscopeError):
        committed = Peer(AGGREGATOR).call("flush", timeout / 2, group=QUERY, timeout=timeout)
    return bool(delivered and committed)


def take_down(timeout: float = 30.0) -> bool:
    """Flush, then end every actor of ours and wait until their names are free; True where nothing in flight was left behind."""
    flushed = flush(timeout)
    with contextlib.suppress(RayscopeError):
        Peer(STORAGE_WRITER).call("stop", group=QUERY)
    for name in [SUPERVISOR, *names()]:
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name), no_restart=True)
    deadline = time.monotonic() + timeout
    while names() and time.monotonic() < deadline:
        time.sleep(0.1)
    return flushed
