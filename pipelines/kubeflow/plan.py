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
from pipelines.kubeflow.packages import every, find, pipeline_name, pipelines, version_name
from pipelines.kubeflow.runs import STEPS, tell_listed
from pipelines.package import compile_flow
from pipelines.recipes import Recipe, as_dict
from pipelines.runs import containers
from pipelines.runs.plan import Libraries, Plan, Step, Total
from pipelines.runs.plan import plan as foretell
from rankline.contracts import FrozenModel
from rankline.errors import RanklineError
from rankline.runtime import ledger
from rankline.runtime.step_cache import ALWAYS_RUNS

Took = dict[str, tuple[tuple[float, str], tuple[float, str]]]  # step -> the shortest and the longest, and their runs
LATEST = 10  # earlier runs that tell how long steps take


class There(FrozenModel):
    """What the plan of a cluster's run says beside the steps."""

    pipeline: str
    version: str  # the package that would run
    uploaded: bool | None  # whether it would be, or the cluster has it; none where it was not asked
    volume: str  # on which the steps share their workspace
    workspace: str  # where that lies here; empty where it does not
    notes: tuple[str, ...]


class ClusterPlan(Plan):
    """What a run on a cluster would do."""

    cluster: There


def plan(recipe: Recipe, *, cluster: Cluster | None, here: Path | None) -> ClusterPlan:
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
    uploaded = None if cluster is None else find(cluster, recipe, version) is None
    notes = [] if cluster else ["no cluster was asked: with --host the plan tells whether it has this package"]
    place = recipe.cluster.workspace
    if here is None:
        told = _unknown(recipe)
        where = f"volume {recipe.cluster.volume!r}" if recipe.cluster.volume else f"{place} of each pod"
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
        told = foretell(_moved(recipe, place, str(here)), here, libraries=libraries)
        notes += [f"this holds if {doubt}"] if doubt else []
        notes += [f"{name} is not on the volume, and on a cluster nobody fetches it" for name in told.fetches]
    took = _seconds(cluster, recipe) if cluster else {}
    if took and any(step.run_s is None and step.reuse_s is None for step in told.steps if step.step in took):
        notes.append(
            f"times are the shortest and the longest of the latest runs there ({LATEST} at most): its API does not "
            "tell whether a step ran or was reused"
        )
    told = _timed(told, took)
    side = There(
        pipeline=pipeline_name(recipe),
        version=version,
        uploaded=uploaded,
        volume=recipe.cluster.volume,
        workspace=str(here) if here else "",
        notes=tuple(notes),
    )
    return ClusterPlan(**told.model_dump(), cluster=side)


def _libraries(recipe: Recipe) -> tuple[Libraries | None, str]:
    """The versions in the images where an engine here has them; else none, and what has to be so instead."""
    try:
        containers.holds_this_code(recipe)
        return containers.libraries(recipe), ""
    except RanklineError as error:
        return (
            None,
            f"the images hold this code and these versions of libraries, which nobody could look into: {error.message}",
        )


def _moved(recipe: Recipe, there: str, here: str) -> Recipe:
    """The recipe with paths on the cluster's volume as they are on this machine."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(each) for name, each in value.items()}
        if isinstance(value, list):
            return [moved(each) for each in value]
        inside = isinstance(value, str) and (value == there or value.startswith(f"{there}/"))
        return here + value[len(there) :] if inside else value

    values = as_dict(recipe)
    return TypeAdapter(Recipe).validate_python({**moved(values), "cluster": values["cluster"]})


def _unknown(recipe: Recipe) -> Plan:
    """What is certain of every run, and nothing else."""
    steps = []
    for name in ledger.STEPS:
        if name in ("resolve_inputs", "decide"):
            steps.append(Step(step=name, state="runs", why=ALWAYS_RUNS))
        elif name == "promote" and recipe.decide.mode == "review":
            steps.append(Step(step=name, state="skipped", why="decide.mode is review: the model waits for a reviewer"))
        elif name == "promote":
            why = "it runs where the verdict is to promote"
            steps.append(Step(step=name, state="unsure", provided="the gates are met", why=why))
        else:
            steps.append(Step(step=name, state="unsure", why="decided at its door, on the cluster"))
    nothing = Total(least_s=0.0, most_s=0.0, around_s=None, around_from="", without=ledger.STEPS)
    place = recipe.cluster.workspace
    return Plan(recipe=recipe.name, workspace=place, champion="", fetches=(), steps=tuple(steps), total=nothing)


def _timed(told: Plan, took: Took) -> Plan:
    """The plan with what earlier runs on the cluster took, where no run in the workspace tells."""
    steps = []
    for step in told.steps:
        if step.run_s is None and step.reuse_s is None and step.step in took:
            (least, least_of), (most, most_of) = took[step.step]
            times = {"reuse_s": least, "reuse_from": least_of, "run_s": most, "run_from": most_of}
            step = step.model_copy(update=times)
        steps.append(step)
    around = told.total.around_s or 0.0
    total = told.total.model_copy(
        update={
            "least_s": round(sum(step.least_s or 0.0 for step in steps) + around, 2),
            "most_s": round(sum(step.most_s or 0.0 for step in steps) + around, 2),
            "without": tuple(step.step for step in steps if step.least_s is None or step.most_s is None),
        }
    )
    return told.model_copy(update={"steps": tuple(steps), "total": total})


def _seconds(cluster: Cluster, recipe: Recipe) -> Took:
    """Step -> (shortest, longest) of the latest runs of a recipe that came to a verdict, each with its run."""
    ids = [id for id, name in pipelines(cluster).items() if name == pipeline_name(recipe)]
    listed = every(
        lambda **page: cluster.client.list_runs(namespace=cluster.of_all, **page),
        "runs",
        most=200,
        sort_by="created_at desc",
    )
    ours = [
        run
        for run in listed
        if run.state == "SUCCEEDED"
        and run.pipeline_version_reference
        and run.pipeline_version_reference.pipeline_id in ids
    ]
    found: dict[str, list[tuple[float, str]]] = {}
    for run in ours[:LATEST]:
        told = tell_listed(cluster, run)
        for step in told["steps"]:
            if step["step"] in STEPS and step["status"] == "done":
                found.setdefault(step["step"], []).append((step["seconds"], told["run"]))
    return {step: (min(times), max(times)) for step, times in found.items()}
