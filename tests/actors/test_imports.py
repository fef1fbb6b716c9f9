from __future__ import annotations

import subprocess
import sys


def test_only_who_speaks_to_the_api_server_pays_for_its_client() -> None:
    """The Kubernetes client takes tens of megabytes, in every process that imports it."""
    modules = "actors.collector, actors.supervisor, actors.deploy, actors.cluster_watcher"
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}; sys.exit('kubernetes' in sys.modules)"], timeout=120, check=False)
    assert done.returncode == 0
