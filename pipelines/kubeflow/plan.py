"""What `rankline submit` would do: which package it would run, and, as far as that can be known from here, what becomes
of each step.

What is reused is settled at each step's door, against the workspace on the volume that the steps share. Where that
volume is mounted here, too (in a notebook of the cluster, on a machine that exports it), the plan is that of a local
run in it (pipelines/runs/plan.py). Elsewhere nobody can tell: a copy of finished work in a bucket is not all there is, since
the profile before, the champion and the material lie on the volume. Then the plan says so, and guesses nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.packages import find_version, list_pipelines, paginate, pipeline_name, version_name
from pipelines.kubeflow.runs import summarize_listed_run
from pipelines.package import compile_flow
from pipelines.recipe import Recipe, as_dict
from pipelines.runs import containers
from pipelines.runs.plan import Libraries, Plan, PlannedStep, TotalTime
from pipelines.runs.plan import plan as foretell
from pipelines.steps import STEPS
from rankline.contracts import FrozenModel
from rankline.errors import RanklineError
from rankline.runtime.step_cache import ALWAYS_RUNS
from rankline.runtime.steps import TRAINING_STEPS

StepTimes = dict[
    str, tuple[tuple[float, str], tuple[float, str]]
]  # step -> the shortest and the longest, and their runs
MAX_RUNS = 10  # earlier runs that tell how long steps take


class ClusterPlanDetails(FrozenModel):
    """What the plan of a cluster's run says beside the steps."""

    pipeline: str
    version: str  # the package that would run
    uploaded: bool | None  # whether it would be, or the cluster has it; none where it was not asked
    volume: str  # on which the steps share their workspace
    workspace: str  # where that lies here; empty where it does not
    notes: tuple[str, ...]


class ClusterPlan(Plan):
    """What a run on a cluster would do."""

    cluster: ClusterPlanDetails


def plan(recipe: Recipe, *, cluster: Cluster | None, local_workspace: Path | None) -> ClusterPlan:
    """Foretell a run on a cluster; nothing is uploaded. ``here`` is where its volume is mounted on this machine.

    Without a ``cluster`` nobody is asked whether it has the package, nor how long earlier runs took.

    Raises:
        UsageError: the package is not one that a cluster takes.
        SourceError: the volume is mounted here, and the source is not there.
        AccessError: the cluster does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = compile_flow(recipe, Path(folder) / "flow.yaml")
        version = version_name(recipe, package)
    uploaded = None if cluster is None else find_version(cluster, recipe, version) is None
    notes = [] if cluster else ["no cluster was asked: with --host the plan tells whether it has this package"]
    remote_root = recipe.cluster.workspace
    if local_workspace is None:
        run_plan = _plan_without_workspace(recipe)
        where = f"volume {recipe.cluster.volume!r}" if recipe.cluster.volume else f"{remote_root} of each pod"
        notes.append(
            f"what is reused is decided on the cluster, against the workspace on {where}, which cannot be read from "
            f"here; where it is mounted on this machine, -w FOLDER names it"
        )
        if recipe.storage.artifacts:
            notes.append(
                f"copies at {recipe.storage.artifacts} are used, too; they do not tell what the volume has beside"
            )
    else:
        libraries, doubt = _libraries(recipe)
        run_plan = foretell(
            _with_local_paths(recipe, remote_root, str(local_workspace)), local_workspace, libraries=libraries
        )
        notes += [f"this holds if {doubt}"] if doubt else []
        notes += [f"{name} is not on the volume, and on a cluster nobody fetches it" for name in run_plan.fetches]
    step_times = _step_times(cluster, recipe) if cluster else {}
    if step_times and any(
        step.run_s is None and step.reuse_s is None for step in run_plan.steps if step.step in step_times
    ):
        notes.append(
            f"times are the shortest and the longest of the latest runs there ({MAX_RUNS} at most): its API does not "
            "tell whether a step ran or was reused"
        )
    run_plan = _with_cluster_times(run_plan, step_times)
    details = ClusterPlanDetails(
        pipeline=pipeline_name(recipe),
        version=version,
        uploaded=uploaded,
        volume=recipe.cluster.volume,
        workspace=str(local_workspace) if local_workspace else "",
        notes=tuple(notes),
    )
    return ClusterPlan(**run_plan.model_dump(), cluster=details)


def _libraries(recipe: Recipe) -> tuple[Libraries | None, str]:
    """The versions in the images where an engine here has them; else none, and what has to be so instead."""
    try:
        containers.require_current_code(recipe)
        return containers.libraries(recipe), ""
    except RanklineError as error:
        return (
            None,
            f"the images hold this code and these versions of libraries, which nobody could look into: {error.message}",
        )


def _with_local_paths(recipe: Recipe, remote_root: str, local_root: str) -> Recipe:
    """The recipe with paths on the cluster's volume as they are on this machine."""

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
    """What is certain of every run, and nothing else."""
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
            steps.append(PlannedStep(step=name, state="unsure", why="decided at its door, on the cluster"))
    unknown_time = TotalTime(least_s=0.0, most_s=0.0, around_s=None, around_from="", without=TRAINING_STEPS)
    place = recipe.cluster.workspace
    return Plan(recipe=recipe.name, workspace=place, champion="", fetches=(), steps=tuple(steps), total=unknown_time)


def _with_cluster_times(run_plan: Plan, step_times: StepTimes) -> Plan:
    """The plan with what earlier runs on the cluster took, where no run in the workspace tells."""
    steps = []
    for step in run_plan.steps:
        if step.run_s is None and step.reuse_s is None and step.step in step_times:
            (least, least_of), (most, most_of) = step_times[step.step]
            times = {"reuse_s": least, "reuse_from": least_of, "run_s": most, "run_from": most_of}
            step = step.model_copy(update=times)
        steps.append(step)
    return run_plan.model_copy(update={"steps": tuple(steps), "total": run_plan.total.with_steps(tuple(steps))})


def _step_times(cluster: Cluster, recipe: Recipe) -> StepTimes:
    """Step -> (shortest, longest) of the latest runs of a recipe that came to a verdict, each with its run."""
    ids = [id for id, name in list_pipelines(cluster).items() if name == pipeline_name(recipe)]
    runs = paginate(
        lambda **page: cluster.client.list_runs(namespace=cluster.namespace_or_none, **page),
        "runs",
        limit=200,
        sort_by="created_at desc",
    )
    own_runs = [
        run
        for run in runs
        if run.state == "SUCCEEDED"
        and run.pipeline_version_reference
        and run.pipeline_version_reference.pipeline_id in ids
    ]
    times_of: dict[str, list[tuple[float, str]]] = {}
    for run in own_runs[:MAX_RUNS]:
        summary = summarize_listed_run(cluster, run)
        for step in summary["steps"]:
            if step["step"] in STEPS and step["status"] == "done":
                times_of.setdefault(step["step"], []).append((step["seconds"], summary["run"]))
    return {step: (min(times), max(times)) for step, times in times_of.items()}
