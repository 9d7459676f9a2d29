"""The champion's features between promotions: bring newer ones online, and see how fresh they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import (
    WORKSPACE,
    AsJson,
    MapFile,
    RecipeName,
    RepositoryUrl,
    Settings,
    SourcePath,
    Workspace,
    require_workspace,
)

if TYPE_CHECKING:
    from pipelines.runs.freshness import Freshness

app = typer.Typer(
    help="Keep the champion's features fresh between promotions, and see how fresh they are.", no_args_is_help=True
)


@app.command("materialize")
def materialize(
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006 (typer reads the default, nobody changes it)
    until: Annotated[
        str | None,
        typer.Option(help="End of the data window, such as 2026-01-31T03:00Z; the recipe's own if left out."),
    ] = None,
    workspace: Workspace = WORKSPACE,
    runner: Annotated[
        Literal["local", "docker"], typer.Option(help="Where steps run, as in `rankline run`.")
    ] = "local",
    as_json: AsJson = False,
) -> None:
    """Ingest, validate and featurize a recipe's data, and bring the features online for the champion.

    What the champion reads only gets newer rows, never other definitions; a store that knows more already stays as
    it is. Exit code: 0 done, or nothing newer; 2 there is no champion, or it reads another version; 1 failed.

    Example: rankline features materialize -r mine:mine --until 2026-11-22T14:00Z
    """
    from cli.runs.run import fetch_assets, run_and_report
    from pipelines.features import materialize as run_features
    from pipelines.features import require_champion
    from pipelines.recipes import named

    chosen, end = named(recipe, settings, source=source, map=map), _parse_instant(until) if until else None
    workspace = require_workspace(workspace).resolve()
    require_champion(chosen, workspace)
    fetch_assets(chosen, workspace, as_json=as_json)
    run_and_report(
        lambda watch: run_features(chosen, workspace, until=end, watch=watch, runner=runner),
        chosen.name,
        workspace,
        as_json,
    )


@app.command("status")
def status(
    max_lag: Annotated[
        str | None,
        typer.Option(help="Exit code 1 where what the champion reads lags further behind now: 90s, 30m, 2h, 1d."),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(help="The same for how long ago it was brought online last (quiet nights have no news)."),
    ] = None,
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Every feature service that is online: who reads it, who saw to it last, and how far it is behind.

    Exit code: 0; 1 where --max-lag or --max-age is exceeded, or the champion's features are not online at all.

    Example: rankline features status --max-lag 2h
    """
    from pipelines.runs.freshness import freshness, parse_duration_s

    limits = {
        "lag": parse_duration_s(max_lag) if max_lag else None,
        "age": parse_duration_s(max_age) if max_age else None,
    }
    services = freshness(require_workspace(workspace).resolve(), repository=repository, now=datetime.now(UTC))
    exceeded = [why for each in services if each.champion_reads for why in each.exceeds(**limits)]
    if as_json:
        typer.echo(json.dumps({"services": [each.model_dump() for each in services], "exceeded": exceeded}, indent=2))
    elif not services:
        typer.echo("no features are online yet: a promotion brings them there")
    else:
        typer.echo("\n".join(_table_lines(services)))
        for why in exceeded:
            typer.secho(why, fg=typer.colors.RED, err=True)
    raise typer.Exit(1 if exceeded else 0)


def _table_lines(services: list[Freshness]) -> list[str]:
    from cli.runs.progress import format_duration

    def span(seconds: float | None) -> str:
        return "" if seconds is None else _format_duration(seconds)

    header = ("service", "champion reads it", "owner", "watermark (UTC)", "behind now", "behind the data", "took")
    rows = [(*header, "entities")]
    for each in services:
        rows.append(
            (
                each.service,
                "yes" if each.champion_reads else "no",
                f"{each.owner}, {_format_duration(each.age_s)} ago"
                if each.age_s is not None
                else each.owner or "not told",
                each.watermark[:19].replace("T", " ") or ("damaged" if each.damaged else "not online"),
                span(each.lag_s),
                span(each.behind_data_s),
                format_duration(each.took_s) if each.took_s is not None else "",
                str(each.rows),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]
    return lines + [f"{each.service} is being written by {each.writer}" for each in services if each.writer]


def _format_duration(seconds: float) -> str:
    """A span as people say it: 45 s, 12 min, 3.5 h, 12 d."""
    if seconds < 0:
        return f"{_format_duration(-seconds)} ahead"
    for size, unit, until in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} h"
    return f"{seconds / 86_400:.0f} d"


def _parse_instant(text: str) -> datetime:
    from rankline.errors import UsageError

    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no moment", expected="2026-01-31T03:00Z", found=text) from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
