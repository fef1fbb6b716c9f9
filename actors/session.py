"""Start a Ray on this machine, or join one that runs.

A Ray of ours asks for a token, since its ports listen on every interface and whoever reaches them can run code: the token lies in a file
that only its owner can read.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors import signals
from actors.options import NODE_LABEL, RAY_ENVIRONMENT, ROLE_LABEL
from cluster.core.errors import ActorError
from configs.settings import RaySettings

DASHBOARD_HOST = "127.0.0.1"
PORTS_TRIED = 100


@dataclass(frozen=True, slots=True)
class Session:
    """A Ray that we are connected to."""

    address: str
    dashboard: str  # its URL, or "" where there is none
    started: bool  # whether it is ours, and ends with us


def token_file(runtime: Path) -> Path:
    """The file with our Ray's token, made when it is missing; mode 0600."""
    path = runtime / "ray-token"
    if not path.exists():
        descriptor, made = tempfile.mkstemp(dir=runtime)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with suppress(FileExistsError):  # another start was quicker
            os.link(made, path)
        os.unlink(made)  # noqa: PTH108
    return path


def set_environment(settings: RaySettings, runtime: Path) -> None:
    """What Ray reads from the environment, for this process and those that Ray starts. A person's own choice is left alone.

    Ray reads its authentication mode when it is imported, so this comes first: nothing in this module imports Ray before.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "disabled" if settings.address else "token"
        if not settings.address:
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file(runtime))


def connect(address: str, settings: RaySettings, runtime: Path) -> None:
    """Join a running Ray as a quiet client. Raises ActorError."""
    set_environment(settings, runtime)
    import ray

    try:
        with signals.kept():
            ray.init(address=address, **_common(settings))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ActorError(f"no Ray answers at {address}: {error}") from error


def start(node: str, settings: RaySettings, runtime: Path) -> Session:
    """Join the Ray of `settings.address`, or start one on this machine. Raises ActorError."""
    if settings.address:
        connect(settings.address, settings, runtime)
        return Session(settings.address, "", started=False)
    set_environment(settings, runtime)
    import ray

    try:
        with signals.kept():
            context: Any = ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                labels={NODE_LABEL: node, ROLE_LABEL: "head"},
                include_dashboard=settings.dashboard,
                dashboard_host=DASHBOARD_HOST,
                dashboard_port=free_port(settings.dashboard_port) if settings.dashboard else None,
                object_store_memory=settings.object_store_bytes,
                _temp_dir=settings.temp_dir,
                **_common(settings),
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ActorError(f"Ray did not start: {error}; `rayscope doctor` says what this machine lacks") from error
    dashboard = context.dashboard_url
    return Session(context.address_info["gcs_address"], f"http://{dashboard}" if dashboard else "", started=True)


def free_port(first: int) -> int:
    """The first port from `first` on that nobody has on loopback; 0 means any. Ray itself refuses to start where the one given is taken."""
    for port in range(first, min(first + PORTS_TRIED, 65_536)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((DASHBOARD_HOST, port))
            return int(probe.getsockname()[1])
    raise ActorError(f"no free port from {first} on for Ray's dashboard: set ray.dashboard_port to another, or ray.dashboard to false")


def leave() -> None:
    """Disconnect; a Ray that we started ends with that."""
    import ray

    ray.shutdown()


def _common(settings: RaySettings) -> dict[str, Any]:
    import ray

    return {
        "namespace": settings.namespace,
        "log_to_driver": False,
        "configure_logging": False,
        "logging_config": ray.LoggingConfig(encoding="JSON", log_level="INFO"),
    }
