"""Runs that wait for hours: a pod of theirs cannot begin, and the schedule that they belong to may start no other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import list_own_runs, list_pipelines
from pipelines.kubeflow.run_report import RunReporter
from pipelines.kubeflow.run_summary import is_running, summarize_run
from pipelines.kubeflow.triggers import unix_seconds

LONG_S = 3600.0  # a node that a cluster adds for a pod is there within minutes


@dataclass(frozen=True)
class WaitingRun:
    """A run of ours that has not ended, and what has been pending of it for long."""

    run: str
    pipeline: str
    recurring_run: str  # id of the one that started it; empty where none did
    step: str  # empty where no pod has been created at all
    seconds: float
    reason: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return f"`rankline runs cancel {self.run}`, then mend what it waits for; `rankline runs show` says more"


def find_waiting(cluster: Cluster, *, longer_than_s: float = LONG_S) -> list[WaitingRun]:
    """Those of the latest runs of our pipelines that have been pending for longer than this."""
    pipelines, now_s = list_pipelines(cluster), time.time()
    old = [
        each
        for each in list_own_runs(cluster, pipelines)
        if is_running(each) and now_s - (unix_seconds(each.created_at) or now_s) > longer_than_s
    ]
    return [
        WaitingRun(
            each.run_id, pipelines[each.pipeline_version_reference.pipeline_id], each.recurring_run_id or "", *why
        )
        for each in old
        for why in _waits(cluster, cluster.run(each.run_id), longer_than_s)
    ]


def _waits(cluster: Cluster, run: Any, longer_than_s: float) -> Iterator[tuple[str, float, str]]:
    """(step, seconds, reason) of the step that is pending; a run that is pending itself waits as a whole.

    A run that goes on without any task may be one of a server that reports tasks on request only.
    """
    summary = summarize_run(cluster, run)
    if not is_running(run):
        return
    if not summary["steps"] and run.state == "PENDING":
        yield "", time.time() - (summary["started"] or time.time()), "no pod of it has been created"
    pending = [each for each in summary["steps"] if each["status"] == "pending" and each["seconds"] > longer_than_s]
    if pending:
        RunReporter(cluster, run).add_waiting(run, summary)
        yield pending[0]["step"], pending[0]["seconds"], pending[0]["why"]
