"""`rayscope status`: what the answers rest on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from cluster.cli.options import SettingsLoader, json_option
from cluster.cli.output import print_json, print_table, printable, say
from cluster.cli.reading import reader
from cluster.cli.units import age_text

TOTALS = ("rows", "open", "edges", "missed", "refused", "folded", "unattributed", "saturated", "ambiguous", "backpressure", "fence")


def node_line(node: dict[str, Any]) -> tuple[Any, ...]:
    """A node as a line of the table."""
    said = node["status"]
    return (node["node"], node["state"], age_text(node["age"]), said.get("connections"), said.get("polls"), said.get("missed"))


def uncovered_text(node: str, start: float, end: float, reason: str) -> str:
    """An interval in which nobody looked, in the reader's own time."""
    first, last = (datetime.fromtimestamp(moment).isoformat(" ", "seconds") for moment in (start, end))
    return f"{node} was not covered from {first} to {last}: {reason}"


def remarks(status: dict[str, Any]) -> Iterator[str]:
    """What a person should know beyond the counts: who is not read and why, what was refused, when nobody looked, a store that is stuck."""
    for node, problem in status.get("supervisor", {}).get("nodes", {}).items():
        if problem:
            yield f"{node}: {problem}"
    for node in status["nodes"]:
        refused = node["status"].get("refused") or {}
        if refused:
            yield f"{node['node']} refused: " + ", ".join(f"{reason} {count:,}" for reason, count in refused.items())
        yield from lacks(node["node"], node["status"].get("metadata"))
    for interval in status["uncovered"]:
        yield uncovered_text(*interval)
    if status.get("store_error"):
        yield f"the store does not take commits: {status['store_error']}"


def lacks(node: str, sources: Any) -> Iterator[str]:
    """What a node's sources of metadata lack, as its collector says it."""
    for name, source in sources.items() if isinstance(sources, dict) else ():
        said = source if isinstance(source, dict) else {}
        if said.get("state") == "failed":
            yield f"{node} has no {name} metadata: {said.get('reason')}"
        if said.get("insecure_tls"):
            yield f"{node} does not verify the certificate of its {name} ({name}.insecure_tls)"


@click.command()
@json_option
@click.pass_obj
def command(load: SettingsLoader, as_json: bool) -> None:
    """Show what the answers rest on: nodes covered, what was missed, refused, folded or unknown, and how fresh it is.

    The answer is live while `rayscope up` runs, else from the store; stderr says which.
    """
    source = reader(load().settings)
    say(source.origin)
    status = source.status()
    if as_json:
        print_json({"origin": source.origin, **status})
        return
    print_table(("node", "state", "seen", "connections", "polls", "missed"), map(node_line, status["nodes"]))
    click.echo()
    print_table(("what", "count"), [(name, status[name]) for name in TOTALS])
    for remark in remarks(status):
        click.echo(printable(remark))
