"""A recorded event log replays to the same state, byte for byte."""

from __future__ import annotations

import pickle
import random

import pytest

from cluster.core.aggregate import Aggregate
from cluster.core.block import Block
from cluster.core.commands import Command
from tests.core.test_exactness import Exactness, step


def packed(aggregate: Aggregate) -> bytes:
    """All that an aggregate holds, in a fixed order."""
    state = aggregate.state
    return pickle.dumps(
        [
            state.fence,
            [
                (node.state(), node.durable, [block_bytes(block) for block, _ in node.blocks], len(node.parts))
                for node in state.nodes.values()
            ],
            state.addresses.values,
            state.texts.values,
            state.metadata.records,
            [state.edges.edge(number) for number in range(len(state.edges.keys))],
            sorted(state.counters.items()),
            state.next_uid,
            state.commits,
            state.in_flight,
        ]
    )


def block_bytes(block: Block) -> list[bytes]:
    slots = block.used()
    return [column.tobytes() for column in block.take(slots).values()] + [block.marks[: block.size].tobytes()]


def outcome(command: Command) -> str:
    return repr(command)


@pytest.mark.parametrize("seed", range(5))
def test_replay(seed: int) -> None:
    draw = random.Random(seed)
    machine = Exactness()
    machine.begin(held=draw.choice([4, 1_000]), collected=draw.choice([4, 1_000]), externals=2)
    for _ in range(200):
        step(machine, draw)
    rig = machine.rig
    again = Aggregate(rig.checkpoint, rig.limits)
    commands = [outcome(command) for event in rig.events for command in again.handle(event)]
    assert packed(again) == packed(rig.aggregate)
    third = Aggregate(rig.checkpoint, rig.limits)
    assert [outcome(command) for event in rig.events for command in third.handle(event)] == commands
