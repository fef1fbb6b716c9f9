"""A driver on the head: it brings the actors up, and then answers questions, each a line of JSON, for tests outside of the namespaces."""

from __future__ import annotations

import json
import sys
from io import FileIO
from pathlib import Path
from typing import Any

import ray
from ray._private import state
from ray.util import list_named_actors

from actors import deploy, session
from actors.calls import Peer
from actors.options import NODE_LABEL, QUERY
from cluster.cli.output import data_alone
from cluster.core.errors import RayscopeError
from configs.settings import Settings


def nodes() -> list[tuple[str, str, bool]]:
    """Label, id and whether it lives, of every Ray node that was there."""
    return [(node["Labels"].get(NODE_LABEL, ""), node["NodeID"], node["Alive"]) for node in ray.nodes()]


def waiting() -> list[str]:
    """The names of actors that Ray has not placed yet."""
    return [actor["Name"] for actor in state.actors().values() if actor["State"] not in ("ALIVE", "DEAD")]


def ask(name: str, method: str) -> Any:
    """What an actor says."""
    return Peer(name).call(method, group=QUERY)


QUESTIONS = {"nodes": nodes, "names": list_named_actors, "ask": ask, "waiting": waiting, "take_down": deploy.take_down}


def write(data: FileIO, answer: dict[str, Any]) -> None:
    """One line."""
    data.write(json.dumps(answer, default=str).encode() + b"\n")


def main(address: str, base: str, settings: str) -> None:
    """Deploy, say so, and answer until the input ends."""
    data = data_alone()  # Ray prints to stdout what it thinks of nodes that died
    loaded = Settings.model_validate_json(settings)
    session.connect(address, loaded.ray, Path(base))
    deploy.deploy(f"{base}/here/rayscope.db", f"{base}/here/tracer.sock", loaded)
    write(data, {"is": "deployed"})
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        try:
            answer = {"is": QUESTIONS[question](*arguments)}
        except RayscopeError as error:
            answer = {"error": str(error)}
        write(data, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
