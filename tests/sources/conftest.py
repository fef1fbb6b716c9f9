"""A Docker daemon of our own, certificates and a service account, made anew at each run of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.docker_daemon import Dockerd, missing
from tests.sources.tls_peer import NO_OPENSSL, TOKEN, Authority

SUBNET = "10.99.0.0/24"


@pytest.fixture(scope="session")
def daemon() -> Iterator[Dockerd]:
    if reason := missing():
        pytest.skip(reason)
    dockerd = Dockerd()
    try:
        dockerd.wait_until_ready()
        dockerd.import_image()
        dockerd.command("network", "create", "--subnet", SUBNET, "private")
        yield dockerd
    finally:
        dockerd.stop()


@pytest.fixture
def dockerd(daemon: Dockerd) -> Iterator[Dockerd]:
    yield daemon
    daemon.remove_all()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom the cluster trusts."""
    if NO_OPENSSL:
        pytest.skip(NO_OPENSSL)
    return Authority(tmp_path_factory.mktemp("tls"), "cluster")


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Path:
    """A server's, for loopback."""
    return authority.sign("server")


@pytest.fixture
def account(tmp_path: Path, authority: Authority) -> Path:
    """A service account's directory, as it is mounted into pods."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    (folder / "ca.crt").write_text(Path(authority.certificate).read_text())
    return folder
