"""What `rankline submit` would do: which package it would run and, as far as this machine can tell, which steps.

Each step decides on the cluster what it reuses, from the workspace that the steps share. If that is in a bucket, or on
a volume that is mounted on this machine, the plan is that of a local run in it (pipelines/runs/plan.py). Otherwise the
plan says that it does not know: the step cache in a bucket is not enough, as the previous profile, the champion and the
assets are on the volume.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import find_version, list_own_runs, list_pipelines, pipeline_name, version_name
from pipelines.kubeflow.run_report import summarize_listed_runs
from pipelines.package import compile_flow
from pipelines.recipe import Recipe, as_dict
from pipelines.runs import containers
from pipelines.runs.plan import Libraries, Plan, PlannedStep, TotalTime
from pipelines.runs.plan import plan as plan_local_run
from pipelines.steps import PACKED_TASKS, STEPS
from rankline.contracts import FrozenModel
from rankline.errors import RanklineError
from rankline.runtime.step_cache import ALWAYS_RUNS
from rankline.runtime.steps import TRAINING_STEPS

StepTimes = dict[
    str, tuple[tuple[float, str], tuple[float, str]]
]  # step -> the shortest and the longest, and their runs
MAX_RUNS = 10  # earlier runs that the durations come from
# measured with Kubeflow Pipelines 2.17 on one node: the shortest and the longest time of a task's two pods around the
# work, the driver's and the step's own; of the driver alone; of the branches of the verdict, which run side by side
TASK_S, DRIVER_S, BRANCHES_S = (20.0, 30.0), 10.0, 10.0


class ClusterPlanDetails(FrozenModel):
    """What the plan of a run on a cluster says beside the steps."""

    pipeline: str
    version: str  # of the package that would run
    uploaded: bool | None  # True: it would be; False: the cluster has it; None: no cluster was asked
    volume: str  # of the workspace that the steps share
    workspace: str  # where it is mounted on this machine, or its bucket; empty where it cannot be read
    pods_least_s: float  # of the total: the pods of all tasks, around the work of the steps
    pods_most_s: float
    notes: tuple[str, ...]


class ClusterPlan(Plan):
    """What a run on a cluster would do."""

    cluster: ClusterPlanDetails


def plan(recipe: Recipe, *, cluster: Cluster | None, local_workspace: Path | None) -> ClusterPlan:
    """Plan a run on a cluster without uploading anything.

    Args:
        cluster: tells whether it has the package and how long earlier runs took; None to ask no cluster.
        local_workspace: where the cluster's workspace is mounted on this machine, if it is; or the copy of the one in
            a bucket.

    Raises:
        UsageError: the cluster would refuse the package.
        SourceError: the workspace is mounted here, and the source does not exist.
        AccessError: the cluster does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = compile_flow(recipe, Path(folder) / "flow.yaml")
        version = version_name(recipe, package)
    uploaded = None if cluster is None else find_version(cluster, recipe, version) is None
    notes = [] if cluster else ["no cluster was asked: with --host the plan says whether it has this package"]
    remote_root = recipe.cluster.workspace
    if local_workspace is None:
        run_plan = _plan_without_workspace(recipe)
        where = f"volume {recipe.cluster.volume!r}" if recipe.cluster.volume else f"{remote_root} of each pod"
        notes.append(
            f"the cluster decides what is reused, from the workspace on {where}, which this machine cannot read; if it "
            f"is mounted here, name it with -w FOLDER"
        )
        if recipe.storage.artifacts:
            notes.append(f"artifacts at {recipe.storage.artifacts} are reused, too; the volume may have more")
    else:
        libraries, doubt = _libraries(recipe)
        run_plan = plan_local_run(
            _with_local_paths(recipe, remote_root, str(local_workspace)), local_workspace, libraries=libraries
        )
        notes += [f"this holds if {doubt}"] if doubt else []
        place = f"in {recipe.storage.workspace}" if recipe.storage.workspace else "on the volume"
        notes += [f"{name} is not {place}; run `rankline fetch {name}` there first" for name in run_plan.fetches]
    step_times = _step_times(cluster, recipe) if cluster else {}
    if step_times and any(
        step.run_s is None and step.reuse_s is None for step in run_plan.steps if step.step in step_times
    ):
        notes.append(
            f"times are the shortest and the longest of the latest {MAX_RUNS} runs there: the API does not report "
            "whether a step ran or was reused"
        )
    run_plan = _with_cluster_times(run_plan, step_times)
    tasks, least_s, most_s = _pods_time(run_plan, step_times, is_packed=recipe.cluster.pack)
    notes.append(
        f"the pods of {tasks} tasks take {least_s:.0f} to {most_s:.0f} s around the work of the steps, "
        f"{TASK_S[0]:.0f} to {TASK_S[1]:.0f} s each; that is in the total"
    )
    total = run_plan.total
    around = {"least_s": round(total.least_s + least_s, 2), "most_s": round(total.most_s + most_s, 2)}
    run_plan = run_plan.model_copy(update={"total": total.model_copy(update=around)})
    details = ClusterPlanDetails(
        pipeline=pipeline_name(recipe),
        version=version,
        uploaded=uploaded,
        volume="" if recipe.storage.workspace else recipe.cluster.volume,
        workspace=recipe.storage.workspace or str(local_workspace or ""),
        pods_least_s=least_s,
        pods_most_s=most_s,
        notes=tuple(notes),
    )
    return ClusterPlan(**run_plan.model_dump(), cluster=details)


