"""What every test rests on: Ray reads its environment when it is imported, so it is set before any test module is."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import tests.kubernetes.binaries  # noqa: F401 - it takes its variable out of the environment, whatever tests run
from actors.session import set_environment
from configs.settings import RaySettings

private = Path(tempfile.mkdtemp(prefix="rs-token-"))
atexit.register(shutil.rmtree, private, ignore_errors=True)
set_environment(RaySettings(), private)
