"""Whether we are in a pod, and what Kubernetes tells one by variables: the address of its node, as our manifests ask for it, and where the
API server is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from configs.settings import KubeletSettings, Settings


def in_pod(settings: KubeletSettings) -> bool:
    """Whether a service account's token is there, as it is in pods."""
    return Path(settings.service_account, "token").exists()


def uses_api_server(settings: Settings) -> bool:
    """`kubernetes.mode`, where auto is decided: in a pod with a service account."""
    mode = settings.kubernetes.mode
    return mode == "on" or (mode == "auto" and in_pod(settings.kubelet))


def host_ip(environ: Mapping[str, str] = os.environ) -> str:
    """The node's address (`status.hostIP` of the downward API, as HOST_IP), "" where it is not told."""
    return environ.get("HOST_IP", "").strip()


def api_server(environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """Host and port of the API server, as every pod is told them; None outside of pods."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", "").strip(), environ.get("KUBERNETES_SERVICE_PORT", "443").strip()
    return (host, int(port)) if host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536 else None
