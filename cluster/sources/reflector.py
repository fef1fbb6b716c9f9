"""One resource of the API server, kept equal to what the server has: list, then watch, for ever. Pure: no I/O, no clock, no random.

The protocol (kubernetes.io, "Kubernetes API Concepts"): a list comes in pages and says its resourceVersion; a watch from that version
tells every change after it, and now and then in a BOOKMARK how far it is. So a watch that was cut goes on where it was, and nothing is
missed. When the server has forgotten that version, it answers 410 Gone: in a list as HTTP's status, in a watch as an ERROR event of an
answer with status 200. Then everything is listed again, and what the new list lacks is gone.

A watch that is silent, without even a bookmark, proves nothing: the server may be another one that has never had our version (an etcd that
was put back). That, too, is answered by a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from cluster.core.errors import SourceMalformed

PAGE = 500  # objects of one page
OBJECTS_LIMIT = 100_000  # held of one resource; more are refused and counted
EXAMPLE_LIMIT = 200  # characters of an error that is kept
GONE = 410
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
METADATA_ONLY = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1"

T = TypeVar("T")


class Meta(msgspec.Struct, gc=False):
    """What names an object."""

    name: str
    namespace: str = ""
    resourceVersion: str = ""  # the API's name

    @property
    def key(self) -> str:
        """NAMESPACE/NAME, or NAME."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Named(msgspec.Struct, gc=False):
    """Any object."""

    metadata: Meta


class Mark(msgspec.Struct, gc=False):
    """What a BOOKMARK's object has."""

    resourceVersion: str


class Bookmark(msgspec.Struct, gc=False):
    """The object of a BOOKMARK."""

    metadata: Mark


class ListMeta(msgspec.Struct, gc=False):
    """How far a list is."""

    resourceVersion: str
    more: str | None = msgspec.field(default=None, name="continue")


class Page(msgspec.Struct, gc=False):
    """One page of a list."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class Event(msgspec.Struct, gc=False):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Failure(msgspec.Struct, gc=False):
    """The object of an ERROR event, a Status."""

    code: int = 0
    message: str = ""


_named = msgspec.json.Decoder(Named)
_bookmark = msgspec.json.Decoder(Bookmark)
_page = msgspec.json.Decoder(Page)
_event = msgspec.json.Decoder(Event)
_failure = msgspec.json.Decoder(Failure)


@dataclass(frozen=True)
class Resource(Generic[T]):
    """A kind of object to keep: where it is, and what is kept of each."""

    name: str  # as RBAC names it: "services"
    group: str  # "" is the core group
    path: str
    slim: Callable[[msgspec.Raw], T]  # raises msgspec.ValidationError, or ValueError, for an object that cannot be
    metadata_only: bool = False
    page: int = PAGE

    def accept(self, *, listing: bool) -> str:
        """The media type to ask for."""
        return METADATA_ONLY.format(list="List" if listing else "") if self.metadata_only else "application/json"

    @property
    def rule(self) -> str:
        """The RBAC rule that lets us list and watch it."""
        return f'apiGroups: ["{self.group}"], resources: ["{self.name}"], verbs: ["list", "watch"]'


class WatchError(Exception):
    """An ERROR event; the watch has ended. `code` is that of HTTP."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Reflector(Generic[T]):
    """The objects of one resource, by NAMESPACE/NAME, and where to go on.

    `listing` says what is to be asked next, `query` how. Hand each page to `on_page`, each line of a watch to `on_line`. `changed` gathers
    the keys whose object came, changed or went, for who takes them.
    """

    resource: Resource[T]
    objects: dict[str, T] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    version: str = ""  # the server's resourceVersion that `objects` are of; "" before the first list
    listing: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    refused: str = ""  # the last object that was refused, and why
    _more: str = ""
    _listed: dict[str, T] = field(default_factory=dict)

    def query(self, seconds: int) -> dict[str, str]:
        """The parameters of the next request; `seconds`: how long a watch is to last."""
        if not self.listing:
            return {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self.version, "timeoutSeconds": str(seconds)}
        return {"limit": str(self.resource.page), **({"continue": self._more} if self._more else {})}

    def list_again(self, reason: str) -> None:
        """From the first page, whatever was under way."""
        self.counts["relists"] += bool(self.version)
        self.counts[reason] += 1
        self.listing, self._more, self._listed = True, "", {}

    # A list

    def on_page(self, body: bytes) -> None:
        """One page. After the last, what it lacks is gone. Raises SourceMalformed."""
        page = decoded(_page, body, f"list of {self.resource.name}")
        for raw in page.items or ():
            named = self._name(raw)
            if named is not None:
                self._keep(self._listed, named.key, raw)
        self._more = page.metadata.more or ""
        if not self._more:
            self._replace(page.metadata.resourceVersion)

    def _replace(self, version: str) -> None:
        if not version:
            raise SourceMalformed(f"list of {self.resource.name}: it has no resourceVersion to watch from")
        before, after = self.objects, self._listed
        self.changed.update(key for key, slim in after.items() if before.get(key) != slim)
        self.changed.update(before.keys() - after.keys())
        self.objects, self.version = after, version
        self.listing, self._listed = False, {}
        self.counts["lists"] += 1

    # A watch

    def on_line(self, line: bytes) -> None:
        """One event. Raises WatchError for an ERROR event, SourceMalformed for a line that is none: the watch is to be begun again."""
        event = decoded(_event, line, f"watch of {self.resource.name}")
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                self._on_change(event)
            case "BOOKMARK":
                self._advance(decoded(_bookmark, event.object, f"bookmark of {self.resource.name}").metadata.resourceVersion)
                self.counts["bookmarks"] += 1
            case "ERROR":
                failure = decoded(_failure, event.object, f"error of a watch of {self.resource.name}")
                raise WatchError(failure.code, failure.message[:EXAMPLE_LIMIT])
            case _:
                self.counts["unknown_events"] += 1

    def _on_change(self, event: Event) -> None:
        self.counts["events"] += 1
        named = self._name(event.object)
        if named is None:
            return
        if event.type == "DELETED":
            self.objects.pop(named.key, None)
            self.changed.add(named.key)
        elif self._keep(self.objects, named.key, event.object):
            self.changed.add(named.key)
        self._advance(named.resourceVersion)

    def _advance(self, version: str) -> None:
        if version:
            self.version = version

    # One object

    def _name(self, raw: msgspec.Raw) -> Meta | None:
        try:
            return _named.decode(raw).metadata
        except UNREADABLE as error:
            self._refuse("an object without a name", error)
            return None

    def _keep(self, objects: dict[str, T], key: str, raw: msgspec.Raw) -> bool:
        """Put it there; one that cannot be read takes its old self with it, which is not true any more. Whether anything changed."""
        known = objects.get(key)
        if known is None and len(objects) >= OBJECTS_LIMIT:
            self._refuse(key, ValueError(f"more than {OBJECTS_LIMIT:,} objects"))
            return False
        try:
            slim = self.resource.slim(raw)
        except (*UNREADABLE, ValueError) as error:
            self._refuse(key, error)
            return objects.pop(key, None) is not None
        objects[key] = slim
        return slim != known

    def _refuse(self, what: str, error: Exception) -> None:
        self.counts["refused"] += 1
        self.refused = f"{self.resource.name} {what}: {error}"[:EXAMPLE_LIMIT]


def decoded(decoder: msgspec.json.Decoder[Any], text: bytes | msgspec.Raw, what: str) -> Any:
    """Raises SourceMalformed."""
    try:
        return decoder.decode(text)
    except UNREADABLE as error:
        raise SourceMalformed(f"{what}: {error}") from error
