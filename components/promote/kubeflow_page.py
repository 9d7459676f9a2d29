"""The verdict on the page of a run in Kubeflow: its numbers as metrics, and the evidence page.

The API of a cluster returns neither; they are for people who look at the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankline.evidence.page import EVIDENCE_PAGE


def show_verdict(result: Mapping[str, Any], verdict: Path, metrics: Any, page: Any) -> None:
    """Fill Kubeflow's artifacts ``metrics`` (Metrics) and ``page`` (HTML) with what `decide` returned and wrote."""
    for name, value in result.get("numbers", {}).items():
        metrics.log_metric(name, value)
    metrics.metadata |= {name: result[name] for name in ("outcome", "sentence") if name in result}
    if (verdict / EVIDENCE_PAGE).is_file():  # an earlier version wrote none
        Path(page.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(verdict / EVIDENCE_PAGE, page.path)
