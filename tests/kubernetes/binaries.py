"""Where the binaries of the control plane are: `build` alone knows, and says so within milliseconds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).with_name("build")
REQUIRED = "RAYSCOPE_REQUIRE_KUBE"  # 1: what lacks is a failure, not a skip
is_required = os.environ.pop(REQUIRED, "") == "1"  # taken out: to the settings of what is tested it would be an unknown one
SERVERS = ("etcd", "kube-apiserver", "kubectl")
CONTROLLERS = ("kube-controller-manager",)


def find(*names: str) -> tuple[Path, str]:
    """The folder, and why it cannot be used, or ""; nothing is built."""
    done = subprocess.run([BUILD, "--check", *names], capture_output=True, text=True, timeout=30, check=False)
    return Path(done.stdout.strip()), done.stderr.strip().removeprefix("kube-binaries: ") if done.returncode else ""


def folder_or_skip(*names: str, lacking: str = "") -> Path:
    """The folder that has these. Without, or where something else lacks, the test is skipped, or fails where RAYSCOPE_REQUIRE_KUBE is 1."""
    folder, why = find(*names)
    if not (why := why or lacking):
        return folder
    if is_required:
        pytest.fail(f"{REQUIRED}=1, but {why}", pytrace=False)
    pytest.skip(why)
