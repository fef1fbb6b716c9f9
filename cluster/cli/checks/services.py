"""Whether what rayscope reads is there: a tracer, Docker, a store of an earlier run."""

from __future__ import annotations

from cluster.cli.checks.finding import Finding, Machine, lack, ok, unknown
from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, StoreUnusable
from cluster.sources import unix_http
from configs import paths

PATIENCE = 1.0  # s
ANSWER_LIMIT = 1_000_000  # bytes


def tracer(machine: Machine) -> Finding:
    """Whether something answers on the tracer's socket."""
    path = paths.tracer_socket(machine.environ, machine.settings)
    start = "`rayscope up` starts one" if machine.settings.tracer.start else "start one (sudo rayscope tracer), or set tracer.start=true"
    try:
        unix_http.get(str(path), "/status", PATIENCE, ANSWER_LIMIT)
    except SourceAbsent:
        return lack(f"none answers on {path}", start + "; tracer.socket says where another one is")
    except SourceMalformed:
        return unknown(f"{path} answers, and not in HTTP", "if it writes the document itself, set tracer.protocol=document")
    except SourceError as error:
        return lack(str(error), "run as a user who may open the socket, or name another by tracer.socket")
    return ok(f"answers on {path}")


def docker(machine: Machine) -> Finding:
    """Whether Docker's Engine API answers."""
    path = machine.settings.collector.docker_socket
    if path is None:
        return ok("not asked, as the settings say")
    try:
        unix_http.get(path, "/_ping", PATIENCE, ANSWER_LIMIT)
    except SourceAbsent:
        return lack(f"none answers on {path}", "nothing to do where there is no Docker; else collector.docker_socket says where it is")
    except SourceError as error:
        return lack(str(error), "run as root or in the group docker; without it containers have no names")
    return ok(f"answers on {path}")


def store(machine: Machine) -> Finding:
    """Whether the store of an earlier run is one of ours; only its header is read."""
    from cluster.stores import place
    from cluster.stores.schema import VERSION

    path = paths.store_path(machine.environ, machine.settings)
    try:
        if not place.exists(path):
            return ok(f"none yet; `rayscope up` makes {path}")
        with path.open("rb") as file:
            version = int.from_bytes(file.read(64)[60:64], "big")  # user_version, sqlite.org/fileformat.html
    except PermissionError:
        return lack(f"{path} cannot be read", "run as the user who wrote it, or set store.path to a file of your own")
    except StoreUnusable as error:
        return lack(str(error), "move it away, or set store.path to another file")
    if version != VERSION:
        return lack(f"{path} is of version {version}, this rayscope reads {VERSION}", "use the rayscope that wrote it, or move it away")
    return ok(f"{path} can be read")
