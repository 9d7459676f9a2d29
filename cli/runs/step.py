"""Run one step alone, on folders that you name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import WORKSPACE, MapFile, RecipeName, Settings, SourcePath, Workspace

app = typer.Typer(help="Run one step alone, on folders that you name.", no_args_is_help=True)

# step -> (what it does, folders it reads, folders it writes)
STEPS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "ingest": ("Turn raw files into the canonical tables.", (), ("raw",)),
    "validate": ("Check the tables against their expectation suites.", ("raw",), ("clean", "report")),
    "featurize": ("Compute features and split requests.", ("clean",), ("features",)),
    "finetune": ("Train the teacher.", ("features",), ("teacher",)),
    "distill": ("Distill the student from a teacher.", ("features", "teacher"), ("student",)),
    "export": ("Write the model bundle of a student.", ("features", "student"), ("bundle",)),
    "evaluate": (
        "Evaluate a bundle through the real server.",
        ("bundle", "features", "teacher", "student"),
        ("report",),
    ),
    "decide": (
        "Register a bundle and write the verdict of the gates.",
        ("bundle", "evaluation", "teacher"),
        ("verdict",),
    ),
    "promote": ("Make a bundle the champion.", ("bundle", "evaluation", "verdict", "features"), ()),
}
# artifact -> the step that writes it
WRITTEN_BY = {
    "raw": "ingest", "clean": "validate", "features": "featurize", "teacher": "finetune", "student": "distill",
    "bundle": "export", "evaluation": "evaluate (its --report)", "verdict": "decide",
}  # fmt: skip


def _run_step(step: str, values: dict[str, Any]) -> None:
    """Run a step with the values of the command's options, and print its result."""
    from pipelines.recipes import named
    from pipelines.runs.single_step import StepStopped, run_single_step
    from rankline.runtime import ledger

    _, inputs, outputs = STEPS[step]
    recipe = named(values["recipe"], values["settings"], source=values["source"], map=values["map"])
    folders = {name: values[name] for name in (*inputs, *outputs)}
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
    sentence, inputs, outputs = STEPS[step]

    def command(**values: Any) -> None:
        _run_step(step, values)

    def parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    helps = {name: f"Folder to read: the output of {WRITTEN_BY[name]}." for name in inputs}
    helps |= dict.fromkeys(outputs, "Folder to write.")
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
        f"{sentence}\n\nIts settings: `rankline recipes show movielens {step}`; "
        f"change one with --set {step}.setting=value."
    )
    return command


for _name in STEPS:
    app.command(_name)(_make_command(_name))
