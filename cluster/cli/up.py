"""`rayscope up`: the whole path on this machine, or on the Ray that the settings name, until it is told to end."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path

import click

from cluster.cli import descendants
from cluster.cli.ending import Ending
from cluster.cli.options import DURATION, SettingsLoader, json_option
from cluster.cli.output import data_alone, say
from cluster.cli.reading import running
from cluster.cli.tracer_process import TracerProcess, answers
from cluster.core.errors import ActorUnavailable, RayscopeError, SourceError
from cluster.sources.unix_http import get
from cluster.stores.sqlite import SqliteStore
from configs import paths
from configs.settings import Settings

REFRESH = 2.0  # s between two looks at the aggregator
NOTICE = "it ends as soon as what is just starting can be ended in order"
ABANDON = 5.0  # s until the processes of a Ray that was just starting are gone
COVERAGE = 20.0  # s that the start waits for the first poll


def run(settings: Settings, seconds: float | None, as_json: bool) -> None:
    """Start what is missing, show what comes, and take down what was started. Raises RayscopeError."""
    ending = Ending()
    data = None if sys.stdout.isatty() and not as_json else data_alone()  # Ray prints there what it thinks of dead workers
    node = settings.node.name or socket.gethostname()
    runtime = paths.runtime_dir(os.environ)
    store = paths.store_path(os.environ, settings)
    tracer_socket = str(paths.tracer_socket(os.environ, settings))
    if live := running(runtime):
        raise RayscopeError(f"rayscope runs here already (pid {live['pid']}): ask it by `rayscope flows`, or end it first")
    say(f"starting on node {node}; store {store}")
    if not settings.ray.address:
        SqliteStore(store).check()  # before Ray takes its time; on a shared Ray our own writer may have it open
    with ExitStack() as stack:
        ending.notice = NOTICE
        start_tracer(tracer_socket, runtime, settings, stack)
        if ending.asked or not start_actors(ending, node, tracer_socket, store, runtime, settings, stack):
            return
        await_coverage(ending)
        ending.notice = ""
        if not ending.asked:
            say(f"store {store}; everything runs, Ctrl-C ends it")
            ending.after(seconds)
            watch(ending, as_json, data)
        say("ending: delivering and committing what is in flight")


def start_tracer(path: str, runtime: Path, settings: Settings, stack: ExitStack) -> None:
    """Our tracer, where nothing answers and the settings allow it."""
    if answers(path):
        say(f"reading the tracer that answers on {path}")
    elif settings.tracer.start:
        log = runtime / "tracer.log"
        stack.enter_context(TracerProcess(path, log))
        say(f"tracer started on {path} (log {log})")
    else:
        say(f"no tracer answers on {path} yet: waiting for one")
    say_unseen(path)


def say_unseen(path: str) -> None:
    """What our tracer does not see, and what would help; another tracer's status says nothing of that."""
    with suppress(SourceError, ValueError, KeyError, TypeError):
        for one in json.loads(get(path, "/status", timeout=2.0, limit=100_000))["missing"]:
            say(f"not seen: {one['what']} ({one['why']}); {one['remedy']}")


def start_actors(ending: Ending, node: str, tracer_socket: str, store: Path, runtime: Path, settings: Settings, stack: ExitStack) -> bool:
    """Ray, then our actors; both end with the stack where they are ours. False where the end was asked for before the actors began."""
    say("joining Ray" if settings.ray.address else "starting Ray (about ten seconds)")
    logging.disable(logging.INFO)  # what Ray's client says of its start is said by us, for people
    from actors import session

    if settings.ray.address:
        ray_session = session.start(node, settings.ray, runtime)
    else:
        ending.notice = ""
        with descendants.kept(), ending.at_once(lambda: abandon(stack)):
            ray_session = session.start(node, settings.ray, runtime)
        ending.notice = NOTICE
    stack.callback(session.leave)
    if ending.asked:
        return False
    from actors import deploy  # it imports Ray, whose environment is set by now

    if ray_session.dashboard:
        say(f"Ray dashboard {ray_session.dashboard} (token in {os.environ.get('RAY_AUTH_TOKEN_PATH', 'RAY_AUTH_TOKEN')})")
    stack.callback(deploy.take_down)
    deploy.deploy(str(store), tracer_socket, settings)
    live = runtime / "up.json"
    live.write_text(
        json.dumps({"address": ray_session.address, "namespace": settings.ray.namespace, "pid": os.getpid(), "store": str(store)})
    )
    stack.callback(live.unlink, missing_ok=True)
    return True


def abandon(stack: ExitStack) -> None:
    """End in the middle of Ray's start: nothing of ours is in it yet, and Ray cannot be told to stop. The tracer ends in order."""
    say("ending: Ray had not started yet")
    stack.close()
    descendants.end(ABANDON)
    os._exit(0)


def await_coverage(ending: Ending) -> None:
    """Wait for the first poll: what opens and closes from then on is counted. Where it does not come, say so and go on."""
    from actors.calls import Peer
    from actors.options import AGGREGATOR, QUERY, SUPERVISOR

    aggregator = Peer(AGGREGATOR)
    deadline = time.monotonic() + COVERAGE
    while time.monotonic() < deadline and not ending.wait(0.1):
        with suppress(ActorUnavailable):
            if aggregator.call("status", group=QUERY)["nodes_covered"]:
                return
    if not ending.asked:
        say(f"no tracer was read within {COVERAGE:g} s; it is tried again and again, `rayscope status` says how it stands")
        with suppress(ActorUnavailable):
            for problem in filter(None, Peer(SUPERVISOR).call("status", group=QUERY)["nodes"].values()):
                say(problem)


def watch(ending: Ending, as_json: bool, data: FileIO | None) -> None:
    """Show what the aggregator knows until it is time to end: a live table on a terminal, lines otherwise."""
    from actors.calls import Peer
    from actors.options import AGGREGATOR
    from cluster.cli.live import Lines, LiveTable

    view = LiveTable() if data is None else Lines(as_json, data)
    aggregator = Peer(AGGREGATOR)
    with view:
        over = False
        while not over:
            over = ending.wait(REFRESH)
            try:
                view.show(aggregator)
            except RayscopeError as error:  # it is being restarted: said now, asked again at the next look
                view.say(str(error))


@click.command()
@click.option("--for", "seconds", type=DURATION, help="End so long after everything runs, such as 30s or 5m; without it, at Ctrl-C.")
@json_option
@click.pass_obj
def command(load: SettingsLoader, seconds: float | None, as_json: bool) -> None:
    """Start rayscope here: the tracer, Ray and the actors; show this machine's traffic until Ctrl-C."""
    run(load().settings, seconds, as_json)
