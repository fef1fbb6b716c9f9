"""Bring our actors up, replace what runs other code, and take them all down again."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray
from ray.util import list_named_actors

from actors.aggregator import Aggregator
from actors.calls import Line, Peer, ask_all, find
from actors.cluster_watcher import ClusterWatcher
from actors.options import (
    AGGREGATOR,
    CLUSTER_WATCHER,
    GROUPS,
    QUERY,
    STORAGE_WRITER,
    SUPERVISOR,
    WATCHER_GROUPS,
    collector_name,
    singleton_options,
)
from actors.storage_writer import StorageWriter
from actors.version import code_version
from cluster.core.errors import ActorUnavailable, RayscopeError, StoreError, StoreUnusable, VersionMismatch
from configs.pod import uses_api_server
from configs.settings import Settings

START = 60.0  # s for an actor's process to start and answer
BUSY = 3.0  # s for one who has the store to let go of it, such as the process of an actor that was just ended
ANSWER = 10.0  # s for actors that run already to say which code they run
LOOK = 0.1  # s between two looks


def ensure(cls: type, options: dict[str, Any], groups: dict[str, int], arguments: tuple[Any, ...]) -> Any:
    """The named actor, made where there is none."""
    with contextlib.suppress(ActorUnavailable):
        return find(options["name"])
    remote = ray.remote(concurrency_groups=groups)(cls)  # type: ignore[call-overload]
    return remote.options(**options, get_if_exists=True).remote(*arguments)


def ensure_singletons(store_path: str, settings: Settings) -> None:
    """The storage writer, then the aggregator, then who reports to it beside the collectors."""
    ensure(StorageWriter, singleton_options(STORAGE_WRITER), GROUPS[STORAGE_WRITER], (store_path, settings))
    ensure(Aggregator, singleton_options(AGGREGATOR), GROUPS[AGGREGATOR], (settings,))
    if uses_api_server(settings):
        ensure(ClusterWatcher, singleton_options(CLUSTER_WATCHER), WATCHER_GROUPS, (settings,))


def deploy(store_path: str, socket: str, settings: Settings) -> None:
    """Start everything, or attach to what runs already; actors of other code are flushed and replaced.

    Raises StoreError where the store cannot be opened, ActorError where actors cannot run; what was started for it is then taken down.
    """
    if outdated():
        take_down()
    ours = not names()
    try:
        _start(store_path, socket, settings)
    except BaseException:
        if ours:
            take_down()
        raise


def _start(store_path: str, socket: str, settings: Settings) -> None:
    from actors.supervisor import Supervisor  # it deploys, too

    ensure_singletons(store_path, settings)
    await_store()
    ensure(Supervisor, singleton_options(SUPERVISOR), GROUPS[SUPERVISOR], (store_path, socket, settings))
    versions = ask_all({name: Line(name) for name in GROUPS}, "version", timeout=START)
    for name, version in versions.items():
        if isinstance(version, RayscopeError):
            raise version
        if version != code_version():
            raise VersionMismatch(f"actor {name} runs {version}, this is {code_version()}: run `rayscope down` first")


def await_store() -> None:
    """Wait until the aggregator has the store. Raises StoreError as the store says it, ActorUnavailable where no aggregator answers."""
    aggregator, began = Peer(AGGREGATOR, START), time.monotonic()
    while True:
        try:
            if aggregator.call("ready", group=QUERY):
                return
        except StoreUnusable:
            raise
        except (StoreError, ActorUnavailable) as error:
            if time.monotonic() - began > (BUSY if isinstance(error, StoreError) else START):
                raise
        time.sleep(LOOK)


def names() -> list[str]:
    """The names of our actors that exist, in the order in which to end them: the supervisor first, the store last."""
    order = {SUPERVISOR: 0, CLUSTER_WATCHER: 1, AGGREGATOR: 2, STORAGE_WRITER: 3}
    ours = [name for name in list_named_actors() if name in order or name.startswith(collector_name(""))]
    return sorted(ours, key=lambda name: order.get(name, 1))


def outdated() -> list[str]:
    """The names of our actors that run other code than ours, or cannot say. One that does not answer, since its node is away, is left to
    the supervisor, which asks again when it does."""
    versions = ask_all({name: Line(name) for name in names()}, "version", timeout=ANSWER)
    return [name for name, version in versions.items() if version != code_version() and not isinstance(version, ActorUnavailable)]


def flush(timeout: float = 30.0) -> bool:
    """Let the collectors deliver and the aggregator commit; True where all of it is durable."""
    delivered = committed = False
    with contextlib.suppress(RayscopeError):
        delivered = Peer(SUPERVISOR).call("stop", timeout / 2, group=QUERY, timeout=timeout)
    with contextlib.suppress(RayscopeError):
        committed = Peer(AGGREGATOR).call("flush", timeout / 2, group=QUERY, timeout=timeout)
    return bool(delivered and committed)


def end(name: str) -> None:
    """End an actor for good, if it is there."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(name), no_restart=True)


def take_down(timeout: float = 30.0) -> bool:
    """Flush, then end every actor of ours and wait until their names are free; True where nothing in flight was left behind."""
    flushed = flush(timeout)
    for name in names():
        if name == STORAGE_WRITER:
            with contextlib.suppress(RayscopeError):
                Peer(STORAGE_WRITER).call("stop", group=QUERY)
        end(name)
    deadline = time.monotonic() + timeout
    while (left := names()) and time.monotonic() < deadline:
        for name in left:  # what a supervisor that was being restarted has made meanwhile
            end(name)
        time.sleep(LOOK)
    return flushed
