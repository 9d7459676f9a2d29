"""A run of a cluster in the words of a local run's summary, as far as the API of Kubeflow Pipelines knows it.

The API gives the states of a run and, for each task, a name, states and two times (`run_details.task_details`, made
from the nodes of the workflow), but neither the parameters that a task returned nor any error. So the verdict is read
off the tasks that ran: the last step of the flow (`promote`, `publish`, `materialize`), the task that is named after
the verdict, or neither, where there was nothing to do (pipelines/training.py, pipelines/refresh.py). The name of the
pipeline tells the flow. What the steps themselves say of a run is added by pipelines/kubeflow/run_report.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.nodes import executor_of, has_begun, latest_states, step_of, tasks_of
from pipelines.kubeflow.packages import parse_pipeline_name
from pipelines.kubeflow.triggers import trigger_of, unix_seconds
from pipelines.steps import STEPS, VERDICT_TASKS
from rankline.runtime.outcomes import Outcome
from rankline.runtime.steps import SUMMARY_STEP, Flow

STEP_STATUS = {
    "PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "done", "SKIPPED": "skipped", "FAILED": "failed",
    "CANCELING": "running", "CANCELED": "cancelled", "PAUSED": "pending",
    None: "skipped",  # Argo leaves it out, as something before it failed
}  # fmt: skip
_FINISHED_STATES = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
# the last step of a flow, or the task of a verdict -> the outcome where it is done
_FINAL_TASKS = {outcome.step: outcome for outcome in Outcome if outcome.step} | VERDICT_TASKS
_CONDITION = re.compile(r"condition-\d+")  # Kubeflow's name of a branch
_LEDGER_FIELDS = ("work_s", "import_s", "peak_memory_mb", "core_s", "gpu_s", "cost")  # of a step; not in the API


def summarize_run(cluster: Cluster, run: Any) -> dict[str, Any]:
    """The summary of a run as far as the API knows it."""
    cancelled_s = _cancelled_s(run)
    steps = _steps(tasks_of(run), cancelled_s)
    outcome, flow = _outcome(run, steps, cancelled_s), flow_of(cluster, run)
    failed = next((step for step in steps if step["status"] == "failed"), None)
    started_s, finished_s = unix_seconds(run.created_at), unix_seconds(run.finished_at)
    seconds = round(max((finished_s or time.time()) - (started_s or time.time()), 0.0), 2)
    error = (run.error and run.error.message) or (failed and failed["error"]) or ""
    if outcome == Outcome.FAILED and not error:
        error = f"see `{kubectl_logs_command(cluster, run.run_id)}`" if failed else "no step of it failed; see its page"
    return {
        "run": run.run_id,
        "name": run.display_name,
        "outcome": outcome.value,
        "kubeflow_status": run.state or "",
        "verdict": outcome.sentence_for(flow),
        "reasons": [],
        "error": error if outcome == Outcome.FAILED else "",
        "failed_step": failed["step"] if failed and outcome == Outcome.FAILED else "",
        "model_id": "",
        "started": started_s,
        "seconds": None if outcome == Outcome.RUNNING else seconds,
        "work_s": None,
        "cost": None,
        "currency": "",
        "prices": {},
        "steps": steps,
        "trigger": trigger_of(cluster, run),
        "flow": flow,
        "url": cluster.ui_url("runs", run.run_id),
    }


def summarize_listed_run(cluster: Cluster, run: Any) -> dict[str, Any]:
    """The summary of a run from a list, which may come without tasks."""
    summary = summarize_run(cluster, run)
    if not summary["steps"] and summary["outcome"] in (Outcome.INCOMPLETE, Outcome.CANCELLED):
        return summarize_run(cluster, cluster.client.get_run(run.run_id))
    return summary


def is_running(run: Any) -> bool:
    """Whether a run has not ended."""
    return run.state not in _FINISHED_STATES


def flow_of(cluster: Cluster, run: Any) -> Flow:
    """The flow of a run by the name of its pipeline; `train` where the pipeline has been deleted."""
    id = run.pipeline_version_reference and run.pipeline_version_reference.pipeline_id
    pipeline = cluster.pipeline(id) if id else None
    return parse_pipeline_name(pipeline.display_name)[1] if pipeline else "train"


def kubectl_logs_command(cluster: Cluster, run: str, pod: str = "") -> str:
    """The command that shows what a pod wrote, or every pod of a run, as long as the pods exist."""
    which = f"{pod} -c main" if pod else f"-l pipeline/runid={run} -c main --prefix --tail=-1"
    return f"kubectl {cluster.kubectl_namespace()} logs {which}"


def _cancelled_s(run: Any) -> float | None:
    """When a user cancelled the run; None where nobody did since it was last started."""
    requests = [each for each in latest_states(run.state_history) if each.state == "CANCELING"]
    if requests:
        return unix_seconds(requests[0].update_time) or 0.0
    return 0.0 if run.state == "CANCELED" else None


def _outcome(run: Any, steps: list[dict[str, Any]], cancelled_s: float | None) -> Outcome:
    if is_running(run):
        return Outcome.RUNNING
    if run.state in ("FAILED", "CANCELED"):
        # a step that had failed by itself when the run was cancelled is what ended it
        failed_before = cancelled_s and any(step["status"] == "failed" for step in steps)
        return Outcome.CANCELLED if cancelled_s is not None and not failed_before else Outcome.FAILED
    done = {step["step"] for step in steps if step["status"] == "done"}
    final = next((outcome for task, outcome in _FINAL_TASKS.items() if task in done), None)
    return final or (_without_branch(run, done) if SUMMARY_STEP in done else Outcome.INCOMPLETE)


def _without_branch(run: Any, done: set[str]) -> Outcome:
    """The outcome of a run whose verdict led to nothing: no branch was taken, and the exit handler is done."""
    conditions = [task.state for task in tasks_of(run) if _CONDITION.fullmatch(task.display_name or "")]
    if not conditions or set(conditions) != {"SKIPPED"}:
        return Outcome.INCOMPLETE
    settled = {"decide": Outcome.ALREADY_SERVING, "catalogue": Outcome.UNCHANGED}
    return next((outcome for step, outcome in settled.items() if step in done), Outcome.INCOMPLETE)


def _steps(tasks: Sequence[Any], cancelled_s: float | None) -> list[dict[str, Any]]:
    """Our steps among a run's tasks, in their order; of several attempts the latest."""
    by_step: dict[str, dict[str, Any]] = {}
    for task in sorted(tasks, key=lambda each: unix_seconds(each.start_time) or float("inf")):
        name = task.display_name or ""
        step, is_driver = step_of(name.removesuffix("-driver")), name.endswith("-driver")
        if step not in (*STEPS, *VERDICT_TASKS):
            continue
        status = STEP_STATUS.get(task.state, "pending")
        # a driver runs before its step; it stands for the step only until the step has started
        if is_driver and (step in by_step or status not in ("failed", "running")):
            continue
        started_s, finished_s = unix_seconds(task.start_time), unix_seconds(task.end_time)
        by_step[step] = {
            "step": step,
            "status": "pending" if is_driver and status == "running" else _status(status, task, tasks, cancelled_s),
            "why": "",
            "seconds": round((finished_s or time.time()) - started_s, 2) if started_s else 0.0,
            **dict.fromkeys(_LEDGER_FIELDS),
            "result": {},
            "paths": {},
            "error": (task.error and task.error.message) or "",
        }
    return [by_step[step] for step in (*STEPS, *VERDICT_TASKS) if step in by_step]


def _status(status: str, task: Any, tasks: Sequence[Any], cancelled_s: float | None) -> str:
    """The status of a step by that of its pod: it runs once the pod does, and is cut short if the run is cancelled."""
    pod = executor_of(task, tasks)
    if status == "running" and (pod is None or not has_begun(pod)):
        return "pending"
    if status == "failed" and cancelled_s is not None:
        ended_s = unix_seconds((pod or task).end_time) or float("inf")
        return "failed" if ended_s < cancelled_s else "cancelled"
    return status
