"""Refresh the champion's catalogue: new items, prices and stock, without training."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.options import (
    WORKSPACE,
    AsJson,
    MapFile,
    RecipeName,
    Runner,
    Settings,
    SourcePath,
    Workspace,
    require_workspace,
)


def refresh(
    recipe: RecipeName = "movielens",
    items: Annotated[
        str | None,
        typer.Option(
            help="Changed items: a file, pattern, folder or URL with the recipe's own columns; for sql a query."
        ),
    ] = None,
    only: Annotated[
        str,
        typer.Option(
            help="The only columns of these items, with commas: title,text,category,language,price,available."
        ),
    ] = "",
    whole: Annotated[
        bool | None,
        typer.Option(
            "--whole/--no-whole",
            help="These items are the whole catalogue: remove all others. Default: only without --items.",
        ),
    ] = None,
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006 (typer does not change a default)
    workspace: Workspace = WORKSPACE,
    runner: Runner = "local",
    as_json: AsJson = False,
) -> None:
    """Refresh the champion's catalogue: changed items are embedded, checked and published; nothing is trained.

    The items are the recipe's own table, or those of --items, read with the recipe's settings. An item replaces the one
    with the same id. An item that is not available (by the source's column for that) is no longer recommended.

    The recipe's own table is complete: items that are no longer in it are removed, unless --no-whole is given. The
    items of --items are changes, and the last row of an id counts; --whole says that they are complete. --only names
    the columns that these items have, such as prices and stock; all other columns stay as they are.

    A row that cannot be read is rejected and counted, and its item stays as it was. Servers swap to what is published
    by themselves.

    Exit code: 0 published, or nothing changed; 3 refused by a check, and nothing changes; 2 wrong usage; 1 failed;
    4 another model or catalogue came to serve meanwhile; 130 interrupted or cancelled.

    Example: rankline refresh --recipe shop --items prices.csv --only price,available
    """
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
        extra_lines=_catalogue_lines,
    )


def _catalogue_lines(summary: dict[str, Any]) -> list[str]:
    """What happened to the items, and the revision that was published, if there is one."""
    result: dict[str, Any] = next((step["result"] for step in summary["steps"] if step["step"] == "catalogue"), {})
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
