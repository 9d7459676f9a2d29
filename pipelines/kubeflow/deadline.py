"""The deadline of a run: Argo counts it from the run's first start, also after a retry."""

from __future__ import annotations

import time
from typing import Any

from pipelines.kubeflow.run_package import RunPackage
from pipelines.kubeflow.triggers import unix_seconds
from rankline.errors import UsageError


def refuse_after_deadline(run: Any, package: RunPackage) -> None:
    """Refuse to retry a run that the cluster would end at once.

    Raises:
        UsageError: its deadline has passed.
    """
    began_s = unix_seconds(run.created_at)
    if not package.run_timeout_s or began_s is None or time.time() < began_s + package.run_timeout_s:
        return
    raise UsageError(
        f"run {run.run_id} cannot be retried: its deadline has passed, and the cluster would end it at once",
        expected=f"a run that began less than {package.run_timeout_s} s ago (cluster.run_timeout_s)",
        found=f"one that began {time.time() - began_s:.0f} s ago",
        hint="`rankline submit` starts a new run; steps that have not changed are reused",
    )
