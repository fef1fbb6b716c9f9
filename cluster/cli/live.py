"""What `up` shows while it runs: a table that is drawn anew on a terminal, plain lines or JSON lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from io import FileIO
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.calls import Peer
from actors.options import QUERY
from cluster.cli.flows import COLUMNS, show
from cluster.cli.output import cell
from cluster.core.query import Filter

ROWS = 50  # at most, however high the terminal is
AROUND = 4  # lines that are not rows: the headline, the heading, and what a terminal needs below
WIDE = 120  # columns of a terminal that holds a whole line
NARROW = ("local", "remote", "sent", "received", "state")
NUMBERS = ("sent", "received", "retransmits")


def headline(status: dict[str, Any]) -> str:
    """The state of the whole path in one line."""
    covered = sum(1 for node in status["nodes"] if node["state"] == "ok")
    parts = [f"nodes {covered}/{len(status['nodes'])}", f"rows {status['rows']}", f"edges {status['edges']}"]
    parts += [f"{name} {status[name]}" for name in ("missed", "refused", "folded", "unattributed") if status[name]]
    if status["store_error"]:
        parts.append(f"STORE: {status['store_error']}")
    return ", ".join([*parts, f"committed {status['commit_age']:.0f} s ago"])


def table(transactions: Iterable[dict[str, Any]], width: int, now: float) -> Table:
    """Transactions for a person, a line each; names come from outside and are text, never markup or terminal commands."""
    names = COLUMNS if width >= WIDE else NARROW
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        made.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True, overflow="ellipsis")
    for one in transactions:
        shown = dict(zip(COLUMNS, show(one, now), strict=True))
        made.add_row(*(Text(cell(shown[name])) for name in names))
    return made


class Lines:
    """One line a look."""

    def __init__(self, as_json: bool, data: FileIO) -> None:
        self._as_json, self._data = as_json, data

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def show(self, aggregator: Peer) -> None:
        """Ask and print. Raises RayscopeError where the aggregator cannot be asked."""
        status = aggregator.call("status", group=QUERY)
        line = json.dumps(status) if self._as_json else headline(status)
        self._data.write(f"{line}\n".encode())

    def say(self, text: str) -> None:
        """Print what went wrong instead."""
        click.echo(f"rayscope: {text}", err=True)


class LiveTable:
    """The busiest connections, drawn in place."""

    def __init__(self) -> None:
        self._live = Live(Text("waiting for the first poll"), refresh_per_second=2)

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)

    def show(self, aggregator: Peer) -> None:
        """Ask and draw. Raises RayscopeError where the aggregator cannot be asked."""
        status = aggregator.call("status", group=QUERY)
        size = self._live.console.size
        busiest = aggregator.call("transactions", Filter(), "bytes", min(ROWS, max(1, size.height - AROUND)), group=QUERY)
        self._live.update(Group(Text(headline(status)), table(busiest, size.width, time.time())))

    def say(self, text: str) -> None:
        """Draw what went wrong instead."""
        self._live.update(Text(text))
