"""What Kubernetes tells a pod by variables: the address of its node, as our manifests ask for it, and where the API server is."""

from __future__ import annotations

import os
from collections.abc import Mapping


def host_ip(environ: Mapping[str, str] = os.environ) -> str:
    """The node's address (`status.hostIP` of the downward API, as HOST_IP), "" where it is not told."""
    return environ.get("HOST_IP", "").strip()


def api_server(environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """Host and port of the API server, as every pod is told them; None outside of pods."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", "").strip(), environ.get("KUBERNETES_SERVICE_PORT", "443").strip()
    return (host, int(port)) if host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536 else None
