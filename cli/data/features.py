"""The champion's features between promotions: materialize newer ones, and show how fresh they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    WORKSPACE,
    AsJson,
    MapFile,
    ReadWorkspace,
    RecipeName,
    RepositoryUrl,
    Runner,
    Settings,
    SourcePath,
    Workspace,
    repository_of,
    require_workspace,
)

if TYPE_CHECKING:
    from pipelines.runs.freshness import Freshness

app = typer.Typer(
    help="Keep the champion's features fresh between promotions, and show how fresh they are.", no_args_is_help=True
)


@app.command("materialize")
def materialize(
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006 (typer does not change a default)
    until: Annotated[
        str | None,
        typer.Option(help="End of the data window, such as 2026-01-31T03:00Z. Default: the recipe's own."),
    ] = None,
    workspace: Workspace = WORKSPACE,
    runner: Runner = "local",
    as_json: AsJson = False,
) -> None:
    """Ingest, validate and featurize a recipe's data, and materialize the features into the champion's online store.

    The store only gets newer rows, never other definitions. A store with a later watermark stays as it is.

    Exit code: 0 done, or nothing newer; 2 there is no champion, or it reads another version; 1 failed.

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
        typer.Option(help="Exit with 1 if the watermark of what the champion reads is older than 90s, 30m, 2h, 1d."),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(help="The same for the last materialization (a quiet night has no newer data)."),
    ] = None,
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Show every feature service that is online: whether the champion reads it, who updated it, and how old it is.

    Exit code: 0; 1 if --max-lag or --max-age is exceeded, or the champion's features are not online at all.

    Example: rankline features status --max-lag 2h
    """
    from pipelines.runs.freshness import freshness, parse_duration_s

    limits = {
        "lag": parse_duration_s(max_lag) if max_lag else None,
        "age": parse_duration_s(max_age) if max_age else None,
    }
    workspace = require_workspace(workspace, "online", "runs", suffixes=("watermark.json", "ingest.json"))
    services = freshness(workspace, repository=repository or repository_of(workspace), now=datetime.now(UTC))
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
    from cli.formats import aligned_lines, format_age, format_duration

    header = ("service", "champion reads it", "owner", "watermark (UTC)", "behind now", "behind the data", "took")
    rows = [(*header, "entities")]
    for each in services:
        owner = f"{each.owner}, {format_age(each.age_s)} ago" if each.age_s is not None else each.owner or "unknown"
        state = "damaged" if each.damaged else "not online"
        rows.append(
            (
                each.service,
                "yes" if each.champion_reads else "no",
                owner,
                each.watermark[:19].replace("T", " ") or state,
                "" if each.lag_s is None else format_age(each.lag_s),
                "" if each.behind_data_s is None else format_age(each.behind_data_s),
                "" if each.took_s is None else format_duration(each.took_s),
                str(each.rows),
            )
        )
    return aligned_lines(rows) + [
        f"{each.service} is being written by {each.writer}" for each in services if each.writer
    ]


def _parse_instant(text: str) -> datetime:
    from rankline.errors import UsageError

    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time", expected="2026-01-31T03:00Z", found=text) from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
