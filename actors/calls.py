"""One way to call an actor: by name, with a timeout, with Ray's many failures turned into ours."""

from __future__ import annotations

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


def call(handle: Any, method: str, *arguments: Any, group: str | None = None, timeout: float = 10.0) -> Any:
    """The result of one method. Raises the method's own RayscopeError, ActorUnavailable (outcome unknown), or ActorError."""
    remote = getattr(handle, method)
    if group is not None:
        remote = remote.options(concurrency_group=group)
    try:
        return ray.get(remote.remote(*arguments), timeout=timeout)
    except GetTimeoutError as error:
        raise ActorUnavailable(f"{method}: no answer within {timeout:g} s") from error
    except RayTaskError as error:
        if isinstance(error.cause, RayscopeError):
            raise error.cause from None
        raise ActorError(f"{method}: {error.cause!r}") from error
    except RayActorError as error:
        raise ActorUnavailable(f"{method}: {type(error).__name__}") from error
    except RayError as error:
        raise ActorError(f"{method}: {type(error).__name__}: {error}") from error


class Peer:
    """A named actor that may be restarted, replaced or absent: looked up again after each failure."""

    def __init__(self, name: str, timeout: float = 10.0) -> None:
        self.name = name
        self.timeout = timeout
        self._handle: Any = None

    def call(self, method: str, *arguments: Any, group: str | None = None, timeout: float | None = None) -> Any:
        """As `call` above. Raises ActorUnavailable, ActorError, or what the method raises of ours."""
        if self._handle is None:
            self._handle = find(self.name)
        try:
            return call(self._handle, method, *arguments, group=group, timeout=timeout or self.timeout)
        except ActorUnavailable as error:
            self._handle = None
            raise ActorUnavailable(f"actor {self.name}: {error}") from error
