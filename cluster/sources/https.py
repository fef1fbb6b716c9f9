"""HTTPS GET with a service account's token: for the kubelet and the API server, without a Kubernetes client.

The reader of HTTP is that of unix sockets (`unix_http`), with its bounds: one deadline for all of it, the size counted as it comes. The
token and the certificates are read again at each use, since both are replaced while we run. A redirect is not followed: the token would
go where somebody else says.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout
from cluster.core.kinds import line
from cluster.sources.unix_http import excerpt, read_body, read_head
from cluster.sources.unix_stream import Stream

HOST = re.compile(r"[0-9A-Za-z:][0-9A-Za-z.:_-]{0,252}")
TOKEN = re.compile(r"[\x21-\x7e]+")  # what may stand in a header
TOKEN_LIMIT = 65_536  # bytes
CA_LIMIT = 4_000_000  # bytes; all that a Debian trusts is 200,000
SAID_LIMIT = 300  # characters of a refusal
PIECE = 8  # characters of a token that would already tell something of it
OTHER_NAME = (62, 63, 64)  # X509_V_ERR_{HOSTNAME,EMAIL,IP_ADDRESS}_MISMATCH, openssl/x509_vfy.h
EXPIRED, NOT_YET = 10, 9  # X509_V_ERR_CERT_{HAS_EXPIRED,NOT_YET_VALID}
NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")


@dataclass(frozen=True, slots=True)
class Server:
    """A server, what it is asked with, and what a person does when it refuses."""

    host: str
    port: int
    ca_file: str
    token_file: str
    insecure: bool = False
    absent: str = "is it running?"
    unknown_ca: str = "set the file of its certificates"
    other_name: str = "use the name or the address that its certificate has"
    refused: Mapping[int, str] = field(default_factory=dict)  # HTTP status -> what to do

    @property
    def origin(self) -> str:
        """As in a URL."""
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class TlsStream(Stream):
    """A TLS connection. Raises SourceAbsent, SourceTimeout, SourceMalformed (no TLS), SourceError (a certificate that is not accepted)."""

    def __init__(self, server: Server, timeout: float) -> None:
        self._server = server
        super().__init__(server.origin, timeout, server.absent)

    def _open(self, remedy: str) -> tuple[socket.socket, str]:
        context = context_of(self._server)
        plain_socket = self._connect(remedy)
        try:
            plain_socket.settimeout(self._left())
            return context.wrap_socket(plain_socket, server_hostname=self._server.host), ""
        except TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            raise _tls_error(self._server, error) from error
        finally:
            plain_socket.close()  # where it was wrapped, its descriptor belongs to the wrapper

    def _connect(self, remedy: str) -> socket.socket:
        """The first of the host's addresses that answers."""
        try:
            found = socket.getaddrinfo(self._server.host, self._server.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise SourceAbsent(f"{self.path}: no address is known of {self._server.host!r}: {error}; {remedy}") from error
        last: OSError | None = None
        for family, kind, protocol, _, address in found:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(self._left())
                connection.connect(address)
            except OSError as error:
                connection.close()
                last = error
            else:
                return connection
        if isinstance(last, TimeoutError):
            raise SourceTimeout(f"{self.path}: no connection within {self._timeout:g} s; does a firewall drop it? {remedy}") from last
        raise SourceAbsent(f"{self.path}: cannot connect: {last and last.strerror}; {remedy}") from last

    def _left(self) -> float:
        left = self._end - monotonic()
        if left <= 0:
            raise self._late()
        return left


def get(server: Server, target: str, timeout: float, limit: int) -> bytes:
    """The body of a 200 answer to GET `target`; `timeout` is seconds for all of it, `limit` bytes of the body.

    Raises SourceAbsent, SourceTimeout, SourceMalformed, or SourceError (certificate, token, another status than 200); no message holds the
    token, nor anything of a body but what a 403 says of who may not do what.
    """
    if not HOST.fullmatch(server.host):
        raise SourceError(f"{server.host!r}: neither a host's name nor an address")
    token = token_of(server.token_file)
    with TlsStream(server, timeout) as stream:
        stream.send(_request(server, target, token))
        status, _, headers = read_head(stream)
        if status == 200:
            if any(value.lower() not in (b"", b"identity") for value in headers.get(b"content-encoding", ())):
                raise SourceMalformed(f"{server.origin}{target}: the body is compressed, though only plain was asked for")
            return read_body(stream, headers, limit)
        said = _without(excerpt(stream, headers), token) if status == 403 else ""
    raise SourceError(_refusal(server, target, status, said))


def _request(server: Server, target: str, token: str) -> bytes:
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {server.origin.removeprefix('https://')}",
        f"Authorization: Bearer {token}",
        "User-Agent: rayscope",
        "Accept: application/json",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _without(said: str, token: str) -> str:
    """The text without words that hold a piece of the token, should the server say it back."""
    pieces = {token[start : start + PIECE] for start in range(max(1, len(token) - PIECE + 1))}
    return " ".join("..." if any(piece in word for piece in pieces) else word for word in said.split())


def _refusal(server: Server, target: str, status: int, said: str) -> str:
    if 300 <= status < 400:
        todo = "that is a redirect, which is not followed, since the token would go elsewhere; name the server itself"
    elif status >= 500:
        todo = server.refused.get(status, "it has trouble of its own; asked again at the next read")
    else:
        todo = server.refused.get(status, "is this the right server and port?")
    heard = f" ({line(said, SAID_LIMIT)})" if said else ""
    return f"{server.origin}{target.partition('?')[0]}: HTTP {status}{heard}: {todo}"


def token_of(path: str) -> str:
    """The token in a file. Raises SourceError, which does not show it."""
    token = _read(path, TOKEN_LIMIT, "the service account's token").decode("latin-1").strip()
    if not TOKEN.fullmatch(token):
        raise SourceError(f"{path}: holds no token (one line of printable characters); is the service account mounted there?")
    return token


def context_of(server: Server) -> ssl.SSLContext:
    """What the server's certificate has to be. Raises SourceError where the file of certificates cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on from Python 3.13; old clusters' CAs lack a key identifier
    if server.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    pem = _read(server.ca_file, CA_LIMIT, "the certificates that sign the server's")
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise SourceError(f"{server.ca_file}: no certificates in PEM form; {server.unknown_ca}") from error
    return context


def _read(path: str, limit: int, what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(
            f"{path}: cannot read {what}: {reason}; is the service account mounted there (kubelet.service_account)?"
        ) from error
    if len(data) > limit:
        raise SourceError(f"{path}: more than {limit} bytes where {what} should be; name the right file")
    return data


def _tls_error(server: Server, error: OSError) -> SourceError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceError(
            f"{server.origin}: its certificate is not accepted: {error.verify_message}; {_certificate_remedy(server, error)}"
        )
    if isinstance(error, ssl.SSLError) and error.reason in NOT_TLS:
        return SourceMalformed(f"{server.origin}: does not speak TLS ({error.reason}); is this the right port?")
    return SourceError(f"{server.origin}: no TLS connection: {getattr(error, 'reason', None) or error.strerror or error}; {server.absent}")


def _certificate_remedy(server: Server, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in OTHER_NAME:
        return server.other_name
    if error.verify_code in (EXPIRED, NOT_YET):
        return "renew it, or set the clocks of both machines"
    return server.unknown_ca
