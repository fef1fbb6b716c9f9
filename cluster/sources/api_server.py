"""The Kubernetes API server: where it is, who we are, and one GET at a time.

Where and who come from the Kubernetes client: a kubeconfig, or the pod's service account. Its typed calls and its own watch are not used:
a large list as typed models takes many times the memory of its JSON, and its watch hides what went wrong.

Tokens rotate. The client reads a pod's token again once a minute, but a kubeconfig's `tokenFile` never, nor an `exec` plugin that names no
expiry (kubernetes 37, config/kube_config.py). So whoever is answered 401 calls `renew`, which reads everything again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.config.kube_config import load_kube_config
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeout

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
CHUNK = 65_536  # bytes read at a time
REASON_LIMIT = 16_384  # bytes of an error's body that are read
TEXT_LIMIT = 500  # characters of an error's message that are kept
CONNECTIONS = 16  # kept open at most; a watch holds one
ONCE: dict[str, Any] = {"retries": False, "redirect": False}  # who asks decides what comes next
RETRY_AFTER_LIMIT = 120.0  # s: a server may ask for more, and is asked again anyway


class ApiError(SourceError):
    """The API server answered with an error. `status` is HTTP's; `retry_after` seconds, 0.0 where it did not say."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Login:
    """A configuration with the connections that were opened by it."""

    configuration: Configuration
    pool: urllib3.PoolManager


class ApiServer:
    """Connections to one API server, for several threads. Nothing is asked, nor any file read, before the first `get`."""

    def __init__(self, kubeconfig: str | None = None, timeout: float = 10.0, service_account: str = SERVICE_ACCOUNT) -> None:
        self.timeout = timeout
        self._kubeconfig = kubeconfig
        self._service_account = service_account
        self._login: Login | None = None
        self._lock = threading.Lock()
        self.generation = 0  # of the credentials

    def __repr__(self) -> str:
        return f"ApiServer({self._kubeconfig or self._service_account})"

    def get(self, path: str, query: Mapping[str, str], accept: str = "application/json", silence: float = 0.0) -> Stream:
        """The answer to a GET, unread. It begins within `timeout`; `silence` is how many seconds it may pause for then, by default as many.

        Raises ApiError for an answer that is none, SourceTimeout, SourceAbsent, SourceMalformed.
        """
        login = self._entered()
        timeout = urllib3.Timeout(connect=self.timeout, read=self.timeout)
        url = f"{login.configuration.host}{path}?{urlencode(query)}"
        try:
            headers = {"Accept": accept, "User-Agent": "rayscope", **_credentials(login.configuration)}
            response = login.pool.request(
                "GET", url, headers=headers, timeout=timeout, retries=False, redirect=False, preload_content=False
            )
        except (HTTPError, OSError, ConfigException) as error:
            raise _failure(error, login.configuration.host, self.timeout) from error
        stream = Stream(response, login.configuration.host, silence or self.timeout)
        if response.status != 200:
            raise _refusal(stream, self.timeout)
        return stream

    def renew(self, generation: int) -> None:
        """Read the kubeconfig, or the service account's files, again at the next `get`, unless that was done since `generation`. Watches
        that run go on."""
        with self._lock:
            if generation != self.generation:
                return
            login, self._login = self._login, None
            self.generation += 1
        if login is not None:
            login.pool.clear()

    def close(self) -> None:
        """Give idle connections back."""
        self.renew(self.generation)

    def _entered(self) -> Login:
        with self._lock:
            if self._login is None:
                self._login = self._enter()
            return self._login

    def _enter(self) -> Login:
        configuration = Configuration()
        configuration.keep_alive = True
        configuration.connection_pool_maxsize = CONNECTIONS
        try:
            if self._kubeconfig is not None:
                path = str(Path(self._kubeconfig).expanduser())
                load_kube_config(path, client_configuration=configuration, persist_config=False)
            else:
                account = Path(self._service_account)
                InClusterConfigLoader(str(account / "token"), str(account / "ca.crt")).load_and_set(configuration)
            return Login(configuration, RESTClientObject(configuration).pool_manager)
        except Exception as error:  # a file is anything, and the client's loaders raise whatever comes of it
            where = self._kubeconfig or self._service_account
            remedy = "set kubernetes.kubeconfig to a kubeconfig file, or kubernetes.mode to off where there is no cluster"
            raise SourceAbsent(f"credentials of the API server: {where}: {_brief(error)}; {remedy}") from error


