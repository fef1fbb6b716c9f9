"""README's recipes for reading the ConfigMaps, as they stand there, against a real API server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.binaries import find
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.publishing import Content, Publishing, until, using

README = (Path(__file__).parents[2] / "README.md").read_text()
ROWS = 6_000


def recipe(kind: str, *words: str) -> str:
    """README's block of that kind that holds these words."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if all(word in block for word in words)]
    return str(found)


@pytest.fixture
def published(control_plane: ControlPlane, namespace: str) -> Iterator[Publishing]:
    """Six thousand transactions on several pages, of an IPv6 client too."""
    with using(control_plane, namespace) as publishing:
        publisher = publishing.publisher(
            Content(rows=ROWS, number=7, metadata={"10.96.0.1": {"apiserver": {"u": {"name": "dns"}}}}), pages=4
        )
        until(publisher, 1, lambda status: status["state"] == "publishing" and not status["pending"])
        yield publishing


def run(publishing: Publishing, command: list[str]) -> str:
    environment = {
        "PATH": f"{find()[0]}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(publishing.plane.folder),
        "KUBECONFIG": str(publishing.plane.admin_kubeconfig),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq: apt-get install jq")
def test_kubectl_and_jq(published: Publishing) -> None:
    text = recipe("sh", "kubectl", "jq").replace("-n rayscope", f"-n {published.namespace}")
    found = json.loads(run(published, ["bash", "-euo", "pipefail", "-c", text]))
    assert len(found) == ROWS
    assert {each["transaction"]["total_sent_bytes"] for each in found} == {7}
    assert found[0]["key"].endswith("-10.96.0.1-40000-443")


def test_python(published: Publishing) -> None:
    text = recipe("python", "list_namespaced_config_map").replace('"rayscope", label', f'"{published.namespace}", label')
    lines = run(published, [sys.executable, "-c", text]).splitlines()
    assert len(lines) == ROWS
    assert "10.0.0.0-10.96.0.1-40000-443 7 None {'apiserver': {'u': {'name': 'dns'}}}" in lines
