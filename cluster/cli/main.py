"""The command `rayscope`: its subcommands, each imported only when it is used, so that help and completion answer at once.

Exit codes: 0 done; 1 rayscope refused, or a check failed; 2 wrong usage or settings; 130 Ctrl-C; 141 the reader of a pipe went away.
"""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from cluster.cli.options import SettingsLoader, complete_key
from cluster.cli.output import drop_output, say
from cluster.cli.start import INTERRUPTED, ready
from cluster.core.errors import RayscopeError, SettingsError

COMMANDS = {
    "up": "Start rayscope here and show this machine's traffic until Ctrl-C.",
    "down": "End the actors that an up on a shared Ray left behind.",
    "flows": "Show transactions: who talks to whom, and how much.",
    "metadata": "Show what is known of each address.",
    "status": "Show what the answers rest on: coverage, losses, freshness.",
    "config": "Show the settings in force and where each is from.",
    "completion": "Print what makes your shell complete rayscope's commands.",
    "doctor": "Say what this machine offers and lacks, each lack with its remedy.",
    "tracer": "Serve this machine's connections on a unix socket.",
    "record": "Save a tracer's raw replies in a file, to be replayed.",
    "replay": "Serve a recording as a tracer would.",
}


class Lazy(click.Group):
    """A group whose subcommands live in `cluster.cli.NAME`, as `command`. It is also the one place where errors become messages."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. What rayscope refuses is a message, never a traceback, unless --debug asks for it."""
        try:
            ready()
            result = click.Group.invoke(self, ctx)
            sys.stdout.flush()
        except RayscopeError as error:
            if ctx.params.get("debug"):
                raise
            say(str(error))
            ctx.exit(2 if isinstance(error, SettingsError) else 1)
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            drop_output()
            ctx.exit(141)
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            drop_output()
            say(f"{error} (rayscope --debug shows where)")
            ctx.exit(1)
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The subcommand's own `command`, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"cluster.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Names a close match where there is no such command."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"there is no command {name!r}; " + (f"did you mean {close[0]}?" if close else f"there are: {', '.join(COMMANDS)}"))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in the help, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands from COMMANDS, likewise."""
        commands = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rayscope")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Read the settings of this file.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_key,
    help="Set one setting, such as collector.interval=2; may be given again. `rayscope config` lists them.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(ctx: click.Context, config_file: Path | None, overrides: tuple[str, ...], debug: bool) -> None:  # noqa: ARG001
    """Show who talks to whom, how much and how well."""
    ctx.obj = SettingsLoader(config_file, overrides)
