"""`rayscope replay`: serve a recording as a tracer would."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import click

from cluster.cli.ending import Ending
from cluster.cli.options import SettingsLoader, json_option, setting_option
from cluster.cli.output import print_json, say
from cluster.sources.recording import Recording
from cluster.sources.replay import timeline
from cluster.sources.replay_server import ReplayServer
from configs import paths
from configs.settings import Settings

SPEED_LIMIT = 1_000_000.0


class Speed(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases only
    """How many times as fast as it was recorded, or None for `max`."""

    name = "number|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """The factor; a usage error for anything else."""
        if value == "max":
            return None
        try:
            speed = float(value)
        except ValueError:
            speed = 0.0
        if not 0 < speed <= SPEED_LIMIT:
            self.fail(f"{value!r} is no speed; write a number such as 1, 10 or 0.5, or max", param, ctx)
        return speed


def describe(recording: Recording) -> dict[str, Any]:
    """What a recording holds."""
    return {
        "file": recording.path,
        "replies": len(recording),
        "seconds": round(timeline(recording)[0][-1], 3),
        "first_at": recording.entries[0].at if len(recording) else None,
        "damaged": recording.damaged,
        "lost_tail_bytes": recording.lost_tail,
    }


def socket_path(settings: Settings) -> str:
    """Where to serve; our runtime directory is made where the settings mean that."""
    if settings.tracer.socket is None:
        paths.runtime_dir(os.environ)
    return str(paths.tracer_socket(os.environ, settings))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@setting_option("--socket", "tracer.socket")
@click.option("--speed", type=Speed(), default="1", help="Times as fast as recorded (default 1); max gives the next reply at each request.")
@click.option("--loop/--no-loop", default=False, help="Begin again at the end, as another tracer instance: totals then grow each round.")
@json_option
@click.pass_obj
def command(load: SettingsLoader, file: Path, speed: float | None, loop: bool, as_json: bool) -> None:
    """Serve the recording FILE on a unix socket as a tracer would, until Ctrl-C.

    Every reply is given once to each client, in order, and none is passed over: a recording gives the same totals every time. Between two
    replies and after the last one, the last is repeated without its closed connections, so the connections still open stay open. A rayscope
    that is started again is the same client and goes on where it was: to see all of it again, start the replay again too.
    """
    settings = load().settings
    with Recording(file, settings.tracer.reply_limit) as recording, ReplayServer(socket_path(settings), recording, speed, loop) as server:
        about = describe(recording) | {"socket": str(server.server_address)}
        if recording.damaged or recording.lost_tail:
            say(f"{file}: {recording.damaged} damaged places passed over, {recording.lost_tail} bytes at the end left out")
        ending = Ending()
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        if as_json:
            print_json(about)
        say(f"serving {about['replies']} replies over {about['seconds']:g} s on {about['socket']}; Ctrl-C ends it")
        ending.wait(float("inf"))
        server.shutdown()
        say(f"answered {server.served} requests")
