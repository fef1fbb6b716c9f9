"""What every benchmark needs: a clock, a median and the one line of JSON that it ends with."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def seconds(work: Callable[[], object]) -> float:
    """How long one call of `work` takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(values: Sequence[float]) -> float:
    """The middle one; of an even number, the mean of the two in the middle."""
    return statistics.median(values)


def in_turn(rounds: int, **works: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each work in each round, the works taking turns, so that a slow spell of the machine hits all of them."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work))
    return taken


def report(name: str, ratios: Mapping[str, float]) -> None:
    """Print the last line of a benchmark: its name and its ratios, as one line of JSON."""
    print(json.dumps({"benchmark": name, "ratios": {key: float(f"{value:.4g}") for key, value in ratios.items()}}), flush=True)
