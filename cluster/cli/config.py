"""`rayscope config`: the settings in force, each with where its value is from."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import click

from cluster.cli.options import SettingsLoader, json_option
from cluster.cli.output import print_json, print_table
from configs import paths
from configs.describe import default_yaml
from configs.load import Loaded


def means(loaded: Loaded) -> dict[str, str]:
    """What null stands for on this machine, for the settings where it stands for something."""
    meanings = {
        "node.name": socket.gethostname(),
        "tracer.socket": str(paths.tracer_socket(os.environ)),
        "store.path": str(paths.store_path(os.environ)),
    }
    return {key: meaning for key, meaning in meanings.items() if value_of(loaded, key) is None}


def value_of(loaded: Loaded, key: str) -> Any:
    """The value in force of `section.name`."""
    section, _, name = key.partition(".")
    return getattr(getattr(loaded.settings, section), name)


@click.command()
@click.option("--defaults", is_flag=True, help="Print default.yaml: every setting with its default, its sentence and what it allows.")
@json_option
@click.pass_obj
def command(load: SettingsLoader, defaults: bool, as_json: bool) -> None:
    """Show the settings in force and where each is from.

    Later wins: the defaults; a file (--config FILE, else $XDG_CONFIG_HOME/rayscope/config.yaml, else /etc/rayscope/config.yaml);
    variables; flags. A variable is RAYSCOPE_, the section, two underscores and the name: RAYSCOPE_COLLECTOR__INTERVAL=2 sets
    collector.interval.
    """
    if defaults:
        click.echo(default_yaml(), nl=False)
        return
    loaded = load()
    values = {key: value_of(loaded, key) for key in loaded.origins}
    meanings = means(loaded)
    if as_json:
        print_json({key: {"value": value, "origin": loaded.origins[key], "means": meanings.get(key)} for key, value in values.items()})
        return
    shown = {key: json.dumps(value) + (f" = {meanings[key]}" if key in meanings else "") for key, value in values.items()}
    print_table(("SETTING", "VALUE", "FROM"), [(key, shown[key], loaded.origins[key]) for key in values])
