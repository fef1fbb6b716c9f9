"""`rayscope down`: take the actors down that an `up` on a shared Ray left behind, or that another release left there."""

from __future__ import annotations

import logging
import os

import click

from cluster.cli.options import SettingsLoader
from cluster.cli.output import say
from cluster.core.errors import RayscopeError
from configs import paths


@click.command()
@click.pass_obj
def command(load: SettingsLoader) -> None:
    """Commit what is in flight, then end every rayscope actor on the Ray of `ray.address`.

    An `up` that ends in order does this itself; this is for one that could not, and for actors of another release.
    """
    settings = load().settings
    if not settings.ray.address:
        raise RayscopeError("no ray.address is set: a Ray that `up` started ends with it, so end that `up` (Ctrl-C or SIGTERM)")
    from actors import session

    logging.disable(logging.INFO)
    session.connect(settings.ray.address, settings.ray, paths.runtime_dir(os.environ))
    from actors import deploy  # it imports Ray, whose environment is set by now

    try:
        found = deploy.names()
        flushed = deploy.take_down()
    finally:
        session.leave()
    if not found:
        say("there was nothing to take down")
    elif flushed:
        say(f"everything is committed; ended: {', '.join(found)}")
    else:
        raise RayscopeError(f"ended {', '.join(found)}, but not everything in flight could be committed")
