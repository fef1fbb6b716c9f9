"""Waits between tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.sources.backoff import Backoff


def test_doubles_up_to_the_limit_and_begins_anew() -> None:
    backoff = Backoff(1.0, 10.0)
    assert [backoff.failed() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.failed() == 1


def test_a_first_wait_beyond_the_limit_stands() -> None:
    backoff = Backoff(60.0, 30.0)
    assert [backoff.failed() for _ in range(3)] == [60, 60, 60]


def test_jitter_is_the_callers() -> None:
    shares = iter([0.0, 1.0, 0.5])
    backoff = Backoff(1.0, 30.0, lambda: next(shares))
    assert [backoff.failed() for _ in range(3)] == [1.0, 1.0, 3.0]


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.lists(st.floats(), min_size=1, max_size=20))
def test_is_never_a_hot_loop(first: float, limit: float, shares: list[float]) -> None:
    given_shares = iter(shares)
    backoff = Backoff(first, limit, lambda: next(given_shares))
    for _ in shares:
        assert first / 2 <= backoff.failed() <= max(first, limit)


@pytest.mark.parametrize("first", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_no_wait(first: float) -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        Backoff(first)
