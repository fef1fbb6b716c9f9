"""The kubelet's and the API server's HTTPS, against real TLS peers, kind and hostile."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.core.errors import SourceAbsent, SourceError, SourceMalformed, SourceTimeout
from cluster.sources.https import Server, get
from tests.sources.peers import Behaviour, answers, chunked, http, in_pieces, keeps_open, repeats
from tests.sources.tls_peer import TOKEN, Authority, TlsPeer, serves

LIMIT = 100_000
BODY = b'{"items": []}'


def ask(peer: Any, account: Path, target: str = "/pods", timeout: float = 10.0, **fields: Any) -> bytes:
    known = {"ca_file": str(account / "ca.crt"), "token_file": str(account / "token")}
    return get(Server(peer.host, peer.port, **{**known, **fields}), target, timeout, LIMIT)


def failure(certificate: Path, behave: Behaviour, account: Path, timeout: float = 10.0, **fields: Any) -> SourceError:
    """The error that such a peer causes."""
    with TlsPeer(certificate, behave) as peer, pytest.raises(SourceError) as caught:
        ask(peer, account, timeout=timeout, **fields)
    assert f"https://127.0.0.1:{peer.port}" in str(caught.value)
    assert TOKEN not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_in_the_certificate_is_enough_and_the_token_goes_with_the_request(
    certificate: Path, account: Path, address: str
) -> None:
    requests: list[bytes] = []
    try:
        peer = TlsPeer(certificate, serves(requests, BODY), address)
    except OSError:
        pytest.skip(f"this machine has no {address}")
    with peer:
        assert ask(peer, account) == BODY
    lines = requests[0].decode().split("\r\n")
    host = f"[{address}]" if ":" in address else address
    assert lines[0] == "GET /pods HTTP/1.1"
    assert {f"Host: {host}:{peer.port}", f"Authorization: Bearer {TOKEN}"} <= set(lines)


def test_token_and_certificates_are_read_again_at_each_use(certificate: Path, account: Path, tmp_path: Path) -> None:
    requests: list[bytes] = []
    other = Authority(tmp_path, "other")
    with TlsPeer(certificate, serves(requests, BODY)) as peer:
        ask(peer, account)
        (account / "token").write_text("a-new-one\n")
        ask(peer, account)
        good = (account / "ca.crt").read_text()
        (account / "ca.crt").write_text(Path(other.certificate).read_text())
        with pytest.raises(SourceError, match="certificate is not accepted"):
            ask(peer, account)
        (account / "ca.crt").write_text(good + Path(other.certificate).read_text())
        assert ask(peer, account) == BODY
    assert [TOKEN.encode() in request for request in requests] == [True, False, False]
    assert b"Authorization: Bearer a-new-one\r\n" in requests[1]


def test_a_certificate_of_an_unknown_authority_is_refused_and_the_remedy_is_said(account: Path, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").sign("kubelet")
    requests: list[bytes] = []
    error = failure(stranger, serves(requests, BODY), account, unknown_ca="set kubelet.ca_file")
    assert "certificate is not accepted: unable to get local issuer certificate; set kubelet.ca_file" in str(error)
    assert not requests
    with TlsPeer(stranger, serves(requests, BODY)) as peer:
        assert ask(peer, account, insecure=True) == BODY


def test_a_certificate_of_another_name_or_time_is_refused(authority: Authority, account: Path) -> None:
    elsewhere = authority.sign("elsewhere", "IP:192.0.2.7,DNS:kubelet")
    error = failure(elsewhere, answers(http(BODY)), account, other_name="set kubelet.host")
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in str(error)
    assert str(error).endswith("set kubelet.host")
    expired = authority.sign("expired", days=-1)
    assert "certificate has expired; renew it" in str(failure(expired, answers(http(BODY)), account))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(certificate: Path, account: Path, status: int) -> None:
    elsewhere: list[bytes] = []
    with TlsPeer(certificate, serves(elsewhere, BODY)) as other:
        location = b"Location: https://127.0.0.1:%d/pods" % other.port
        error = failure(certificate, serves([], b"", status=b"%d Moved" % status, headers=(location,)), account)
    assert f"HTTP {status}: that is a redirect, which is not followed" in str(error)
    assert not elsewhere


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_a_refusal_says_what_to_do_and_nothing_of_its_body_but_what_403_says(certificate: Path, account: Path, status: int) -> None:
    said = b"Forbidden (user=system:serviceaccount:rayscope:rayscope-node, verb=get, resource=nodes)"
    error = failure(certificate, serves([], said, status=b"%d No" % status), account, refused={status: "do this"})
    assert str(error).endswith(f": HTTP {status}{f' (saying: {said.decode()})' if status == 403 else ''}: do this")


def test_a_server_that_says_the_token_back_does_not_get_it_into_the_message(certificate: Path, account: Path) -> None:
    def echo(connection: socket.socket, stopped: threading.Event) -> None:  # noqa: ARG001
        request = connection.recv(65_536)
        connection.sendall(http(b"no: " + request[request.index(b"Bearer") :], status=b"403 No"))

    for token in (TOKEN, "long-" * 400):
        (account / "token").write_text(token)
        error = failure(certificate, echo, account)
        assert "saying: no: Bearer ..." in str(error)
        assert token[:8] not in str(error)


@pytest.mark.parametrize(
    ("behave", "kind", "message"),
    [
        (answers(b""), SourceMalformed, "closed after 0 bytes"),
        (answers(b"SSH-2.0-OpenSSH_9.2\r\n"), SourceMalformed, "instead of HTTP"),
        (answers(http(BODY)[:-3]), SourceMalformed, "truncated: closed after"),
        (answers(http(b"", b"Content-Length: 1000000000000")), SourceMalformed, "no number of bytes|larger than"),
        (answers(http(b"x" * (LIMIT + 1))), SourceMalformed, "kubelet.reply_limit"),
        (repeats(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000), SourceMalformed, "larger than 100000 bytes"),
        (repeats(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"), SourceMalformed, "larger"),
        (repeats(b"HTTP/1.1 200 OK\r\n", b"X-Header: more\r\n"), SourceMalformed, "of HTTP headers"),
        (repeats(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1_000), SourceMalformed, "a line of more than"),
        (answers(http(BODY, b"Content-Encoding: gzip")), SourceMalformed, "compressed"),
    ],
)
def test_what_is_not_the_protocol_is_malformed(
    certificate: Path, account: Path, behave: Behaviour, kind: type[SourceError], message: str
) -> None:
    error = failure(certificate, behave, account)
    assert type(error) is kind
    assert re.search(message, str(error)), error


@pytest.mark.parametrize(
    "behave",
    [
        keeps_open(b""),
        keeps_open(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
        repeats(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05),
        repeats(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
    ],
)
def test_a_peer_that_never_ends_is_given_up_at_the_deadline(certificate: Path, account: Path, behave: Behaviour) -> None:
    assert isinstance(failure(certificate, behave, account, timeout=0.4), SourceTimeout)


def test_a_handshake_that_never_ends_is_given_up_and_what_is_no_tls_is_said(account: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = Server("127.0.0.1", silent.getsockname()[1], str(account / "ca.crt"), str(account / "token"))
        with pytest.raises(SourceTimeout, match="no answer within"):
            get(server, "/pods", 0.3, LIMIT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak_plainly, args=(listener,))
        thread.start()
        server = Server("127.0.0.1", listener.getsockname()[1], str(account / "ca.crt"), str(account / "token"))
        with pytest.raises(SourceMalformed, match="does not speak TLS"):
            get(server, "/pods", 10, LIMIT)
        thread.join(10)


def speak_plainly(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(http(b"Client sent an HTTP request to an HTTPS server.", status=b"400 Bad Request"))
        connection.recv(65_536)


def test_nobody_there_is_absent(account: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = Server("127.0.0.1", port, str(account / "ca.crt"), str(account / "token"), absent="is the kubelet there?")
    with pytest.raises(SourceAbsent, match="Connection refused; is the kubelet there"):
        get(server, "/pods", 10, LIMIT)
    with pytest.raises(SourceAbsent, match=r"no address is known of 'host\.invalid'"):
        get(Server("host.invalid", port, str(account / "ca.crt"), str(account / "token")), "/pods", 10, LIMIT)


@pytest.mark.parametrize("host", ["", "a b", "a\r\nX: y", "a/b", "a" * 300, "-x"])
def test_what_is_no_host_is_not_asked(account: Path, host: str) -> None:
    with pytest.raises(SourceError, match="neither a host's name nor an address"):
        get(Server(host, 1, str(account / "ca.crt"), str(account / "token")), "/pods", 1, LIMIT)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("token", None, "cannot read the service account's token: No such file"),
        ("token", b"", "holds no token"),
        ("token", b"a\r\nX-Evil: b", "holds no token"),
        ("token", b"\xff\xfe", "holds no token"),
        ("token", b"x" * 100_000, "more than 65536 bytes"),
        ("ca.crt", None, "cannot read the certificates that sign the server's: No such file"),
        ("ca.crt", b"", "no certificates in PEM form"),
        ("ca.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificates in PEM form"),
        ("ca.crt", b"\xff", "no certificates in PEM form"),
    ],
)
def test_a_service_account_that_cannot_be_used_says_which_file(account: Path, name: str, content: bytes | None, message: str) -> None:
    (account / name).unlink()
    if content is not None:
        (account / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        get(Server("127.0.0.1", 1, str(account / "ca.crt"), str(account / "token")), "/pods", 1, LIMIT)
    assert str(account / name) in str(caught.value)
    assert "X-Evil" not in str(caught.value)


def test_bodies_come_in_pieces_and_chunks(certificate: Path, account: Path) -> None:
    for answer in (http(BODY), http(BODY, length=False), http(chunked(BODY[:5], BODY[5:]), b"Transfer-Encoding: chunked", length=False)):
        with TlsPeer(certificate, in_pieces(answer, 7)) as peer:
            assert ask(peer, account) == BODY
