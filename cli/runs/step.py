"""Run one step alone, on folders that you name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import WORKSPACE, MapFile, RecipeName, Settings, SourcePath, Workspace
from pipelines.steps import STANDALONE_STEPS

app = typer.Typer(help="Run one step alone, on folders that you name.", no_args_is_help=True)


def _run_step(step: str, values: dict[str, Any]) -> None:
    """Run a step with the values of the command's options, and print its result."""
    from pipelines.recipes import named
    from pipelines.runs.single_step import StepStopped, run_single_step
    from rankline.runtime import ledger

    spec = STANDALONE_STEPS[step]
    recipe = named(values["recipe"], values["settings"], source=values["source"], map=values["map"])
    folders = {name: values[name] for name in (*spec.inputs, *spec.outputs)}
    try:
        run_folder = run_single_step(step, recipe, folders, workspace=values["workspace"].resolve())
    except StepStopped as stopped:
        typer.secho(str(stopped), fg=typer.colors.RED, err=True)
        raise typer.Exit(stopped.exit_code) from stopped
    entry = ledger.read_entries(run_folder)[step]
    typer.echo(f"{step} {entry.status} in {entry.seconds:.1f} s: {entry.why}")
    typer.echo(json.dumps(entry.result, indent=2, default=str))


def _make_command(step: str) -> Callable[..., None]:
    """A command with one option per folder; typer reads the options from the signature."""
    spec = STANDALONE_STEPS[step]

    def command(**values: Any) -> None:
        _run_step(step, values)

    def parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    helps = {name: f"Folder to read: {_origin(name, *source)}." for name, source in spec.inputs.items()}
    helps |= dict.fromkeys(spec.outputs, "Folder to write.")
    folders = [parameter(name, Annotated[Path, typer.Option(f"--{name}", help=text)]) for name, text in helps.items()]
    shared = [
        parameter("recipe", RecipeName, "movielens"),
        parameter("source", SourcePath, None),
        parameter("map", MapFile, None),
        parameter("settings", Settings, []),
        parameter("workspace", Workspace, WORKSPACE),
    ]
    command.__signature__ = inspect.Signature(folders + shared)  # type: ignore[attr-defined]
    command.__doc__ = (
        f"{spec.command}\n\nIts settings: `rankline recipes show movielens {step}`; "
        f"change one with --set {step}.setting=value."
    )
    return command


def _origin(name: str, step: str, output: str) -> str:
    return f"what {step} wrote" if name == output else f"what {step} wrote (its --{output})"


for _name in STANDALONE_STEPS:
    app.command(_name)(_make_command(_name))
