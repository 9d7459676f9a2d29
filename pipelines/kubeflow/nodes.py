"""The pods of a run's steps, found in what the API reports of its tasks.

The API names each task by the last part of its node's name in Argo's workflow and gives it an id of its own. Argo's
ids, which the log endpoint asks for, stand only among a task's children (`child_tasks[].pod_name`). Argo computes them
from the node's full name, `WORKFLOW(0).root(0).exit-handler-1(0).finetune(0).executor(0)`, so the names are found by
trying: a name whose id is among the children is a node. The work of a step is its `executor`, a pod of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.triggers import unix_seconds
from pipelines.steps import PACKED_TASKS, STEPS, VERDICT_TASKS
from rankline.runtime.kubeflow_api import latest_start
from rankline.runtime.steps import EARLIER_NAMES

EXECUTOR = "executor"
_ATTEMPT = re.compile(r"\(\d+\)$")
_FNV_OFFSET, _FNV_PRIME = 2166136261, 16777619  # the 32-bit FNV-1a hash, which Argo's ids end in
# Kubeflow writes hyphens, and earlier versions had other names
_STEP_ALIASES = {step.replace("_", "-"): step for step in STEPS} | {old: step for step, old in EARLIER_NAMES.items()}


@dataclass(frozen=True)
class StepPod:
    """A pod that did the work of a step."""

    step: str
    node_id: str  # WORKFLOW-NUMBER
    parts: tuple[str, ...] = ()  # the steps that share the pod, if several do

    def pod_name(self, *, retries: bool) -> str:
        """The name of the pod: Kubeflow runs a task that has ``retries`` from another template."""
        workflow, _, number = self.node_id.rpartition("-")
        return f"{workflow}-{'retry-' if retries else ''}system-container-impl-{number}"

    @property
    def log_names(self) -> tuple[str, ...]:
        """The names that its log may have at the API server: those of a pod, and for an archived log its node's id."""
        return self.pod_name(retries=True), self.pod_name(retries=False), self.node_id


def tasks_of(run: Any) -> list[Any]:
    """The tasks that the API reports of a run."""
    return list((run.run_details and run.run_details.task_details) or [])


def steps_of(task: str) -> tuple[str, ...]:
    """The steps that a task does the work of; most do that of one."""
    return PACKED_TASKS.get(task, (_STEP_ALIASES.get(task, task),))


def step_pods(run: Any) -> list[StepPod]:
    """The pods of a run's steps and verdicts, in the order of the steps and of a step's attempts."""
    nodes = node_ids(tasks_of(run))
    pods: dict[str, list[StepPod]] = {}
    for name in sorted(nodes):
        parts = [_ATTEMPT.sub("", part) for part in name.split(".")]
        if parts[-1] == EXECUTOR and f"{name}(0)" not in nodes:
            for step in steps_of(parts[-2]):
                pods.setdefault(step, []).append(StepPod(step, nodes[name], PACKED_TASKS.get(parts[-2], ())))
    return [pod for step in (*STEPS, *VERDICT_TASKS) for pod in pods.get(step, [])]


def latest_pods(run: Any) -> dict[str, StepPod]:
    """Step -> the pod of its latest attempt."""
    return {pod.step: pod for pod in step_pods(run)}


def node_ids(tasks: Sequence[Any]) -> dict[str, str]:
    """Full name -> Argo's id of each node of a workflow, except for the first."""
    ids = {child.pod_name for task in tasks for child in task.child_tasks or [] if child.pod_name}
    if not ids:
        return {}
    workflow = min(ids).rpartition("-")[0]
    names = sorted({task.display_name for task in tasks if task.display_name})
    nodes: dict[str, str] = {}
    waiting = [name for name in names if _ATTEMPT.sub("", name) == workflow]
    while waiting:
        prefix = waiting.pop() + "."
        hashed = _fnv1a(prefix)
        for name in names:
            id = f"{workflow}-{_fnv1a(name, hashed)}"
            if id in ids and prefix + name not in nodes:
                nodes[prefix + name] = id
                waiting.append(prefix + name)
    return nodes


def _fnv1a(text: str, start: int = _FNV_OFFSET) -> int:
    value = start
    for byte in text.encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value


def executor_of(task: Any, tasks: Sequence[Any]) -> Any:
    """The pod of a step's latest attempt as the API reports it; None where none has been created yet.

    A pod's task has no children and no link to its step, but no two steps run at once: it began while its step ran.
    """
    started_s, ended_s = unix_seconds(task.start_time), unix_seconds(task.end_time)
    pods = list(_started_within(tasks, started_s or 0.0, ended_s or float("inf")))
    return max(pods, key=lambda pod: unix_seconds(pod.start_time) or 0.0, default=None)


def _started_within(tasks: Sequence[Any], first_s: float, last_s: float) -> Iterator[Any]:
    for task in tasks:
        name = _ATTEMPT.sub("", task.display_name or "")
        if name == EXECUTOR and not task.child_tasks and first_s <= (unix_seconds(task.start_time) or 0.0) <= last_s:
            yield task


def latest_states(history: Sequence[Any] | None) -> list[Any]:
    """The entries of a state history since the last start: a retry goes on with the history of what failed."""
    entries = list(history or [])
    return entries[latest_start([entry.state for entry in entries]) :]


def has_begun(pod: Any) -> bool:
    """Whether the API has seen a pod run, or end well; it looks every ten seconds."""
    return pod.state == "SUCCEEDED" or any(each.state == "RUNNING" for each in latest_states(pod.state_history))


def never_began(run: Any, step: str) -> bool:
    """Whether the pod of a step waits, or failed without having run."""
    tasks = tasks_of(run)
    own = [task for task in tasks if step in steps_of(task.display_name or "")]
    pods = [pod for task in own if (pod := executor_of(task, tasks)) is not None]
    return bool(pods) and not any(map(has_begun, pods))
