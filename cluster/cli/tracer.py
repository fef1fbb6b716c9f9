"""`rayscope tracer`: serve this machine's connections on a unix socket."""

from __future__ import annotations

import contextlib
import grp
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from cluster.cli.options import SettingsLoader
from cluster.core.errors import TracerError

EVENT_BUFFER = 32 << 20
PR_SET_PDEATHSIG = 1


@click.command("tracer")
@click.option("--socket", "path", type=click.Path(path_type=Path), help="Where to listen; without it, as the settings say.")
@click.option("--group", metavar="NAME", help="A group whose members may ask, too; the socket's mode is 0660.")
@click.option("--proc", default="/proc", show_default=True, help="The machine's /proc; in a pod, where the node's is mounted.")
@click.option(
    "--event-buffer",
    type=click.IntRange(min=2_304, max=1 << 30),
    default=EVENT_BUFFER,
    show_default=True,
    metavar="BYTES",
    help="Room for the closes of each network namespace that have not been read yet.",
)
@click.option("--with-parent", is_flag=True, help="End when the process that started it ends, however that ends.")
@click.pass_obj
def command(load: SettingsLoader, path: Path | None, group: str | None, proc: str, event_buffer: int, with_parent: bool) -> None:
    """Serve this machine's connections on a unix socket, as DataDog's network-tracer does, until SIGTERM or Ctrl-C.

    Run it as root: without, it sees its own network namespace and the owners of your own processes' sockets only. /status says what is
    missing: curl --unix-socket PATH http://tracer/status
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if with_parent:
        end_with_parent()
    serve(path or configured(load), group_id(group) if group else None, proc, event_buffer)


def serve(path: Path, group: int | None, proc: str, event_buffer: int) -> None:
    """Serve until a signal comes. Raises TracerError."""
    from cluster.tracer.server import Server
    from cluster.tracer.tracer import Tracer
    from cluster.tracer.unix_socket import listening

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(path, group))
        tracer = Tracer(proc, event_buffer, path)
        stack.callback(tracer.close)
        server = Server(tracer, listener)
        stack.callback(server.close)
        click.echo(f"rayscope: tracing, socket {path}", err=True)
        for lack in tracer.status()["missing"]:
            click.echo(f"rayscope: not seen: {lack['what']} ({lack['why']}); {lack['remedy']}", err=True)
        server.run()


def configured(load: SettingsLoader) -> Path:
    """The socket that the settings name; its directory is made where it is the default one."""
    from configs import paths

    loaded = load()
    if loaded.settings.tracer.socket is None:
        paths.runtime_dir(os.environ)
    return paths.tracer_socket(os.environ, loaded.settings)


def group_id(name: str) -> int:
    """The number of a group. Raises TracerError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise TracerError(f"--group {name}: there is no such group; getent group lists them") from None


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent's thread that started this process ends (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it ended before
        sys.exit(0)


def stop(_number: int, _frame: FrameType | None) -> None:
    """End the process, giving back what it holds; a second signal changes nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)
