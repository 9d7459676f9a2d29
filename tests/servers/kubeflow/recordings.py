"""The answers of a real server (Kubeflow Pipelines 2.17.0), and what it would have answered in between.

A recording holds a run at its end. The API keeps the time of every state that a run and its tasks had, so the answer at
any instant before can be made from it: this is how a recording is played.
"""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

from tests.servers.kubeflow.argo import NOT_ENDED

FOLDER = Path(__file__).parents[1] / "kubeflow_recordings"
RUNS = tuple(sorted(path.stem for path in FOLDER.glob("run-*.json")))
ENDED = ("SUCCEEDED", "FAILED", "CANCELED")
_ENDED_TASK = (*ENDED, "SKIPPED", "")


@functools.cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text()


def recording(name: str) -> dict[str, Any]:
    """A recorded answer, by the name of its file without the suffix."""
    answer: dict[str, Any] = json.loads(_text(name))
    return answer


def change_times(run: dict[str, Any]) -> list[str]:
    """The times at which something in a run changed its state, oldest first."""
    tasks = run["run_details"]["task_details"]
    return sorted({each["update_time"] for entry in (run, *tasks) for each in entry["state_history"]})


def workflow_name(run: dict[str, Any]) -> str:
    """The name of a run's workflow: that of its outermost task."""
    names = {task["display_name"] for task in run["run_details"]["task_details"]}
    return next(name for name in names if f"{name}(0)" in names and all(name in each for each in _children(run)))


def _children(run: dict[str, Any]) -> list[str]:
    tasks = run["run_details"]["task_details"]
    return [child["pod_name"] for task in tasks for child in task.get("child_tasks", ())]


def as_of(run: dict[str, Any], instant: str) -> dict[str, Any]:
    """A run as the server showed it at a time before its end."""
    now = copy.deepcopy(run)
    _cut(now, instant, ended=ENDED)
    tasks = [task for task in now["run_details"]["task_details"] if task["state_history"][0]["update_time"] <= instant]
    for task in tasks:
        _cut(task, instant, ended=_ENDED_TASK)
    now["run_details"]["task_details"] = tasks
    if now.get("state") not in ENDED:
        now["finished_at"] = "1970-01-01T00:00:00Z"
    return now


def _cut(entry: dict[str, Any], instant: str, *, ended: tuple[str, ...]) -> None:
    """Forget the states of a run or a task after an instant."""
    whole = entry["state_history"]
    history = [each for each in whole if each["update_time"] <= instant]
    if history == whole:
        return
    entry["state_history"] = history
    entry.pop("state", None)
    if history and (state := history[-1].get("state")):
        entry["state"] = state
    if "end_time" in entry and not (history and history[-1].get("state", "") in ended):
        entry["end_time"] = NOT_ENDED
