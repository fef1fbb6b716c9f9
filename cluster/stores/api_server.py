"""Single requests to the API server, for the publisher: each bounded in time and size, each tried once.

Of the Kubernetes client only the connections, TLS and credentials are used. Its urllib3 would sleep and try again by itself on 413, 429 and
503 with Retry-After; here the caller alone decides. Answers are asked for without the object (as=PartialObjectMetadata): a page of 1 MiB is
never sent back.
"""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec

from cluster.core.errors import PublishError

METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
ANSWER_LIMIT = 4_000_000  # bytes: more than any object's metadata
MESSAGE_LIMIT = 300  # characters of a refusal that are shown
RETRY_AFTER_LIMIT = 300.0  # s
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
Object = dict[str, Any]


class ApiServer:
    """The API server of a kubeconfig, or of the pod that we run in."""

    def __init__(self, kubeconfig: str | None = None, timeout: float = 10.0, service_account: str = SERVICE_ACCOUNT) -> None:
        """`timeout` in seconds, for one whole answer; the service account is used without a kubeconfig. Nothing is read or asked yet."""
        self._kubeconfig = kubeconfig
        self._service_account = service_account
        self._timeout = timeout
        self._client: Any = None

    def request(self, method: str, path: str, body: Object | None = None, *, metadata_only: bool = False) -> Object:
        """One request, and the decoded answer. Raises PublishError with the status that the server gave, 0 where it gave none."""
        from urllib3.exceptions import HTTPError

        sent = msgspec.json.encode(body) if body is not None else None
        try:
            response = self._send(method, path, sent, METADATA_ONLY if metadata_only else "application/json")
            try:
                content = self._read(response)
            finally:
                response.close() if response.status >= 400 else response.release_conn()
        except (HTTPError, OSError) as error:
            self.close()  # the credentials and the addresses may be others now
            raise PublishError(f"{method} {path}: the API server does not answer: {type(error).__name__}: {error}") from error
        if response.status == 401:
            self.close()
        if response.status >= 300:
            raise PublishError(f"{method} {path}: {response.status} {_message(content)}", response.status, _retry_after(response))
        return _decoded(content, f"{method} {path}")

    def close(self) -> None:
        """Give connections back; the next request makes them anew, with fresh credentials."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _send(self, method: str, path: str, body: bytes | None, accept: str) -> Any:
        from urllib3 import Timeout

        client = self._client = self._client or connect(self._kubeconfig, self._service_account)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {**client.default_headers, "Accept": accept, "Content-Type": kind, "User-Agent": "rayscope"}
        client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        if not all(str(value).isascii() and str(value).isprintable() for value in headers.values()):
            raise PublishError("the API server's token holds characters that a token cannot have")  # http.client's error would show it
        return client.rest_client.pool_manager.request(
            method,
            client.configuration.host + path,
            body=body,
            headers=headers,
            timeout=Timeout(connect=self._timeout, read=self._timeout),
            retries=False,
            preload_content=False,
        )

    def _read(self, response: Any) -> bytes:
        deadline, content = time.monotonic() + self._timeout, bytearray()
        for piece in response.stream(65_536):
            content += piece
            if len(content) > ANSWER_LIMIT:
                raise OSError(f"an answer of more than {ANSWER_LIMIT} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"an answer that is not whole after {self._timeout:g} s")
        return bytes(content)


def connect(kubeconfig: str | None, service_account: str) -> Any:
    """A kubernetes.client.ApiClient of a kubeconfig, or of a pod's service account. Raises PublishError where there is neither."""
    from kubernetes import client, config
    from kubernetes.config.incluster_config import InClusterConfigLoader

    configuration = client.Configuration()
    configuration.retries = False
    try:
        if kubeconfig:
            config.load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
        else:
            InClusterConfigLoader(f"{service_account}/token", f"{service_account}/ca.crt").load_and_set(configuration)
    except Exception as error:  # a file is anything, and the client raises whatever comes of it
        where = f"kubernetes.kubeconfig {kubeconfig}" if kubeconfig else f"the service account in {service_account}"
        raise PublishError(f"{where} cannot be used: {type(error).__name__}: {error}") from error
    return client.ApiClient(configuration)


def _decoded(content: bytes, what: str) -> Object:
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PublishError(f"{what}: the API server's answer is no JSON: {error}") from error
    if not isinstance(answer, dict):
        raise PublishError(f"{what}: the API server's answer is no object")
    return answer


def _message(content: bytes) -> str:
    """What a Status says, on one line."""
    try:
        text = str(msgspec.json.decode(content)["message"])
    except (msgspec.DecodeError, RecursionError, TypeError, KeyError):
        text = content[: 4 * MESSAGE_LIMIT].decode(errors="replace")
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def _retry_after(response: Any) -> float:
    """Seconds; the API server sends whole ones, never a date."""
    try:
        seconds = float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
    return min(max(0.0, seconds), RETRY_AFTER_LIMIT) if math.isfinite(seconds) else 0.0
