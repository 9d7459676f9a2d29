"""What a command does after it wrote an event: MLflow and the recipe's receivers hear of it, after the user has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rankline.registry.model_registry import ModelRegistry
    from rankline.registry.registry_state import Event


def announce(workspace: Path, models: ModelRegistry, event: Event) -> None:
    """Announce an event as the runs of the workspace would; a failure is a warning, since the event stands."""
    from cli.bucket_copy import bucket_of
    from pipelines.runs.announcing import announcer_of
    from rankline.errors import RanklineError
    from rankline.io.files import first_line

    sys.stdout.flush()  # the result first: MLflow takes seconds
    try:
        if (bucket := bucket_of(workspace)) is not None:
            bucket.download("runs", suffixes=("recipe.json",))
        announcer = announcer_of(workspace.resolve(), models, event.model_id)
        warnings = announcer.announce(models, event.model_id, [event]).warnings if announcer else ()
    except (RanklineError, OSError) as error:
        warnings = (f"MLflow is not up to date: {first_line(error)}; `rankline sync` mends it later",)
    for warning in warnings:
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
