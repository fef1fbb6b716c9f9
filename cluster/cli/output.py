"""How commands print: tables for people, JSON for programs, progress and errors on stderr. Data never moves a terminal's cursor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from io import FileIO
from typing import Any

import click


def say(text: str) -> None:
    """A message to a person, on stderr, so that data alone is on stdout; each line begins with the command's name."""
    for line in printable(text, keep="\n").splitlines() or [""]:
        click.echo(f"rayscope: {line}", err=True)


def printable(text: str, keep: str = "") -> str:
    """The text with its control characters escaped: names come from outside and may hold terminal commands."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else ascii(one)[1:-1] for one in text)


def cell(value: Any) -> str:
    """A value as a table shows it: unknown is said, never left out or shown as 0."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under their headings: drawn on a terminal, aligned by spaces elsewhere. Columns of numbers are aligned to the right."""
    kept = [tuple(row) for row in rows]
    numeric = [any(isinstance(row[index], int | float) for row in kept) for index in range(len(columns))]
    cells = [[cell(value) for value in row] for row in kept]
    if sys.stdout.isatty():
        _draw(columns, cells, numeric)
    else:
        for line in _aligned([list(columns), *cells], numeric):
            click.echo(line)


def _aligned(lines: list[list[str]], numeric: Sequence[bool]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [text.rjust(width) if right else text.ljust(width) for text, width, right in zip(line, widths, numeric, strict=True)]
        yield "  ".join(padded).rstrip()


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_json(value: Any) -> None:
    """One JSON document. An iterator becomes an array, written element by element, so that it is never whole in memory."""
    if isinstance(value, dict | list | tuple | str | int | float | None):
        click.echo(json.dumps(value, indent=None if isinstance(value, list | tuple) else 2, allow_nan=False))
        return
    click.echo("[", nl=False)
    for number, element in enumerate(value):
        click.echo((",\n " if number else "") + json.dumps(element, allow_nan=False), nl=False)
    click.echo("]")


def data_alone() -> FileIO:
    """Our own stdout, unbuffered. Whatever else is printed there from now on, by a library say, comes out on stderr: data stays data."""
    data = FileIO(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return data


def drop_output() -> None:
    """Nobody takes what is still to be written (`rayscope flows | head`, a full disk): let it go, so that ending says nothing of it."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
