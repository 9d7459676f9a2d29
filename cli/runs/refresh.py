"""Refresh the champion's catalogue: new items, prices, stock and takedowns, without training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from cli.options import WORKSPACE, AsJson, MapFile, RecipeName, Settings, SourcePath, Workspace

HELP = """Give the champion a newer catalogue: changed items are embedded, checked and published; nothing is trained.

The items are the recipe's own, or those of --items, read by the recipe's settings. An item replaces the one of its
id; one that is not available (the source's column for that) is in no answer any more. --only says that the items
tell a few columns alone, so that the rest stays as it is, also where a cell is empty: prices and stock, say. The
recipe's own table of items is all there is: what is in it no longer is taken out (--no-whole leaves it in). Those of
--items are changes, of which the last row of an id counts; --whole says that they are all there are. A row that cannot
be read is set aside, counted, and its item stays as it was. Servers change over to what is published by themselves.
Exit code: 0 published, or nothing had changed; 3 refused by a check, and nothing changes; 2 wrong usage; 1 failed;
130 interrupted or cancelled.

Example: rankline refresh --recipe shop --items prices.csv --only price,available"""


def refresh(
    recipe: RecipeName = "movielens",
    items: Annotated[
        str | None,
        typer.Option(
            help="Changed items: a file, pattern, folder or URL that looks like the recipe's own; for sql a query."
        ),
    ] = None,
    only: Annotated[
        str, typer.Option(help="All that these items tell, with commas: title,text,category,language,price,available.")
    ] = "",
    whole: Annotated[
        bool | None,
        typer.Option(
            "--whole/--no-whole",
            help="These items are all there are: take the others out. So by default without --items.",
        ),
    ] = None,
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006 (typer reads the default, nobody changes it)
    workspace: Workspace = WORKSPACE,
    runner: Annotated[
        Literal["local", "docker"],
        typer.Option(help="Where steps run: processes here, or the images of `rankline build` in a Docker engine."),
    ] = "local",
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from cli.options import require_workspace
    from cli.runs.run import fetch_assets, run_and_report
    from pipelines.recipes import named
    from pipelines.refresh import refresh as run_refresh

    chosen = named(recipe, settings, source=source, map=map)
    workspace = require_workspace(workspace).resolve()
    columns = [name.strip() for name in only.split(",") if name.strip()]
    if items is None:
        fetch_assets(chosen, workspace, as_json=as_json)
    run_and_report(
        lambda watch: run_refresh(
            chosen, workspace, items=items, only=columns, whole=whole, watch=watch, runner=runner
        ),
        f"{chosen.name}-refresh",
        workspace,
        as_json,
        extra_lines=item_count_lines,
    )


def item_count_lines(summary: dict[str, Any]) -> list[str]:
    """What became of the items, and of the catalogue, where there is one."""
    result = next((step["result"] for step in summary["steps"] if step["step"] == "catalogue"), {})
    if "counts" not in result:
        return []
    counts = {name.replace("_", " "): count for name, count in result["counts"].items() if name != "items"}
    lines = ["items: " + ", ".join(f"{count} {name}" for name, count in counts.items())]
    if "revision" in result:
        lines.append(
            f"revision {result['revision']}: {result['items']} items, {result['embedded']} texts read anew, "
            f"index {result['index']} with recall {result['index_recall@100']:.3f}"
        )
    return lines
