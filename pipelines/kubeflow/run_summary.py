"""A run of a cluster in the words of a local run's summary, as far as the API of Kubeflow Pipelines knows it.

The API gives the states of a run and, for each task, a name, states and two times (`run_details.task_details`, made
from the nodes of the workflow), but neither the parameters that a task returned nor any error. So the verdict is read
off the tasks that ran: the last step of the flow (`promote`, `publish`, `materialize`), the task that is named after
the verdict, or neither, where there was nothing to do (pipelines/training.py, pipelines/refresh.py). The name of the
pipeline tells the flow. What the steps themselves say of a run is added by pipelines/kubeflow/run_report.py: of a run
whose steps are packed into few pods the verdict, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.nodes import executor_of, has_begun, latest_states, steps_of, tasks_of
from pipelines.kubeflow.packages import parse_pipeline_name
from pipelines.kubeflow.triggers import trigger_of, unix_seconds
from pipelines.steps import PACKED_TASKS, STEPS, VERDICT_TASKS
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
VERDICT_UNREAD = "It succeeded; its verdict could not be read."  # of a packed run
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
        error = f"`rankline runs show {run.run_id}` says why" if failed else "no step of it failed; see its page"
    return {
        "run": run.run_id,
        "name": run.display_name,
        "outcome": outcome.value,
        "kubeflow_status": run.state or "",
        "verdict": VERDICT_UNREAD if is_undecided(run, outcome) else outcome.sentence_for(flow),
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


def is_undecided(run: Any, outcome: str) -> bool:
    """Whether the task that gave the verdict is done, and the API alone cannot say which it was."""
    concluded = {task.display_name for task in tasks_of(run) if task.state == "SUCCEEDED"} & PACKED_TASKS.keys()
    return outcome == Outcome.INCOMPLETE and any("decide" in PACKED_TASKS[task] for task in concluded)


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


def add_entry(step: dict[str, Any], result: dict[str, Any]) -> None:
    """Add what the ledger has of a step to what the API has."""
    fields = ("why", "import_s", "work_s", "core_s", "result", "error")
    step |= {name: result[name] for name in fields if name in result}
    step["peak_memory_mb"] = round(result.get("peak_memory_bytes", 0) / 2**20)
    if step["status"] == "done" and result.get("status") == "reused":
        step["status"] = "reused"


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
    packed = {step for task in tasks_of(run) for step in PACKED_TASKS.get(task.display_name or "", ())}
    done = {step["step"] for step in steps if step["status"] == "done"} - packed
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
        names, is_driver = steps_of(name.removesuffix("-driver")), name.endswith("-driver")
        if not set(names) <= {*STEPS, *VERDICT_TASKS}:
            continue
        status = STEP_STATUS.get(task.state, "pending")
        # a driver runs before its step; it stands for the step only until the step has started
        if is_driver and (names[0] in by_step or status not in ("failed", "running")):
            continue
        started_s, finished_s = unix_seconds(task.start_time), unix_seconds(task.end_time)
        seconds = round((finished_s or time.time()) - started_s, 2) if started_s else 0.0
        status = "pending" if is_driver and status == "running" else _status(status, task, tasks, cancelled_s)
        for step in names:  # of several in one pod the first has its time
            by_step[step] = {
                "step": step,
                "status": status,
                "why": "",
                "seconds": seconds if step == names[0] else 0.0,
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
