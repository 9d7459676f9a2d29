"""Run one step alone, through the very door that the flow opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from cli.options import WORKSPACE, MapFile, RecipeName, Settings, SourcePath, Workspace
from pipelines.steps import STANDALONE_STEPS, component_module

app = typer.Typer(help="Run one step alone, on folders that you name.", no_args_is_help=True)


def run_single_step(
    name: str,
    folders: dict[str, Path],
    recipe: str,
    settings: list[str],
    workspace: Path,
    *,
    source: str | None = None,
    map: str | None = None,
) -> None:
    """Open a step's door on these folders and print what it found."""
    import importlib
    import json

    from pipelines.recipe import step_settings, storage_settings
    from pipelines.recipes import named
    from pipelines.runs.folder import new_run_folder
    from rankline.runtime import ledger
    from rankline.runtime.run_context import RunContext

    workspace = workspace.resolve()
    chosen = named(recipe, settings, source=source, map=map)
    door: Any = getattr(importlib.import_module(component_module(name, "component")), name).python_func
    run_folder = new_run_folder(workspace, f"{chosen.name}-{name}")
    run = {
        "workspace": str(workspace),
        "recipe": chosen.name,
        "catalogue": chosen.export.catalogue,
        **storage_settings(chosen, str(workspace)),
    }
    config = step_settings(chosen, str(workspace))[name]
    # outside the flow nobody has looked beforehand, so a step that asks is told now
    providers: dict[str, Callable[[], str]] = {
        "source_digest": lambda: _source_digest(config),
        "champion": lambda: _champion(RunContext.from_parameters(run, run_folder.name).repository),
    }
    parameters = door.__code__.co_varnames[: door.__code__.co_argcount]
    resolved = {key: ask() for key, ask in providers.items() if key in parameters}
    artifacts = {key: SimpleNamespace(path=str(path.resolve())) for key, path in folders.items()}
    try:
        door(config=config, run=run, job=run_folder.name, **resolved, **artifacts)
    except SystemExit as stop:
        typer.secho(str(stop.code), fg=typer.colors.RED, err=True)
        raise typer.Exit(ledger.read_entries(run_folder)[name].exit_code or 1) from stop
    entry = ledger.read_entries(run_folder)[name]
    typer.echo(f"{name} {entry.status} in {entry.seconds:.1f} s: {entry.why}")
    typer.echo(json.dumps(entry.result, indent=2, default=str))


def _source_digest(config: dict[str, Any]) -> str:
    from components.ingest.config import IngestConfig
    from rankline.io import sources

    return sources.source_digest(IngestConfig(**config))


def _champion(repository: str) -> str:
    from rankline.registry.model_registry import ModelRegistry

    return ModelRegistry(repository).champion()


def _make_command(name: str) -> Callable[..., None]:
    """A command with one option a folder; typer reads the options off the signature."""
    import inspect

    spec = STANDALONE_STEPS[name]

    def command(**values: Any) -> None:
        folders = {key: values[key] for key in (*spec.inputs, *spec.outputs)}
        run_single_step(
            name, folders, values["recipe"], values["settings"], values["workspace"],
            source=values["source"], map=values["map"],
        )  # fmt: skip

    keyword = inspect.Parameter.KEYWORD_ONLY
    folder_options = [
        inspect.Parameter(key, keyword, annotation=Annotated[Path, typer.Option(f"--{key}", help=sentence)])
        for key, sentence in (
            *((key, f"Folder to read: {_origin(key, *source)}.") for key, source in spec.inputs.items()),
            *((key, "Folder to write.") for key in spec.outputs),
        )
    ]
    shared_options = [
        inspect.Parameter("recipe", keyword, default="movielens", annotation=RecipeName),
        inspect.Parameter("source", keyword, default=None, annotation=SourcePath),
        inspect.Parameter("map", keyword, default=None, annotation=MapFile),
        inspect.Parameter("settings", keyword, default=[], annotation=Settings),
        inspect.Parameter("workspace", keyword, default=WORKSPACE, annotation=Workspace),
    ]
    command.__signature__ = inspect.Signature(folder_options + shared_options)  # type: ignore[attr-defined]
    command.__doc__ = (
        f"{spec.command}\n\nIts knobs: `rankline recipes show movielens` under `{name}`, "
        f"changed with --set {name}.knob=value."
    )
    return command


def _origin(name: str, step: str, output: str) -> str:
    return f"what {step} wrote" if name == output else f"what {step} wrote (its --{output})"


for _name in STANDALONE_STEPS:
    app.command(_name)(_make_command(_name))
