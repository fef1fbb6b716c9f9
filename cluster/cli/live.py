"""What `up` shows while it runs: a table that is drawn anew on a terminal, plain lines or JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.calls import Peer
from actors.options import QUERY
from cluster.cli.units import bytes_text
from cluster.core.query import Filter

ROWS = 20


def headline(status: dict[str, Any]) -> str:
    """The state of the whole path in one line."""
    covered = sum(1 for node in status["nodes"] if node["state"] == "ok")
    parts = [f"nodes {covered}/{len(status['nodes'])}", f"rows {status['rows']}", f"edges {status['edges']}"]
    parts += [f"{name} {status[name]}" for name in ("missed", "refused", "folded", "unattributed") if status[name]]
    if status["store_error"]:
        parts.append(f"STORE: {status['store_error']}")
    return ", ".join([*parts, f"committed {status['commit_age']:.0f} s ago"])


def table(transactions: list[dict[str, Any]]) -> Table:
    """Transactions for a person."""
    made = Table("local", "remote", "source", "dest", "sent", "received", "retransmits", "state")
    for one in transactions:
        ends = (f"{one['source']}:{one['sport']}", f"{one['dest']}:{one['dport']}")
        sizes = (bytes_text(one["total_sent_bytes"]), bytes_text(one["total_recv_bytes"]), str(one["total_retransmits"]))
        made.add_row(one["local"] or "?", one["remote"] or "?", *ends, *sizes, one["state"])
    return made


class Lines:
    """One line a look."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, aggregator: Peer) -> None:
        """Ask and print. Raises RayscopeError where the aggregator cannot be asked."""
        status = aggregator.call("status", group=QUERY)
        click.echo(json.dumps(status) if self._as_json else headline(status))
        sys.stdout.flush()

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
        busiest = aggregator.call("transactions", Filter(), "bytes", ROWS, group=QUERY)
        self._live.update(Group(Text(headline(status)), table(busiest)))

    def say(self, text: str) -> None:
        """Draw what went wrong instead."""
        self._live.update(Text(text))
