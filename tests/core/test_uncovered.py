"""The intervals that a tracer names itself: when none ran on its socket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.receiver import Scene
from tests.core.replies import EXAMPLE, ours

WHY = "the tracer was started again: what closed meanwhile is not known"


def uncovered(scene: Scene) -> list[list[Any]]:
    intervals: list[list[Any]] = scene.collector.status()["uncovered"]
    return intervals


def test_an_interval_that_the_tracer_names_is_told_once() -> None:
    scene = Scene()
    scene.poll(ours(), instance="i", uncovered=[])
    for _ in range(2):
        scene.poll(ours(), instance="i", uncovered=[[1_001.5, 1_001.75]])
    assert uncovered(scene) == [[1_001.5, 1_001.75, WHY]]
    scene.poll(ours(), instance="i", uncovered=[[1_001.5, 1_001.75], [1_003.25, 1_003.5]])
    assert uncovered(scene) == [[1_001.5, 1_001.75, WHY], [1_003.25, 1_003.5, WHY]]


def test_polls_that_fail_while_the_tracer_is_replaced_cost_only_what_it_names() -> None:
    scene = Scene()
    scene.poll(ours(), instance="i")
    scene.collector.on_missed("nobody listens", 1_001.5)
    scene.poll(ours(), instance="i", uncovered=[[1_001.25, 1_001.75]])
    assert uncovered(scene) == [[1_001.25, 1_001.75, WHY]]
    assert scene.collector.status()["uncovered_since"] is None
    scene.collector.on_missed("timed out", 1_002.5)  # by itself it is an interval, as ever
    scene.poll(ours(), instance="i", uncovered=[[1_001.25, 1_001.75]])
    assert uncovered(scene)[1:] == [[1_002.0, 1_003.0, "timed out"]]


def test_another_instance_leaves_all_since_the_last_good_poll_uncovered_whatever_it_names() -> None:
    scene = Scene()
    scene.poll(ours(), instance="i")
    scene.poll(ours(), instance="j", uncovered=[[1_001.25, 1_001.75]])
    ((since, until, reason),) = uncovered(scene)
    assert (since, until) == (1_001.0, 1_002.0)
    assert "another tracer instance" in reason


@pytest.mark.parametrize(
    "said", [None, 5, "x", {}, [5], [[1]], [[1, 2, 3]], [["a", "b"]], [[5.0, 4.0]], [[-1.0, 4.0]], [[1.0, 1e300]], [[None, 1]]]
)
def test_what_is_no_interval_is_ignored_and_costs_no_row(said: Any) -> None:
    scene = Scene()
    scene.poll(EXAMPLE, uncovered=said)
    assert not uncovered(scene)
    assert scene.only["sent"] == EXAMPLE["monotonic_sent_bytes"]


def test_intervals_are_bounded() -> None:
    scene = Scene()
    scene.poll(EXAMPLE, uncovered=[[float(number), number + 0.5] for number in range(10_000)])
    assert len(uncovered(scene)) == 64
    assert uncovered(scene)[-1][0] == 9_999.0
