"""Real peers behind real TLS on loopback, with certificates that openssl makes when the tests begin."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.sources.peers import Behaviour, http

NO_OPENSSL = "" if shutil.which("openssl") else "the openssl command is needed to make certificates: apt-get install openssl"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJl"


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.certificate = self._path("pem")
        self._key(name)
        extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        self._openssl(
            "req", "-x509", "-new", "-key", self._path("key"), "-subj", f"/CN={name}", "-days", "2", *extensions, "-out", self.certificate
        )

    def sign(self, name: str, alternatives: str = "IP:127.0.0.1,IP:::1", days: int = 2) -> Path:
        """A server's certificate with its key, in one file."""
        both, request, extensions = self._folder / f"{name}.both", self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n")
        key = self._key(name)
        self._openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request))
        signer = ("-CA", self.certificate, "-CAkey", self._path("key"), "-CAcreateserial")
        certificate = self._folder / f"{name}.crt"
        self._openssl(
            "x509", "-req", "-in", str(request), *signer, "-days", str(days), "-extfile", str(extensions), "-out", str(certificate)
        )
        both.write_text(certificate.read_text() + key.read_text())
        return both

    def _key(self, name: str) -> Path:
        path = self._folder / f"{name}.key"
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path))
        return path

    def _path(self, ending: str) -> str:
        return str(self._folder / f"{self._name}.{ending}")

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


class TlsPeer:
    """Listens on loopback and does `behave(connection, stopped)` with whoever connects and ends the handshake. Use as a context."""

    def __init__(self, certificate: Path, behave: Behaviour, address: str = "127.0.0.1") -> None:
        self.behave = behave
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._stopped = threading.Event()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.host, self.port = self._listener.getsockname()[:2]
        self.requests: list[bytes] = []
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> TlsPeer:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._attend, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _attend(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secured:
            self.behave(secured, self._stopped)


def serves(peer_requests: list[bytes], *bodies: bytes, status: bytes = b"200 OK", headers: tuple[bytes, ...] = ()) -> Behaviour:
    """Notes each request and answers with the next of the bodies, at last always with the last one."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG001
        request = b""
        while b"\r\n\r\n" not in request and (piece := connection.recv(65_536)):
            request += piece
        peer_requests.append(request)
        connection.sendall(http(bodies[min(len(peer_requests), len(bodies)) - 1], *headers, status=status))

    return behave
