"""`rayscope completion SHELL`: the script that makes a shell complete rayscope's commands, options and settings."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes your shell complete rayscope's commands.

    \b
    bash: rayscope completion bash > ~/.local/share/bash-completion/completions/rayscope
    zsh:  rayscope completion zsh > "${fpath[1]}/_rayscope"
    fish: rayscope completion fish > ~/.config/fish/completions/rayscope.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        ctx.fail(f"this click has no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "rayscope", "_RAYSCOPE_COMPLETE").source())
