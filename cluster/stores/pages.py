"""The ConfigMaps of one kind as the API server has them: `transactions`, `transactions-1`, ...

Every write carries the page's resourceVersion, so one that was changed by anybody since it was last looked at is never overwritten
unseen. A page is created only right after the Lease was confirmed, by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cluster.core.errors import LeaseHeld, PublishError
from cluster.core.paging import EMPTY, Wanted, Written
from cluster.stores.api_server import ApiServer, Object
from cluster.stores.lease import Mark, number

PAGES, PUBLISHED, LEFT_OUT, FORMAT = "rayscope/pages", "rayscope/published", "rayscope/left-out", "rayscope/format"
FORMAT_VERSION = "1"
LABELS = {"app.kubernetes.io/name": "rayscope"}
PAGES_LIMIT = 256  # of one kind, whatever is set
TRIES = 5  # at a page that others change at the same time
UNTRACKED: list[Object] = [{}]  # no managedFields: they would repeat every key of the page (kubernetes.io, "Server-Side Apply")


@dataclass(slots=True)
class Page:
    """One ConfigMap. `version` is its resourceVersion, "" where there is none."""

    name: str
    version: str = ""
    mark: Mark = field(default_factory=Mark)
    written: Written = field(default_factory=Written)
    size: int = 0  # bytes that were last written


class Pages:
    """All ConfigMaps of one kind that there may be, and those beyond that are left from another setting."""

    def __init__(self, api: ApiServer, namespace: str, kind: str, most: int) -> None:
        self.kind = kind
        self.count = 0  # how many pages are in use; 0 not known
        self.pages = [Page(_name(kind, index)) for index in range(most)]
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"

    def look(self) -> bool:
        """Ask for the versions of all; whether somebody else changed one. Raises PublishError."""
        changed = [self._look(page) for page in self.pages]
        return any(changed)

    def look_at(self, index: int) -> None:
        """Ask for the version of one. Raises PublishError."""
        self._look(self.pages[index])

    def begin(self) -> None:
        """Look at all, and also for pages that are left from a time when more were allowed. Raises PublishError."""
        self.look()
        self.count = self.pages[0].written.pages
        while len(self.pages) < PAGES_LIMIT:
            page = Page(_name(self.kind, len(self.pages)))
            try:
                self._look(page)
            except PublishError as error:
                if error.status == 403:  # we may not touch it, so we did not write it
                    return
                raise
            if not page.version:
                return
            self.pages.append(page)

    def stamp(self, mark: Mark) -> None:
        """Write our mark into every page, creating those that are absent: whoever had looked at one before cannot write it any more.

        Raises LeaseHeld where one has a later mark, PublishError.
        """
        for page in self.pages:
            self._stamp(page, mark)

    def write(self, index: int, mark: Mark, wanted: Wanted, data: dict[str, str], pages: int, at: str, left_out: int) -> None:
        """Replace a page. Raises PublishError; with status 409 or 404 somebody else changed it: look, confirm the Lease, try again."""
        page = self.pages[index]
        described = {PAGES: str(pages), PUBLISHED: at, LEFT_OUT: str(left_out), FORMAT: FORMAT_VERSION}
        self._send("PUT" if page.version else "POST", page, mark, described, data)
        page.written, page.size = Written(wanted.digest, pages, page.written.tried), wanted.size

    def tried(self, index: int, at: float) -> None:
        """It is being written now."""
        page = self.pages[index]
        page.written = replace(page.written, tried=at, refused=False)

    def refused(self, index: int) -> None:
        """The API server does not take this page as it is."""
        page = self.pages[index]
        page.written = replace(page.written, refused=True)

    def _look(self, page: Page) -> bool:
        try:
            answer = self._api.request("GET", f"{self._path}/{page.name}", metadata_only=True)
        except PublishError as error:
            if error.status != 404:
                raise
            answer = {}
        metadata = answer.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        version = str(metadata.get("resourceVersion", ""))
        if version == page.version:
            return False
        annotations = metadata.get("annotations")
        pages = number(annotations.get(PAGES)) if isinstance(annotations, dict) else 0
        page.version, page.mark = version, Mark.of(annotations)
        page.written = replace(page.written, digest=b"", pages=pages) if version else Written()
        return True

    def _stamp(self, page: Page, mark: Mark) -> None:
        for _ in range(TRIES):
            if page.mark.term >= mark.term:
                raise LeaseHeld(f"{self._path}/{page.name}: {page.mark.publisher} took the Lease")
            try:
                if page.version:
                    self._send("PATCH", page, mark, {}, None)
                else:
                    self._send("POST", page, mark, {PAGES: "0", FORMAT: FORMAT_VERSION}, {})
                    page.written = Written(EMPTY.digest)
                return
            except PublishError as error:
                if error.status not in (404, 409):
                    raise
                self._look(page)
        raise PublishError(f"{self._path}/{page.name}: somebody else changes it all the time")

    def _send(self, method: str, page: Page, mark: Mark, described: dict[str, str], data: dict[str, str] | None) -> None:
        metadata: dict[str, Any] = {"name": page.name, "labels": LABELS, "annotations": mark.annotations() | described}
        if page.version:
            metadata |= {"resourceVersion": page.version, "managedFields": UNTRACKED}
        body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        if data is not None:
            body["data"] = data
        path = self._path if method == "POST" else f"{self._path}/{page.name}"
        answer = self._api.request(method, path, body, metadata_only=True)
        version = answer["metadata"].get("resourceVersion") if isinstance(answer.get("metadata"), dict) else None
        if not version:
            raise PublishError(f"{path}: the API server's answer has no resourceVersion")
        page.version, page.mark = str(version), mark


def _name(kind: str, index: int) -> str:
    return f"{kind}-{index}" if index else kind
