"""Who lists a node's pods: its kubelet, or the API server where the kubelet may not be asked; and what to do when they refuse."""

from __future__ import annotations

from time import monotonic
from typing import Protocol
from urllib.parse import quote, urlencode

from cluster.core.errors import SourceError, SourceMalformed
from cluster.sources.https import Server, get
from cluster.sources.pods import Found, Page, decode_pods
from configs.pod import api_server, host_ip, in_pod
from configs.settings import KubeletSettings

PODS_LIMIT = 2_000  # of one node; Kubernetes is made for 110, the largest services allow 737
PAGE = 250  # pods asked for at once
PAGES_LIMIT = 4 * PODS_LIMIT // PAGE
RETRIED = "asked again at the next read"


class PodSource(Protocol):
    """Who can list the node's pods."""

    def pods(self) -> Page:
        """All of them. Raises SourceError."""


class Kubelet:
    """GET /pods of the node's own kubelet."""

    def __init__(self, settings: KubeletSettings) -> None:
        self._settings = settings

    def pods(self) -> Page:
        """All pods of the node, those from its files and those that ended included. Raises SourceError."""
        settings = self._settings
        server = kubelet_server(settings)
        try:
            return decode_pods(get(server, "/pods", settings.timeout, settings.reply_limit), PODS_LIMIT)
        except SourceMalformed as error:
            raise _at(server, error) from error


class ApiServer:
    """The node's pods by the API server: for kubelets that may not be asked."""

    def __init__(self, settings: KubeletSettings, node: str, page: int = PAGE, cached: bool = True) -> None:
        self._settings = settings
        self._node = node
        self._page = page
        self._cached = cached

    def pods(self) -> Page:
        """All pods that are bound to the node. Raises SourceError."""
        end = monotonic() + self._settings.timeout
        server = api_server_of(self._settings)
        found: list[Found] = []
        refused, more = 0, ""
        for _ in range(PAGES_LIMIT):
            page = self._read(server, more, max(0.001, end - monotonic()), PODS_LIMIT - len(found))
            found += page.found
            refused += page.refused
            more = page.more
            if not more or page.left_out or len(found) >= PODS_LIMIT:
                return Page(tuple(found), refused, max(page.left_out, int(bool(more))), "")
        raise SourceMalformed(f"{server.origin}/api/v1/pods: a list of more than {PAGES_LIMIT} pages of {self._page} pods of one node")

    def _read(self, server: Server, more: str, timeout: float, limit: int) -> Page:
        try:
            return decode_pods(get(server, self._target(more), timeout, self._settings.reply_limit), limit)
        except SourceMalformed as error:
            raise _at(server, error) from error

    def _target(self, more: str) -> str:
        """The first page may come from the API server's cache (`resourceVersion=0`), which then gives all at once, and spares etcd a look
        at every pod of the cluster; the API refuses that together with `continue`."""
        query = {"fieldSelector": f"spec.nodeName={self._node}", "limit": str(self._page)}
        if more:
            query["continue"] = more
        elif self._cached:
            query["resourceVersion"] = "0"
        return f"/api/v1/pods?{urlencode(query, quote_via=quote)}"


def kubelet_server(settings: KubeletSettings) -> Server:
    """The kubelet that the settings mean. Raises SourceError where its address is not known."""
    host = settings.host or host_ip()
    if not host:
        raise SourceError("the kubelet's address is not known: set kubelet.host, or HOST_IP by the downward API (status.hostIP)")
    ca_file, token_file = settings.ca_file or f"{settings.service_account}/ca.crt", f"{settings.service_account}/token"
    return Server(
        host,
        settings.port,
        ca_file,
        token_file,
        settings.insecure_tls,
        absent="is the kubelet there (kubelet.host, kubelet.port), and may this pod reach its node? Else set kubelet.mode: apiserver",
        unknown_ca="kubeadm and kind sign kubelets outside the cluster's CA: set kubelet.ca_file to the certificates that sign them, let "
        "kubelets ask the cluster for theirs (serverTLSBootstrap), or set kubelet.insecure_tls: true by hand",
        other_name="set kubelet.host to a name or an address that is in it, or kubelet.insecure_tls: true by hand",
        refused={
            401: "the kubelet does not accept the token: is it this cluster's (kubelet.service_account), and does the kubelet ask the API "
            "server about tokens (authentication.webhook)?",
            403: "the service account needs the verb get on nodes/pods, which kubelets know from Kubernetes 1.33 on; for older ones set "
            "kubelet.mode: apiserver",
            404: "no kubelet's answer: see kubelet.host and kubelet.port",
            429: f"the kubelet is asked too often; {RETRIED}",
        },
    )


def api_server_of(settings: KubeletSettings) -> Server:
    """The API server that a pod is told. Raises SourceError outside of pods."""
    place = api_server()
    if place is None:
        raise SourceError(
            "the API server is not known: KUBERNETES_SERVICE_HOST is not set, as it is in every pod; run in a pod, or set kubelet.mode"
        )
    account = settings.service_account
    return Server(
        *place,
        f"{account}/ca.crt",
        f"{account}/token",
        absent="is the API server up, and may this pod reach it?",
        unknown_ca=f"{account}/ca.crt is of another cluster",
        other_name="KUBERNETES_SERVICE_HOST is not in it; is it this cluster's?",
        refused={
            401: "the API server does not accept the token: is it this cluster's (kubelet.service_account)?",
            403: "the service account needs the verb list on pods: apply the overlay for kubelet.mode: apiserver",
            410: f"the list changed while it was read; {RETRIED}",
            429: f"the API server is asked too often; {RETRIED}",
        },
    )


def _at(server: Server, error: SourceMalformed) -> SourceMalformed:
    text = str(error)
    return error if text.startswith(server.origin) else SourceMalformed(f"{server.origin}: {text}; is this the right server and port?")


def pod_source(settings: KubeletSettings, node: str) -> PodSource | None:
    """Who is to be asked for the pods of that node; None where nobody is."""
    match who(settings):
        case "kubelet":
            return Kubelet(settings)
        case "apiserver":
            return ApiServer(settings, node)
    return None


def who(settings: KubeletSettings) -> str:
    """`kubelet.mode`, where auto is decided: kubelet, apiserver or off."""
    return settings.mode if settings.mode != "auto" else "kubelet" if in_pod(settings) else "off"
