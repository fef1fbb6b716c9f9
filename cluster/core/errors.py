"""Every error that rayscope raises on purpose.

RayscopeError
├── SettingsError          a setting is unknown or wrong
├── SourceError            a tracer, Docker or another source did not give a usable answer
│   ├── SourceAbsent       nothing is there: no such socket, or nobody listens
│   ├── SourceTimeout      it did not answer, or did not finish, in time
│   └── SourceMalformed    it answered something that is not its protocol (truncated, too large, not JSON)
├── WireError              a batch or an answer between the actors cannot be read
├── QueryError             a question about the data makes no sense
├── TracerError            the tracer cannot start or go on
├── ActorError             an actor cannot be used
│   ├── ActorUnavailable   it did not answer in time, or is being restarted: try again
│   └── VersionMismatch    it runs other code than ours
├── PublishError           the API server did not take what is published
│   ├── LeaseHeld          another publisher is at work: this one waits
│   └── Superseded         a newer aggregator publishes: this publisher must end
└── StoreError             the store cannot be opened or written
    ├── FencedError        a newer aggregator owns the store: this one must end
    ├── StoreBusy          another rayscope has it open
    └── StoreUnusable      corrupt, of an unknown schema, read-only or full

A message says what was wrong, where (file, field, URL, node) and what to do.
"""


class RayscopeError(Exception):
    """The root: whatever rayscope refuses, with a message for a person."""


class SettingsError(RayscopeError):
    """A setting is unknown or has a wrong value."""


class SourceError(RayscopeError):
    """A source did not give a usable answer; trying again may help."""


class SourceAbsent(SourceError):
    """Nothing is there: no such socket, or nobody listens on it."""


class SourceTimeout(SourceError):
    """The source did not answer, or did not finish, in time."""


class SourceMalformed(SourceError):
    """The source answered something that is not its protocol."""


class WireError(RayscopeError):
    """A message between the actors cannot be read."""


class QueryError(RayscopeError):
    """A question about the data makes no sense: an unknown field, or a value that it cannot have."""


class TracerError(RayscopeError):
    """The tracer cannot start or go on."""


class ActorError(RayscopeError):
    """An actor cannot be used."""


class ActorUnavailable(ActorError):
    """An actor did not answer in time, or is being restarted; trying again may help."""


class VersionMismatch(ActorError):
    """An actor runs other code than ours."""


class PublishError(RayscopeError):
    """The API server did not take what is published; trying again may help.

    `status` is the HTTP status, 0 where nobody answered; `retry_after` the seconds that the server asks to wait for.
    """

    def __init__(self, message: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class LeaseHeld(PublishError):
    """Another publisher is at work; it may end."""


class Superseded(PublishError):
    """A newer aggregator publishes: the one that sees this must end."""


class StoreError(RayscopeError):
    """The store cannot be opened, read or written."""


class FencedError(StoreError):
    """A newer aggregator owns the store: the one that sees this must end."""


class StoreBusy(StoreError):
    """Another rayscope has the store open."""


class StoreUnusable(StoreError):
    """The store is corrupt, of an unknown schema, read-only or full."""
