"""The ways to call an actor: by name, with a timeout on every wait, with Ray's many failures turned into ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from cluster.core.errors import ActorError, ActorUnavailable, RayscopeError


def find(name: str) -> Any:
    """The handle of a named actor in this job's namespace. Raises ActorUnavailable where there is none."""
    try:
        return ray.get_actor(name)
    except ValueError as error:
        raise ActorUnavailable(f"actor {name}: not there (yet)") from error
    except RayError as error:
        raise ActorUnavailable(f"actor {name}: {type(error).__name__}") from error


class Line:
    """A way to a named actor with at most one call outstanding, for one thread.

    A call that timed out is still under way: the next one waits for it, rather than to fill the actor's queue, whose memory is the
    caller's. So whoever uses a line asks the same thing until it is answered. The actor may be restarted, replaced or absent: it is looked
    up again after each failure.
    """

    def __init__(self, name: str, timeout: float = 10.0) -> None:
        self.name = name
        self.timeout = timeout
        self._handle: Any = None
        self._outstanding: Any = None

    def ask(self, method: str, *arguments: Any, group: str | None = None, timeout: float | None = None) -> Any:
        """The method's result. Raises the method's own RayscopeError, ActorUnavailable (outcome unknown: ask again), or ActorError."""
        self.begin(method, *arguments, group=group)
        return self.finish(timeout)

    def begin(self, method: str, *arguments: Any, group: str | None = None) -> None:
        """Send the call, unless one is under way. Raises ActorUnavailable."""
        if self._outstanding is not None:
            return
        if self._handle is None:
            self._handle = find(self.name)
        remote = getattr(self._handle, method)
        if group is not None:
            remote = remote.options(concurrency_group=group)
        try:
            self._outstanding = remote.remote(*arguments)
        except RayError as error:
            self.forget()
            raise ActorUnavailable(f"actor {self.name}: {method}: {type(error).__name__}") from error

    def finish(self, timeout: float | None = None) -> Any:
        """The result of the call that is under way, as `ask`."""
        seconds = self.timeout if timeout is None else timeout
        try:
            result = ray.get(self._outstanding, timeout=seconds)
        except GetTimeoutError as error:
            raise ActorUnavailable(f"actor {self.name}: no answer within {seconds:.3g} s") from error
        except RayTaskError as error:
            self._outstanding = None
            if isinstance(error.cause, RayscopeError):
                raise error.cause from None
            raise ActorError(f"actor {self.name}: {error.cause!r}") from error
        except RayActorError as error:
            self.forget()
            raise ActorUnavailable(f"actor {self.name}: {type(error).__name__}") from error
        except RayError as error:
            self.forget()
            raise ActorError(f"actor {self.name}: {type(error).__name__}: {error}") from error
        self._outstanding = None
        return result

    def forget(self) -> None:
        """Look the actor up again, and wait for nothing of the old one."""
        self._handle = self._outstanding = None


class Peer:
    """A named actor for callers that ask now and then, from any thread: each call is a line of its own, and an unanswered one is let go."""

    def __init__(self, name: str, timeout: float = 10.0) -> None:
        self.name = name
        self.timeout = timeout

    def call(self, method: str, *arguments: Any, group: str | None = None, timeout: float | None = None) -> Any:
        """As `Line.ask`."""
        return Line(self.name, self.timeout).ask(method, *arguments, group=group, timeout=timeout)


def ask_all(lines: Mapping[str, Line], method: str, *arguments: Any, group: str | None = None, timeout: float = 10.0) -> dict[str, Any]:
    """Ask many at once and wait `timeout` seconds in all: the result of each, or the RayscopeError instead of it."""
    answers: dict[str, Any] = {}
    for key, line in lines.items():
        try:
            line.begin(method, *arguments, group=group)
        except RayscopeError as error:
            answers[key] = error
    deadline = time.monotonic() + timeout
    for key, line in lines.items():
        if key not in answers:
            try:
                answers[key] = line.finish(max(0.0, deadline - time.monotonic()))
            except RayscopeError as error:
                answers[key] = error
    return answers
