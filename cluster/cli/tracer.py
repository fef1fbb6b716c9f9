"""`rayscope tracer`: serve this machine's connections on a unix socket."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from cluster.core.errors import TracerError

DEFAULT_BUFFER = 32 << 20


@click.command("tracer")
@click.option("--socket", "path", type=click.Path(path_type=Path), required=True, help="Where to listen; the file gets mode 0660.")
@click.option(
    "--event-buffer", type=click.IntRange(min=4096), default=DEFAULT_BUFFER, show_default=True, help="Bytes for each namespace's events."
)
def command(path: Path, event_buffer: int) -> None:
    """Serve this machine's connections on a unix socket, as DataDog's network-tracer does, until SIGTERM or Ctrl-C."""
    from cluster.tracer.server import Server
    from cluster.tracer.tracer import Tracer
    from cluster.tracer.unix_socket import listening

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        with listening(path) as sock:
            tracer = Tracer(event_buffer)
            click.echo(f"tracer: serving {path}", err=True)
            Server(tracer, sock).run()
    except TracerError as error:
        raise click.ClickException(str(error)) from error


def stop(_number: int, _frame: FrameType | None) -> None:
    """End the process, letting everything that is held be given back; a second signal changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)
