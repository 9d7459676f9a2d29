"""What recipes there are, and every knob of one."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import AsJson, Settings

app = typer.Typer(help="List recipes, or show every knob of one.", invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context) -> None:
    """List recipes, or show every knob of one."""
    if context.invoked_subcommand is None:
        from pipelines.recipes import RECIPES

        for name, make in RECIPES.items():
            typer.echo(f"{name:<12} {make().description}")
        typer.echo("\n`rankline recipes show NAME` prints every knob; your own: --recipe module:function")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or module:function.")],
    settings: Settings = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Print every knob of a recipe: its value and its sentence."""
    from pipelines.recipes import as_dict, knobs, named

    recipe = named(name, settings)
    if as_json:
        import json

        typer.echo(json.dumps(as_dict(recipe), indent=2))
        return
    section = ""
    for knob, value, sentence in knobs(recipe):
        if (head := knob.split(".")[0]) != section:
            section = head
            typer.secho(f"\n{section}", bold=True)
        typer.echo(f"  {knob} = {value!r}\n      {sentence}")
