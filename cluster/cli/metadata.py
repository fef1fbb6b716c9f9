"""`rayscope metadata`: what is known of each address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cluster.cli.options import SettingsLoader, json_option
from cluster.cli.output import print_json, print_table, say
from cluster.cli.reading import reader
from cluster.core.errors import RayscopeError


def lines(records: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """One line for each record of each source."""
    for address, sources in sorted(records.items()):
        for source, by_uid in sorted(sources.items()):
            for uid, record in sorted(by_uid.items()):
                yield address, source, record.get("kind", ""), record.get("name", ""), record.get("workload", ""), uid


@click.command()
@click.argument("address", required=False)
@json_option
@click.pass_obj
def command(load: SettingsLoader, address: str | None, as_json: bool) -> None:
    """Show metadata by address: nodes, containers and processes; with ADDRESS only what is known of that one.

    The answer is live while `rayscope up` runs, else from the store; stderr says which. --json prints one object of objects: by address, by
    source, by uid.
    """
    source = reader(load().settings)
    say(source.origin)
    records = source.metadata(address)
    if address is not None and not records:
        raise RayscopeError(f"nothing is known of {address}; `rayscope metadata` lists what is")
    if as_json:
        print_json(records)
    else:
        print_table(("address", "source", "kind", "name", "workload", "uid"), lines(records))