class Stream:
    """An answer that is being read. Every read raises SourceTimeout after the silence that was agreed, SourceMalformed where it was cut."""

    def __init__(self, response: urllib3.BaseHTTPResponse, host: str, silence: float) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._host = host
        self._silence = silence
        if (connected := getattr(response.connection, "sock", None)) is not None:
            connected.settimeout(silence)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunks(self) -> Iterator[bytes]:
        """What comes, as it comes."""
        try:
            while chunk := self._response.read1(CHUNK):
                yield chunk
        except (HTTPError, OSError, ValueError, AttributeError) as error:  # the last two: closed by another thread meanwhile
            raise _failure(error, self._host, self._silence) from error

    def read(self, limit: int, seconds: float) -> bytes:
        """All of it, within so many bytes and seconds; the connection may then serve again."""
        deadline = time.monotonic() + seconds
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise SourceMalformed(f"{self._host}: an answer of more than {limit:,} bytes is not read")
            if time.monotonic() > deadline:
                raise SourceTimeout(f"{self._host}: an answer took more than {seconds:g} s")
        self._response.release_conn()
        return bytes(body)

    def interrupt(self) -> None:
        """Have a read in another thread end at once."""
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):  # it has ended already
            return

    def close(self) -> None:
        """Give the connection up, unless all of it was read."""
        self._response.close()


def _credentials(configuration: Configuration) -> dict[str, str]:
    token = configuration.get_api_key_with_prefix("BearerToken")  # reads a pod's token again where it is older than a minute
    basic = configuration.get_basic_auth_token() if configuration.username else None
    if not (said := (token or basic or "").strip()):
        return {}
    if not (said.isascii() and said.isprintable()):  # http.client would say the token in its error
        raise SourceMalformed("credentials of the API server: the token holds characters that a token cannot have")
    return {"Authorization": said}


def _failure(error: Exception, host: str, silence: float) -> SourceError:
    if isinstance(error, ReadTimeoutError):
        return SourceTimeout(f"{host}: silent for {silence:g} s")
    if isinstance(error, HttpTimeout | TimeoutError) and not isinstance(error, NewConnectionError):
        return SourceTimeout(f"{host}: no connection within the time that kubernetes.timeout allows")
    if isinstance(error, SSLError) and "CERTIFICATE" in str(error):
        return SourceAbsent(f"{host}: TLS: {_brief(error)}; is the certificate authority the one of this cluster?")
    if isinstance(error, ConfigException):
        return SourceAbsent(f"credentials of the API server: {_brief(error)}")
    return SourceAbsent(f"{host}: {_brief(error)}")


def _refusal(stream: Stream, seconds: float) -> ApiError:
    """The error of an answer that is not 200, with the message of its Status object (meta/v1) where it has one."""
    with stream:
        try:
            body = stream.read(REASON_LIMIT, seconds)
        except SourceError:
            body = b""
    return ApiError(stream.status, message_of(body) or f"HTTP {stream.status}", _retry_after(stream.headers.get("Retry-After", "")))


def message_of(body: bytes) -> str:
    """The message of a Status object, or the text where it is none; short and printable."""
    try:
        decoded: Any = json.loads(body)
    except (ValueError, RecursionError):
        decoded = None
    text = str(decoded.get("message", "")) if isinstance(decoded, dict) else body.decode("utf-8", "replace")
    return _printable(text)


def _retry_after(text: str) -> float:
    """Seconds; a date (RFC 9110 allows one, the API server sends none) counts as not said."""
    return min(float(text), RETRY_AFTER_LIMIT) if text.isdecimal() and len(text) < 10 else 0.0


def _brief(error: Exception) -> str:
    return _printable(str(error) or type(error).__name__)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text[:TEXT_LIMIT]).strip()
