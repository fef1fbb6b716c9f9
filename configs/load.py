"""Settings from default.yaml, a file, RAYSCOPE_* variables and flags, in that order: later wins, and each value keeps its origin.

The rule for variables: `RAYSCOPE_`, the section, two underscores, the name, in capitals: RAYSCOPE_COLLECTOR__INTERVAL=2 sets
collector.interval. Values of variables and of --set are text; an empty one, or `null`, is null where null is allowed. The variables that
Kubernetes adds for a Service whose name begins with `rayscope` (RAYSCOPE_SERVICE_HOST ...) are no settings and are passed over.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.core.errors import SettingsError
from configs import yaml_file
from configs.describe import known, sections
from configs.paths import config_files
from configs.settings import Settings

PREFIX = "RAYSCOPE_"
DEFAULTS = Path(__file__).with_name("default.yaml")
SERVICE_LINK = re.compile(r"RAYSCOPE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
SHOWN_PROBLEMS = 10
SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Given:
    """One value and where it is from."""

    key: str  # "section.name"
    value: Any
    origin: str  # "default", "FILE:LINE", "RAYSCOPE_..." or the flag


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, and for each key where its value is from."""

    settings: Settings
    origins: Mapping[str, str]


def load(environ: Mapping[str, str], config_file: Path | None = None, overrides: Iterable[Given] = ()) -> Loaded:
    """All sources merged; `config_file` None looks in the usual places. Raises SettingsError that names every problem."""
    problems: list[str] = []
    merged: dict[str, Given] = {}
    for source in (_from_defaults(), _from_file(environ, config_file), _from_environ(environ), overrides):
        for given in source:
            problem = given.value if given.key == "" else _problem(given)
            if problem:
                problems.append(f"{given.origin}: {problem}")
            else:
                merged[given.key] = given
    if problems:
        more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise SettingsError("\n".join(problems[:SHOWN_PROBLEMS] + more))
    settings = Settings.model_validate(_nested((given.key, given.value) for given in merged.values()))
    return Loaded(settings, {key: given.origin for key, given in merged.items()})


def parse_override(text: str, flag: str = "--set") -> Given:
    """KEY=VALUE of `--set` as a value from a flag. Raises SettingsError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise SettingsError(f"{flag} {_shown(text)}: KEY=VALUE was expected, such as collector.interval=2")
    if key not in known():
        raise SettingsError(f"{flag} {_shown(text)}: {_unknown(key, list(known()))}")
    return Given(key, _from_text(key, value), f"{flag} {key}")


def _from_defaults() -> Iterator[Given]:
    for entry in yaml_file.read(DEFAULTS):
        yield Given(f"{entry.section}.{entry.name}", entry.value, "default")


def _from_file(environ: Mapping[str, str], config_file: Path | None) -> Iterator[Given]:
    path = config_file or next((path for path in config_files(environ) if path.exists()), None)
    for entry in yaml_file.read(path) if path else ():
        key = f"{entry.section}.{entry.name}"
        origin = f"{path}:{entry.line}"
        if entry.section not in sections():
            yield Given("", _unknown_section(entry.section), origin)
        elif entry.name is None and entry.value is not None:
            yield Given("", f"{entry.section}: settings were expected below it, such as `{_first_name(entry.section)}:`", origin)
        elif entry.name is not None:
            yield Given(key, entry.value, origin) if key in known() else Given("", _unknown(key, list(known())), origin)


def _from_environ(environ: Mapping[str, str]) -> Iterator[Given]:
    keys = {PREFIX + key.upper().replace(".", "__"): key for key in known()}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if variable in keys:
            yield Given(keys[variable], _from_text(keys[variable], environ[variable]), variable)
        elif not SERVICE_LINK.fullmatch(variable):
            yield Given("", _unknown(variable, list(keys)), variable[:SHOWN_CHARACTERS])


def _from_text(key: str, text: str) -> str | None:
    return None if known()[key].nullable and text.strip() in ("", "null") else text


def _first_name(section: str) -> str:
    return next(key for key in known() if key.startswith(section + ".")).partition(".")[2]


def _unknown(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:SHOWN_CHARACTERS], candidates, n=1)
    hint = f"did you mean {close[0]}?" if close else "`rayscope config --defaults` lists all"
    return f"there is no setting {_shown(name)}; {hint}"


def _unknown_section(name: str) -> str:
    if name not in known():
        return _unknown(name, list(sections()))
    section, _, setting = name.partition(".")
    return f"there is no setting {_shown(name)}; write it as `{section}:` with `{setting}:` below it"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else ascii(value).replace("\\'", "'")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _problem(given: Given) -> str | None:
    """What is wrong with a value, or None. Python would read true as 1; a person who wrote it meant something else."""
    entry = known()[given.key]
    boolean_elsewhere = isinstance(given.value, bool) and entry.kind != "boolean"
    try:
        Settings.model_validate(_nested([(given.key, given.value)]))
        if not boolean_elsewhere:
            return None
    except ValidationError:
        pass
    quote = "; put it in quotes" if entry.kind == "string" and isinstance(given.value, bool | int | float) else ""
    return f"{given.key}: {_shown(given.value)} is not allowed{quote}. Allowed: {entry.allowed}. ({entry.description})"


def _nested(values: Iterable[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for key, value in values:
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree
