"""The process in which Kubeflow's local runners execute a flow.

    python -m pipelines.runs.process RECIPE WORKSPACE RUNNER FLOW

RUNNER is `local` (each step is a child process) or `docker` (each step is a container, pipelines/runs/containers.py);
FLOW is train, refresh or features. The process ends with all its steps when its standard input closes, so it does not
outlive the process that started it.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    """Run the recipe in the given file; returns 0 if every step that ran has succeeded."""
    from kfp import local
    from pydantic import TypeAdapter

    from pipelines.recipes import Recipe

    inspect.stack = functools.partial(inspect.stack, 0)  # Kubeflow calls it for every setting, with the source around
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    recipe_file, workspace, runner, flow = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    recipe = TypeAdapter(Recipe).validate_python(json.loads(recipe_file.read_text()))
    local.init(
        runner=_docker_runner(recipe, workspace, recipe_file.parent) if runner == "docker" else _subprocess_runner(),
        pipeline_root=str(recipe_file.parent / "artifacts"),
        raise_on_error=True,
    )
    pipeline_factory(flow)(recipe, workspace=str(workspace))()
    return 0


def pipeline_factory(name: str) -> Callable[..., Callable[..., Any]]:
    """The function that makes the Kubeflow pipeline of a flow out of a recipe."""
    from pipelines.features import features_pipeline
    from pipelines.refresh import refresh_pipeline
    from pipelines.training import training_pipeline

    return {"train": training_pipeline, "refresh": refresh_pipeline, "features": features_pipeline}[name]


def _subprocess_runner() -> Any:
    from kfp import local

    return local.SubprocessRunner(use_venv=False)


def _docker_runner(recipe: Any, workspace: Path, run: Path) -> Any:
    from pipelines.runs import containers

    signal.signal(signal.SIGTERM, _terminate)
    return containers.install_step_containers(containers.ContainerContext(recipe, workspace, run))


def _terminate(number: int, frame: Any) -> None:
    """End in order, so that a running container is removed; further signals are ignored."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _exit_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is written there: this returns when the other end closes
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
