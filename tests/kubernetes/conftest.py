"""The real control plane of these tests; tests/kubernetes/control_plane.py says what it offers."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes import certificates
from tests.kubernetes.binaries import CONTROLLERS, SERVERS, folder_or_skip
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.proxy import Proxy, proxied
from tests.kubernetes.publishing import Publishing, using

HERE = Path(__file__).parent
PLANE = pytest.StashKey[ControlPlane]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are marked, so that `-m "not kubernetes"` leaves them out."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("kubernetes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The same reason not to run, such as absent binaries, is said in one line for all tests of this folder."""
    report = yield
    if report.skipped and HERE in item.path.parents and isinstance(report.longrepr, tuple):
        report.longrepr = (str(HERE), None, report.longrepr[2])  # type: ignore[assignment]  # pytest says the file where there is no line
    return report


@contextmanager
def running(folders: pytest.TempPathFactory, **further: Any) -> Iterator[ControlPlane]:
    """A control plane that is ended, and its files with it, whatever happens."""
    binaries = folder_or_skip(*SERVERS, lacking=certificates.missing())
    folder = folders.mktemp("control-plane")
    plane = ControlPlane(binaries, folder, **further)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """The control plane of the whole session."""
    with running(tmp_path_factory) as plane:
        pytestconfig.stash[PLANE] = plane
        yield plane
        del pytestconfig.stash[PLANE]


@pytest.fixture(autouse=True)
def mended(pytestconfig: pytest.Config) -> Iterator[None]:
    """Whatever a test did to the session's control plane, the next one finds it running."""
    yield
    if plane := pytestconfig.stash.get(PLANE, None):
        plane.ensure()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.make_namespace(name)
    yield name
    control_plane.ensure()
    control_plane.remove_namespace(name)


@pytest.fixture(scope="module")
def controllers(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The session's control plane, with its controllers for the tests of one module."""
    folder_or_skip(*CONTROLLERS)
    control_plane.start_controllers()
    yield control_plane
    control_plane.stop_controllers()


@pytest.fixture
def new_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ControlPlane]]:
    """Makes control planes of this test alone."""
    with ExitStack() as stack:
        yield lambda **further: stack.enter_context(running(tmp_path_factory, **further))


@pytest.fixture
def publishing(control_plane: ControlPlane, namespace: str) -> Iterator[Publishing]:
    with using(control_plane, namespace) as made:
        yield made


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    with proxied(control_plane) as made:
        yield made
