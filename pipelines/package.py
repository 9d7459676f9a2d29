"""The package of a flow for a cluster: compiled reproducibly, and checked by the rules of the API server."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from pipelines.kubeflow.conformance import PINNED_IMAGE, check_package
from pipelines.recipes import Recipe
from pipelines.refresh import items_recipe
from pipelines.runs.process import pipeline_factory
from pipelines.steps import STEPS
from rankline.errors import UsageError
from rankline.runtime.steps import Flow


def compile_flow(recipe: Recipe, output: Path, *, schedule: dict[str, Any] | None = None, flow: Flow = "train") -> Path:
    """Compile a ``flow`` of ``recipe`` into ``output``, a YAML file.

    With a ``schedule`` the data window is the scheduled one.

    Raises:
        UsageError: an image is not pinned by digest, or the package breaks a rule of the API server.
    """
    from kfp import compiler

    for name, image in recipe.cluster.images.model_dump().items():
        if not PINNED_IMAGE.match(image):
            raise UsageError(
                f"the {name} image is not pinned",
                expected="registry/name@sha256:…",
                found=image or "no image",
                hint=f"--set cluster.images.{name}=registry/name@sha256:…",
            )
    if (variable := recipe.ingest.hash_users) and variable not in recipe.cluster.secrets:
        raise UsageError(
            "the key that hashes the ids of users does not reach the steps",
            expected=f"cluster.secrets.{variable}",
            found="no such secret",
            hint=f"--set cluster.secrets.{variable}=rankline-ids/key; `rankline cluster secrets` prints the secret",
        )
    if recipe.cluster.train.nodes > 1 and flow == "train":
        raise UsageError(
            "a step of Kubeflow Pipelines is one pod on one node",
            expected="cluster.train.nodes=1; one node trains on all its GPUs with finetune.processes=0",
            found=str(recipe.cluster.train.nodes),
            hint="`python -m pipelines.kubeflow.trainjob` writes a job for Kubeflow Trainer: docs/training.md",
        )
    if output.suffix not in (".yaml", ".yml"):
        raise UsageError("the package is YAML", expected="a name ending in .yaml", found=str(output))
    recipe = _with_gpu_counts(_without_unused_volume(recipe))
    effective_recipe = items_recipe(recipe) if flow == "refresh" else recipe
    pipeline_function = pipeline_factory(flow)(
        effective_recipe, workspace=recipe.cluster.workspace, cluster=True, schedule=schedule
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:  # the compiler requires a name that ends in .yaml
        partial = Path(folder) / "flow.yaml"
        compiler.Compiler().compile(pipeline_function, str(partial))
        check_package(partial)
        partial.replace(output)
    return output


def _without_unused_volume(recipe: Recipe) -> Recipe:
    """The recipe without a volume where the steps share a bucket."""
    if not recipe.storage.workspace:
        return recipe
    return dataclasses.replace(recipe, cluster=recipe.cluster.model_copy(update={"volume": ""}))


def _with_gpu_counts(recipe: Recipe) -> Recipe:
    """The recipe with the GPUs of each step in the settings of the summary, which computes their cost."""
    gpus = {step: getattr(recipe.cluster, spec.size).gpus for step, spec in STEPS.items()}
    for step in [name for name, spec in STEPS.items() if spec.trains]:
        if getattr(recipe, step).device == "cuda" and not gpus[step]:
            raise UsageError(
                f"{step} trains on cuda, and no GPU is requested",
                expected="cluster.train.gpus of 1 or more",
                found=str(gpus[step]),
                hint=f"--set cluster.train.gpus=1, or --set {step}.device=auto",
            )
    gpu_counts = {step: number for step, number in gpus.items() if number}
    return dataclasses.replace(recipe, summary=recipe.summary.model_copy(update={"gpus": gpu_counts}))
