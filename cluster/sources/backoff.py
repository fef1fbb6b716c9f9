"""How long to wait before trying again: doubled at each failure, up to a limit, never nothing."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Seconds to wait after each failure in a row: `first`, then twice as long each time, up to `limit` (or `first`, where that is more).

    `jitter` gives a number from 0 to 1; each wait is shortened by up to half by it, so that many who failed together do not come back
    together. Without it every wait is exact: the randomness is the caller's, such as `random.random`.
    """

    def __init__(self, first: float = 1.0, limit: float = 30.0, jitter: Callable[[], float] | None = None) -> None:
        if not 0 < first < float("inf"):
            raise ValueError(f"first: {first} s; a wait must be longer than nothing and end")
        self._first = first
        self._limit = max(first, limit)
        self._jitter = jitter
        self._next = first

    def failed(self) -> float:
        """Count one more failure; the seconds to wait now, at least half of `first`."""
        wait, self._next = self._next, min(self._next * 2, self._limit)
        share = min(1.0, max(0.0, self._jitter())) if self._jitter else 0.0
        return wait * (1 - share / 2)

    def reset(self) -> None:
        """It worked: the next failure waits `first` again."""
        self._next = self._first
