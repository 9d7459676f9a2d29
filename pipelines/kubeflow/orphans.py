"""Schedules of ours that `rankline schedule` does not govern, though they may fire."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.cluster_schedule import from_recurring_run
from pipelines.kubeflow.packages import list_pipelines
from pipelines.kubeflow.recurring_runs import RecurringRun, list_active, list_ids
from pipelines.kubeflow.scheduled_workflows import delete_command, list_scheduled_workflows


@dataclass(frozen=True)
class Orphan:
    """A recurring run, or a ScheduledWorkflow without one, of one of our pipelines."""

    kind: str  # recurring run, ScheduledWorkflow
    name: str
    fires: bool
    reason: str
    remedy: str
    pipeline: str


def unreadable(cluster: Cluster) -> list[Orphan]:
    """The recurring runs that store no schedule."""
    return [_from_recurring_run(each) for each in list_active(cluster) if from_recurring_run(each) is None]


def unlisted(cluster: Cluster) -> list[Orphan]:
    """The ScheduledWorkflows of our pipelines that the API does not list.

    Raises:
        AccessError: Kubernetes cannot be asked.
    """
    pipelines = list_pipelines(cluster)
    workflows = [each for each in list_scheduled_workflows(cluster) if each.pipeline_id in pipelines]
    listed = list_ids(cluster) if workflows else set()  # asked after: what is created meanwhile is in it
    return [
        Orphan(
            kind="ScheduledWorkflow",
            name=each.name,
            fires=each.fires,
            reason="it fires, and the API lists neither it nor its runs" if each.fires else "the API does not list it",
            remedy=delete_command(cluster, each.name),
            pipeline=pipelines[each.pipeline_id],
        )
        for each in workflows
        if each.id not in listed
    ]


def _from_recurring_run(recurring_run: RecurringRun) -> Orphan:
    return Orphan(
        kind="recurring run",
        name=recurring_run.name,
        fires=recurring_run.enabled,
        reason="not created by `rankline schedule`, or what it stored is gone",
        remedy=f"delete it on its page, {recurring_run.url}",
        pipeline=recurring_run.pipeline,
    )
