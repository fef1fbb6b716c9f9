"""Where rayscope's files are, by the XDG Base Directory specification: only absolute paths count, and a runtime directory is private."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

from cluster.core.errors import SettingsError
from configs.settings import Settings

SYSTEM_CONFIG = Path("/etc/rayscope/config.yaml")


def config_files(environ: Mapping[str, str]) -> list[Path]:
    """Where a settings file is looked for; the first that exists is read."""
    home = _absolute(environ, "XDG_CONFIG_HOME") or _home(environ) / ".config"
    return [home / "rayscope" / "config.yaml", SYSTEM_CONFIG]


def state_dir(environ: Mapping[str, str]) -> Path:
    """The directory of what survives a restart; it may not exist yet."""
    return (_absolute(environ, "XDG_STATE_HOME") or _home(environ) / ".local" / "state") / "rayscope"


def runtime_place(environ: Mapping[str, str]) -> Path:
    """Where the runtime directory is or would be. Without XDG_RUNTIME_DIR it is /run/rayscope for root, else in TMPDIR, by user id."""
    given = _absolute(environ, "XDG_RUNTIME_DIR")
    if given is not None and given.is_dir():
        return given / "rayscope"
    if os.geteuid() == 0:
        return Path("/run/rayscope")
    return (_absolute(environ, "TMPDIR") or Path("/tmp")) / f"rayscope-{os.geteuid()}"  # noqa: S108 (make_private checks its owner)


def runtime_dir(environ: Mapping[str, str]) -> Path:
    """The directory of sockets and of what says that we run, made where it is absent. Raises SettingsError where it is not ours alone."""
    return make_private(runtime_place(environ))


def tracer_socket(environ: Mapping[str, str], settings: Settings | None = None) -> Path:
    """The tracer's socket that these settings mean; nothing is made."""
    given = settings.tracer.socket if settings else None
    return _expanded(given, environ) if given else runtime_place(environ) / "tracer.sock"


def store_path(environ: Mapping[str, str], settings: Settings | None = None) -> Path:
    """The SQLite file that these settings mean; nothing is made."""
    given = settings.store.path if settings else None
    return _expanded(given, environ) if given else state_dir(environ) / "rayscope.db"


def make_private(directory: Path) -> Path:
    """Make the directory, of mode 0700, where it is absent. Raises SettingsError where another user could change what is in it."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise SettingsError(f"{directory}: cannot be made: {error.strerror}; set XDG_RUNTIME_DIR or XDG_STATE_HOME to your own") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise SettingsError(f"{directory}: belongs to another user or is no directory; remove it, or set XDG_RUNTIME_DIR to your own")
    if status.st_mode & 0o022:
        raise SettingsError(f"{directory}: others may write in it; run: chmod 700 {directory}")
    return directory


def _absolute(environ: Mapping[str, str], variable: str) -> Path | None:
    path = Path(environ.get(variable, ""))
    return path if path.is_absolute() else None


def _home(environ: Mapping[str, str]) -> Path:
    home = _absolute(environ, "HOME")
    if home is not None:
        return home
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/")


def _expanded(path: str, environ: Mapping[str, str]) -> Path:
    """A leading ~ is the home directory; a relative path is from where the command was started."""
    return (_home(environ) / path[1:].lstrip("/") if path == "~" or path.startswith("~/") else Path(path)).absolute()
