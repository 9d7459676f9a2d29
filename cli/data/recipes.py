"""What recipes there are, and every knob of one."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import AsJson, MapFile, Settings, SourcePath

app = typer.Typer(help="List recipes, or show every knob of one.", invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context) -> None:
    """List recipes, or show every knob of one."""
    if context.invoked_subcommand is None:
        from pipelines.recipes import RECIPES, needs_source
        from pipelines.recipes import load_for_display as shown_recipe

        for name in RECIPES:
            more = " Needs --source." if needs_source(name) else ""
            typer.echo(f"{name:<12} {shown_recipe(name).description}{more}")
        typer.echo("\n`rankline recipes show NAME` prints every knob; your own: --recipe module:function")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or module:function.")],
    section: Annotated[str, typer.Argument(help="Only this section, such as finetune or cluster.train.")] = "",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Print every knob of a recipe, or of one of its sections: its value and its sentence."""
    from pipelines.recipe import as_dict, list_settings
    from pipelines.recipes import load_for_display as shown_recipe

    recipe = shown_recipe(name, settings, source=source, map=map)
    selected = [each for each in list_settings(recipe) if not section or f"{each[0]}.".startswith(f"{section}.")]
    if not selected:
        _refuse_section(section, [setting for setting, *_ in list_settings(recipe)])
    if as_json:
        import json

        payload = as_dict(recipe)
        for part in section.split(".") if section else ():
            payload = payload[part]
        typer.echo(json.dumps(payload, indent=2))
        return
    shown = ""
    for setting, value, sentence in selected:
        if (section_name := setting.split(".")[0]) != shown:
            shown = section_name
            typer.secho(f"\n{section_name}", bold=True)
        typer.echo(f"  {setting} = {value!r}\n      {sentence}")


def _refuse_section(section: str, setting_names: list[str]) -> None:
    import difflib

    from rankline.errors import UsageError

    known = list(dict.fromkeys(setting.split(".")[0] for setting in setting_names))
    close = difflib.get_close_matches(section, [*known, *setting_names], n=1)
    raise UsageError(
        f"the recipe has no section {section!r}",
        expected="one of " + ", ".join(known),
        found=section,
        hint=f"did you mean {close[0]!r}?" if close else "leave it out to see every knob",
    )
