"""Run one step alone, through the component that the pipeline runs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines.recipe import Recipe, run_parameters, step_settings
from pipelines.runs.folder import new_run_folder
from pipelines.steps import component_module
from rankline.runtime import ledger
from rankline.runtime.run_context import RunContext


def run_single_step(
    step: str,
    recipe: Recipe,
    folders: Mapping[str, Path],
    *,
    workspace: Path,
    run_folder: Path | None = None,
    champion: str | None = None,
) -> Path:
    """Run a step on these folders (artifact -> folder), in a run of its own or that of ``run_folder``; returns it.

    ``champion`` takes the place of the one that serves, empty for none.

    Raises:
        StepStopped: the step failed.
    """
    component = importlib.import_module(component_module(step, "component"))
    function: Any = getattr(component, step).python_func
    run_folder = run_folder or new_run_folder(workspace, f"{recipe.name}-{step}")
    run = run_parameters(recipe, str(workspace))
    config = step_settings(recipe, str(workspace))[step]
    # in the pipeline resolve_inputs and the recipe provide these
    providers: dict[str, Callable[[], Any]] = {
        "source_digest": lambda: _source_digest(config),
        "prices": lambda: step_settings(recipe, str(workspace))["summary"],
        "champion": lambda: (
            champion if champion is not None else _champion(RunContext.from_parameters(run, run_folder.name).repository)
        ),
    }
    parameters = inspect.signature(function).parameters
    resolved = {name: provide() for name, provide in providers.items() if name in parameters}
    artifacts: dict[str, Any] = {name: SimpleNamespace(path=str(path.resolve())) for name, path in folders.items()}
    artifacts |= {name: artifact for name, artifact in _shown_artifacts(run_folder).items() if name in parameters}
    try:
        function(config=config, run=run, job=run_folder.name, **resolved, **artifacts)
    except SystemExit as stop:
        code = ledger.read_entries(run_folder)[step].exit_code or 1
        raise StepStopped(str(stop.code), code) from stop
    return run_folder


def _shown_artifacts(run_folder: Path) -> dict[str, Any]:
    """Where a step leaves what the page of a run in Kubeflow shows: nobody looks at a step that runs alone there."""
    from kfp.dsl import HTML, Metrics

    return {"metrics": Metrics(uri=str(run_folder / "metrics")), "page": HTML(uri=str(run_folder / "page.html"))}


class StepStopped(Exception):
    """A step that ran alone failed; ``exit_code`` is that of the command."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _source_digest(config: dict[str, Any]) -> str:
    from components.ingest.config import IngestConfig
    from rankline.io import sources

    return sources.source_digest(IngestConfig(**config))


def _champion(repository: str) -> str:
    from rankline.registry.model_registry import ModelRegistry

    return ModelRegistry(repository).champion()
