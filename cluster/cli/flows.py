"""`rayscope flows`: the transactions, as a table or as JSON."""

from __future__ import annotations

import sys
import time
from ipaddress import ip_network
from typing import Any

import click

from cluster.cli.options import DURATION, SettingsLoader, json_option
from cluster.cli.output import print_json, print_table, say
from cluster.cli.reading import Reader, reader
from cluster.cli.units import age_text, bytes_text
from cluster.core.filters import STATES, Filter
from cluster.core.query import SORTS

SHORTEST = 0.2  # s between two looks
ROWS = 50  # in a table, where no limit is given
COLUMNS = ("local", "remote", "source", "dest", "proto", "sent", "received", "retransmits", "state", "seen")


def show(one: dict[str, Any], now: float) -> tuple[Any, ...]:
    """A transaction as a line of the table."""
    source, dest = (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in ends(one))
    received = bytes_text(one["total_recv_bytes"]) + ("" if one["recv_exact"] or one["total_recv_bytes"] is None else " (+1?)")
    names = (one["local"] or "unattributed", one["remote"] or "unknown")
    counts = (bytes_text(one["total_sent_bytes"]), received, one["total_retransmits"])
    return (*names, source, dest, one["protocol"], *counts, one["state"], age_text(now - one["last_seen"]))


def ends(one: dict[str, Any]) -> tuple[tuple[str, int], tuple[str, int]]:
    """The two ends as (address, port)."""
    return (one["source"], one["sport"]), (one["dest"], one["dport"])


def look(source: Reader, where: Filter, sort: str, limit: int | None, as_json: bool) -> None:
    """Ask once and print."""
    if as_json:
        print_json(iter(source.transactions(where, sort, limit)))
        return
    shown = ROWS if limit is None else limit
    found = source.transactions(where, sort, shown + 1)
    print_table(COLUMNS, (show(one, time.time()) for one in found[:shown]))
    if not found:
        say("no transaction is known that fits" if where != Filter() else "no transaction is known yet")
    if len(found) > shown:
        say(f"the first {shown}, by {sort}; --limit shows more, --json all")


def network(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """The address or network as it is given; a usage error for what is neither, before anything is asked."""
    try:
        return value if value is None else str(ip_network(value, strict=False))
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither an address nor a network such as 10.0.0.0/8") from None


@click.command()
@click.option("--node", help="Only this node.")
@click.option("--workload", metavar="TEXT", help="Only where the name of either end contains this, such as unit/ssh.")
@click.option("--address", metavar="IP|CIDR", callback=network, help="Only where either end is this address or in this network.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Only where either end has this port.")
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), help="Only this protocol.")
@click.option("--state", type=click.Choice(STATES), help="Only connections that are open, or closed.")
@click.option("--since", type=DURATION, help="Only what was seen in this last time, such as 5m.")
@click.option("--sort", type=click.Choice(SORTS), default="bytes", show_default=True, help="Order: largest or latest first.")
@click.option("--limit", type=click.IntRange(min=0), help=f"At most so many; without it {ROWS} in a table, all as JSON.")
@click.option("--watch", type=DURATION, help="Look again after so long, until Ctrl-C.")
@json_option
@click.pass_obj
def command(
    load: SettingsLoader, /, sort: str, limit: int | None, watch: float | None, as_json: bool, since: float | None, **fields: Any
) -> None:
    """Show transactions: who talks to whom, and how much.

    The answer is live while `rayscope up` runs, else from the store; stderr says which. A transaction is one connection as one of its ends
    sees it: `source` is the local end. --json prints one array; byte counts that cannot be known are null, never 0.
    """
    source = reader(load().settings)
    say(source.origin)
    while True:
        where = Filter(**fields, since=None if since is None else time.time() - since)
        if watch is not None and sys.stdout.isatty():
            click.clear()
        look(source, where, sort, limit, as_json)
        if watch is None:
            return
        time.sleep(max(watch, SHORTEST))
