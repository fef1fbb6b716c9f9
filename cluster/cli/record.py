"""`rayscope record`: save a tracer's raw replies with their times, to be replayed later."""

from __future__ import annotations

import os
import random
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import msgspec

from cluster.cli.ending import Ending, Interrupted
from cluster.cli.options import DURATION, SettingsLoader, json_option, setting_option
from cluster.cli.output import print_json, say
from cluster.core.errors import SourceError
from cluster.ports import ConnectionSource
from cluster.sources.backoff import Backoff
from cluster.sources.recording import Recorder
from cluster.sources.replay import UNREADABLE
from cluster.sources.tracer_socket import TracerSocket
from configs import paths


class Head(msgspec.Struct):
    """What a recorder reads of a reply; the rest stays as it came."""

    reply_id: str | None = None
    connections: list[msgspec.Raw] | None = None


HEAD = msgspec.json.Decoder(Head)


@dataclass
class Summary:
    """What one run of `record` did."""

    file: str
    replies: int = 0
    rows: int = 0  # over all replies: a connection is in many of them
    unreadable: int = 0  # saved as they came, but no JSON of a tracer
    failed_polls: int = 0
    bytes: int = 0  # of the replies; the file is smaller
    seconds: float = 0.0


def read_head(body: bytes) -> Head | None:
    """The reply_id and the rows; None for what a tracer would not say."""
    try:
        return HEAD.decode(body)
    except UNREADABLE:
        return None


def record(recorder: Recorder, source: ConnectionSource, interval: float, ending: Ending, summary: Summary) -> str:
    """Poll and save until it is time to end; the last error, "" after a good poll. Raises RayscopeError where the file cannot be written.

    A reply is acked only by the poll after it was saved, so the tracer lets go of a closed connection only once it is on the disk.
    """
    backoff = Backoff(interval, max(interval, 10.0), random.random)
    ack: str | None = None
    trouble = ""
    wait = 0.0
    while not ending.wait(wait):
        began = time.monotonic()
        try:
            with ending.interruptible():
                reply = source.poll(ack)
        except Interrupted:
            break
        except SourceError as error:
            wait = backoff.failed()
            summary.failed_polls += 1
            trouble = _said(trouble, str(error))
            continue
        recorder.append(reply)
        head = read_head(reply.body)
        ack = head.reply_id if head else None
        _count(summary, head, len(reply.body))
        trouble = _said(trouble, "")
        backoff.reset()
        wait = max(0.0, interval - (time.monotonic() - began))
    return trouble


def _count(summary: Summary, head: Head | None, size: int) -> None:
    summary.replies += 1
    summary.bytes += size
    summary.unreadable += head is None
    summary.rows += len(head.connections or ()) if head else 0


def _said(old: str, new: str) -> str:
    """Say only what changed: not every failed poll, but the first, and the recovery."""
    if new != old:
        say(f"{new}; trying again" if new else "the tracer answers again")
    return new


def tell(summary: Summary, as_json: bool) -> None:
    """The last line."""
    if as_json:
        print_json(asdict(summary))
    odd = [f"{count} {what}" for count, what in ((summary.unreadable, "of them no JSON"), (summary.failed_polls, "polls failed")) if count]
    size = Path(summary.file).stat().st_size
    say(
        f"recorded {summary.replies} replies with {summary.rows} rows in {summary.seconds:.1f} s"
        f"{', ' + ', '.join(odd) if odd else ''}; {summary.file} holds {size:,} bytes"
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@setting_option("--socket", "tracer.socket")
@click.option("--interval", type=DURATION, help="Time between two polls, such as 500ms or 10s; without it, collector.interval.")
@click.option("--for", "seconds", type=DURATION, help="End after so long, such as 30s or 5m; without it, at Ctrl-C.")
@json_option
@click.pass_obj
def command(load: SettingsLoader, file: Path, interval: float | None, seconds: float | None, as_json: bool) -> None:
    """Save a tracer's raw replies with their times in FILE, for `rayscope replay`.

    A FILE that is a recording already is continued. Ctrl-C ends it; what was saved until then is whole. The tracer is asked under a name of
    its own, so a rayscope that reads the same tracer misses nothing.
    """
    settings = load().settings
    tracer = settings.tracer
    path = str(paths.tracer_socket(os.environ, settings))
    source = TracerSocket(
        path, f"rayscope-record-{settings.node.name or socket.gethostname()}", tracer.protocol, tracer.timeout, tracer.reply_limit
    )
    summary = Summary(str(file))
    began = time.monotonic()
    with Recorder(file) as recorder:
        ending = Ending(seconds)
        if recorder.lost_tail:
            say(f"{file}: {recorder.lost_tail} bytes at its end were a reply cut short: removed")
        say(f"recording {path} into {file}{f' after the {recorder.kept} replies it holds' if recorder.kept else ''}; Ctrl-C ends it")
        try:
            trouble = record(recorder, source, interval or settings.collector.interval, ending, summary)
        finally:
            summary.seconds = round(time.monotonic() - began, 3)
            tell(summary, as_json)
    if not summary.replies and not ending.asked:
        raise SourceError(f"{file}: nothing was recorded: {trouble}")
