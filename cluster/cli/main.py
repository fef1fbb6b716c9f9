"""The command `rayscope`: its subcommands, each imported only when it is used, so that help and completion answer at once."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "tracer": "Serve this machine's connections on a unix socket.",
}


class Lazy(click.Group):
    """A group whose subcommands live in `cluster.cli.NAME`, as `command`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in the help, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The subcommand's own `command`, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"cluster.cli.{cmd_name}").command
        return command


@click.group(cls=Lazy)
@click.version_option(package_name="rayscope")
def main() -> None:
    """Show who talks to whom, how much and how well."""
