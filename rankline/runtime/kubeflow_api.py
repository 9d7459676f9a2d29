"""What a pod asks Kubeflow Pipelines of its own run: whether somebody cancelled it, which no step can see."""

from __future__ import annotations

import http.client
import json
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0
PROJECTED_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")  # mounted by Kubeflow's PodDefault
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


def latest_start(states: Sequence[str | None]) -> int:
    """Where the states since the last start begin: a retry goes on with the history of what failed."""
    begin, ended = 0, False
    for position, state in enumerate(states):
        if ended and state in ("PENDING", "RUNNING"):
            begin = position
        ended = state in _ENDED
    return begin


def was_cancelled(run: str) -> bool:
    """Whether a user cancelled a run since it was last started; False where the API does not answer or refuses."""
    try:
        with _open(f"{_address()}/apis/v2beta1/runs/{run}") as response:
            history = json.load(response).get("state_history") or []
        states = [each.get("state") for each in history]
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return False
    return "CANCELING" in states[latest_start(states) :]


def _address() -> str:
    """The API server as pods reach it: named by the environment, in their own namespace, or in Kubeflow's."""
    if named := os.environ.get("RANKLINE_KFP_HOST"):
        return named.rstrip("/")
    host = os.environ.get("ML_PIPELINE_SERVICE_HOST", "ml-pipeline.kubeflow")
    return f"http://{host}:{os.environ.get('ML_PIPELINE_SERVICE_PORT', '8888')}"


def _open(url: str) -> Any:
    request = urllib.request.Request(url)
    path = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or PROJECTED_TOKEN)
    if path.is_file():
        request.add_header("Authorization", f"Bearer {path.read_text().strip()}")
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return without_proxy.open(request, timeout=TIMEOUT_S)
