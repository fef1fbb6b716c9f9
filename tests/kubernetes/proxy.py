"""A way to the API server that answers in its stead, stalls or cuts, as a test says. It passes everything else on as it is."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.kubernetes.control_plane import ControlPlane

KEPT = ("Authorization", "Accept", "Content-Type")


@dataclass(frozen=True)
class Fault:
    """What happens to a request."""

    status: int = 0  # the answer; 0 passes it on
    headers: dict[str, str] = field(default_factory=dict)
    stall: float = 0.0  # s before anything
    lose: bool = False  # pass it on, and cut the connection instead of answering
    body: bytes | None = None  # instead of a Status


@dataclass
class Proxy:
    """On http://127.0.0.1:PORT. `fault` says what to do with (method, path); `seen` are all requests."""

    url: str
    fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
    seen: list[tuple[float, str, str]] = field(default_factory=list)

    def always(self, fault: Fault | None, method: str = "", part: str = "") -> None:
        """The same fault for every request of that method whose path holds that part."""
        self.fault = lambda sent, path: fault if method in ("", sent) and part in path else None


@contextmanager
def proxied(plane: ControlPlane) -> Iterator[Proxy]:
    """A proxy that runs; requests keep the credentials they come with."""
    context = ssl.create_default_context(cafile=str(plane.ca_file))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proxy.seen.append((time.monotonic(), self.command, self.path))
            fault = proxy.fault(self.command, self.path) or Fault()
            time.sleep(fault.stall)
            status, headers, answer = self.refuse(fault) if fault.status else self.forward(body)
            if fault.lose:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def refuse(self, fault: Fault) -> tuple[int, dict[str, str], bytes]:
            status = {"kind": "Status", "code": fault.status, "message": f"this is a {fault.status}"}
            return fault.status, fault.headers, json.dumps(status).encode() if fault.body is None else fault.body

        def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPSConnection(urlsplit(plane.url).netloc, timeout=30, context=context)
            try:
                headers = {name: self.headers[name] for name in KEPT if self.headers[name]}
                connection.request(self.command, self.path, body or None, headers)
                response = connection.getresponse()
                return response.status, {"Content-Type": response.getheader("Content-Type", "")}, response.read()
            except OSError:
                return 503, {}, b"the API server is away"
            finally:
                connection.close()

        do_GET = do_PUT = do_POST = do_PATCH = serve

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:  # a client that did not wait
            pass

    server = Server(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