def _libraries(recipe: Recipe) -> tuple[Libraries | None, str]:
    """The versions of libraries in the images, or None and an assumption where no engine here has the images."""
    try:
        containers.require_current_code(recipe)
        return containers.libraries(recipe), ""
    except RanklineError as error:
        return (
            None,
            f"the images hold this code and these versions of libraries, which could not be checked: {error.message}",
        )


def _with_local_paths(recipe: Recipe, remote_root: str, local_root: str) -> Recipe:
    """The recipe with the paths of the cluster's workspace replaced by those on this machine."""

    def replace_root(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: replace_root(each) for name, each in value.items()}
        if isinstance(value, list):
            return [replace_root(each) for each in value]
        inside = isinstance(value, str) and (value == remote_root or value.startswith(f"{remote_root}/"))
        return local_root + value[len(remote_root) :] if inside else value

    values = as_dict(recipe)
    return TypeAdapter(Recipe).validate_python({**replace_root(values), "cluster": values["cluster"]})


def _plan_without_workspace(recipe: Recipe) -> Plan:
    """What is certain of every run."""
    steps = []
    for name in TRAINING_STEPS:
        if name == "promote" and recipe.decide.mode == "review":
            steps.append(
                PlannedStep(step=name, state="skipped", why="decide.mode is review: the model waits for a reviewer")
            )
        elif name == "promote":
            why = "it runs where the verdict is to promote"
            steps.append(PlannedStep(step=name, state="unsure", provided="the gates are met", why=why))
        elif not STEPS[name].cached:
            steps.append(PlannedStep(step=name, state="runs", why=ALWAYS_RUNS))
        else:
            steps.append(PlannedStep(step=name, state="unsure", why="decided on the cluster when the step starts"))
    unknown_time = TotalTime(least_s=0.0, most_s=0.0, around_s=None, around_from="", without=TRAINING_STEPS)
    place = recipe.cluster.workspace
    return Plan(recipe=recipe.name, workspace=place, champion="", fetches=(), steps=tuple(steps), total=unknown_time)


def _with_cluster_times(run_plan: Plan, step_times: StepTimes) -> Plan:
    """The plan with the durations of earlier runs on the cluster for steps that have none from the workspace."""
    steps = []
    for step in run_plan.steps:
        if step.run_s is None and step.reuse_s is None and step.step in step_times:
            (least, least_of), (most, most_of) = step_times[step.step]
            times = {"reuse_s": least, "reuse_from": least_of, "run_s": most, "run_from": most_of}
            step = step.model_copy(update=times)
        steps.append(step)
    return run_plan.model_copy(update={"steps": tuple(steps), "total": run_plan.total.with_steps(tuple(steps))})


def _pods_time(run_plan: Plan, step_times: StepTimes, *, is_packed: bool) -> tuple[int, float, float]:
    """The number of tasks, the summary's included, and the shortest and longest time that their pods take.

    A time that the API gave for a step has that of the step's own pod in it. Packed, there are fewer tasks and neither
    a summary nor branches.
    """
    packed = {step: task for task, steps in PACKED_TASKS.items() if is_packed for step in steps}
    runs = {run for times in step_times.values() for _, run in times}
    tasks: dict[str, bool] = {}  # task -> whether its time is from the API
    for step in run_plan.steps:
        if step.state != "skipped":
            task = packed.get(step.step, step.step)
            tasks[task] = tasks.get(task, False) or bool({step.run_from, step.reuse_from} & runs)
    count, from_api = len(tasks) + (not is_packed), sum(tasks.values())
    drivers_s = from_api * DRIVER_S + (0.0 if is_packed else BRANCHES_S)
    least_s, most_s = (drivers_s + (count - from_api) * each_s for each_s in TASK_S)
    return count, least_s, most_s


def _step_times(cluster: Cluster, recipe: Recipe) -> StepTimes:
    """Step -> (shortest, longest) duration in the latest runs of a recipe with a verdict, each with its run."""
    ids = [id for id, name in list_pipelines(cluster).items() if name == pipeline_name(recipe)]
    own_runs = [run for run in list_own_runs(cluster, ids) if run.state == "SUCCEEDED"]
    times_of: dict[str, list[tuple[float, str]]] = {}
    for summary in summarize_listed_runs(cluster, own_runs[:MAX_RUNS]):
        for step in summary["steps"]:
            if step["step"] in STEPS and step["status"] == "done":
                times_of.setdefault(step["step"], []).append((step["seconds"], summary["run"]))
    return {step: (min(times), max(times)) for step, times in times_of.items()}
