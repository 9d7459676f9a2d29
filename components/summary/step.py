"""summary: what a run did, from its ledger. It runs at the end of every run, however that ended.

Reads    <run>/*.json        the ledger
Writes   <run>/summary.json  outcome, steps, durations, peak memory, cost

The work is in rankline/runtime/run_summary.py, as the last step of a retried run does it, too.
"""

from __future__ import annotations

from typing import Any

from components.summary.config import SummaryConfig
from rankline.pod import in_pod
from rankline.runtime.kubeflow_api import was_cancelled
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_summary import (
    INTERRUPTED_MESSAGE,
    KILLED_MESSAGE,
    SUMMARY,
    KubeflowEnd,
    note_cancelled,
    note_names,
    read_cancelled,
    summarize,
)

__all__ = ["INTERRUPTED_MESSAGE", "KILLED_MESSAGE", "SUMMARY", "summarize", "summarize_run"]


def summarize_run(context: RunContext, *, config: SummaryConfig, state: str, message: str) -> dict[str, Any]:
    """Write the summary of a run; the ``state`` that Kubeflow reports does not say whether it was cancelled."""
    if in_pod():
        note_names(context.folder, context.names)  # no step may have begun
        if state != "SUCCEEDED" and not read_cancelled(context.folder) and was_cancelled(context.run_id):
            note_cancelled(context.folder, by="somebody, through Kubeflow Pipelines")
    end = KubeflowEnd(state, message, context.names.get("flow", "train"))
    return summarize(context.folder, config=config, kubeflow_end=end)
