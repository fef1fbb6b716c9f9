"""Options that commands share: settings as flags, --json, durations. Commands get their settings by `@click.pass_obj`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from configs.load import Given, Loaded

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class SettingsLoader:
    """The context's object: call it for the settings in force. Nothing is read before, so that help costs nothing."""

    def __init__(self, config_file: Path | None = None, overrides: tuple[str, ...] = ()) -> None:
        self._config_file = config_file
        self._overrides = overrides
        self._flags: list[Given] = []
        self._loaded: Loaded | None = None

    def flag(self, key: str, value: Any, origin: str) -> None:
        """A subcommand's own flag that sets a setting; it wins over --set."""
        from configs.load import Given

        self._flags.append(Given(key, value, origin))
        self._loaded = None

    def __call__(self) -> Loaded:
        """The settings and their origins. Raises SettingsError."""
        if self._loaded is None:
            from configs.load import load, parse_override

            self._loaded = load(os.environ, self._config_file, [*map(parse_override, self._overrides), *self._flags])
        return self._loaded


def setting_option(flag: str, key: str) -> Callable[[Decorated], Decorated]:
    """A flag that sets one setting; its help is the setting's own sentence, and the command takes no argument for it."""
    from configs.describe import known

    entry = known()[key]

    def keep(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            loader = ctx.ensure_object(SettingsLoader)
            loader.flag(key, value, flag)

    return click.option(flag, metavar=entry.kind.upper(), expose_value=False, callback=keep, help=f"{entry.description} Sets {key}.")


def json_option(command: Decorated) -> Decorated:
    """`--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def complete_key(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Keys of settings, for --set."""
    from configs.describe import known

    return [f"{key}=" for key in known() if key.startswith(incomplete)]


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases only
    """Seconds, written as 30, 30s, 1.5m, 2h or 250ms."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds; a usage error for anything else, zero and a thousand years included."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|[smhd]?)", value.strip())
        seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no duration; write it as 30s, 5m, 2h or 250ms", param, ctx)
        return seconds


DURATION = Duration()
