"""Free disk space: remove what nothing needs any more."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.formats import format_bytes
from cli.options import WORKSPACE, AsJson, RepositoryUrl, Workspace, require_workspace

if TYPE_CHECKING:
    from pipelines.retention.policy import Decision, Keep, Plan


Runs = Annotated[int | None, typer.Option("--keep-runs", min=1, help="Number of latest runs to keep (20).")]
Bundles = Annotated[
    int | None,
    typer.Option("--keep-bundles", min=2, help="Number of champions to keep: the current one and those before it (5)."),
]
Catalogues = Annotated[
    int | None,
    typer.Option("--keep-catalogues", min=1, help="Number of published catalogue revisions to keep per model (5)."),
]
Days = Annotated[
    float | None, typer.Option("--keep-days", min=0, help="Keep everything that is younger than this many days (7).")
]


def gc(
    keep_runs: Runs = None,
    keep_bundles: Bundles = None,
    keep_catalogues: Catalogues = None,
    keep_days: Days = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    every: Annotated[
        bool, typer.Option("--list", help="List every single item, and why it is kept or removed.")
    ] = False,
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Remove what nothing needs any more: old runs, cached results, models no longer kept for rollback, leftovers.

    It shows what would be removed and asks; --yes does not ask, --dry-run only shows. The champion, the models it can
    be rolled back to, running runs, models that wait for review, and the history of every model are always kept.

    Exit code: 0 done, nothing to do, or the answer was no; 2 wrong usage, or there is no terminal to ask in.

    Example: rankline gc --keep-runs 10 --keep-days 3 --dry-run
    """
    from pipelines.retention.inventory import repository_of
    from pipelines.retention.sweep import plan_sweep

    workspace = require_workspace(workspace).resolve()
    keep = _keep(runs=keep_runs, bundles=keep_bundles, catalogues=keep_catalogues, days=keep_days)
    repository = repository or repository_of(workspace)
    plan = plan_sweep(workspace, keep, repository=repository)
    if as_json:
        _sweep_as_json(plan, workspace, repository, only_show=dry_run or not yes)
        return
    if repository:
        typer.echo(f"models: {repository}")
    _print_plan(plan, every=every)
    if not dry_run and plan.removals and (yes or _confirmed(plan)):
        result = _sweep(plan, workspace, repository, as_json=False)
        typer.echo(f"removed {len(result.removed)} items: {format_bytes(result.freed)} are free again")


def _keep(**limits: float | None) -> Keep:
    from pydantic import ValidationError

    from pipelines.retention.policy import Keep
    from rankline.errors import UsageError

    try:
        return Keep.model_validate({name: value for name, value in limits.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"--keep-{first['loc'][0]} cannot be {first['input']}", expected=first["msg"], found=str(first["input"])
        ) from error


def _sweep_as_json(plan: Plan, workspace: Path, repository: str, *, only_show: bool) -> None:
    from pipelines.retention.policy import plan_as_dict

    payload = plan_as_dict(plan)
    if only_show:
        payload |= {"removed": False}
    elif not plan.removals:
        payload |= {"removed": True, "stayed": []}
    else:
        result = _sweep(plan, workspace, repository, as_json=True)
        stayed = [{"kind": f.resource.kind, "name": f.resource.name, "why": f.why} for f in result.skipped]
        payload |= {"removed": True, "stayed": stayed, "bytes_freed": result.freed}
    typer.echo(json.dumps(payload, indent=2))


def _sweep(plan: Plan, workspace: Path, repository: str, *, as_json: bool) -> Any:
    from pipelines.retention.sweep import sweep

    return sweep(workspace, plan, repository=repository, say=lambda line: typer.echo(line, err=as_json))


def _confirmed(plan: Plan) -> bool:
    """Whether the user agrees."""
    from rankline.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was removed: there is no terminal to ask in",
            expected="--yes, or a terminal",
            hint="`rankline gc --yes` removes what is shown above",
        )
    try:
        confirmed = typer.confirm(f"remove {len(plan.removals)} items, {format_bytes(plan.freed())}?")
    except typer.Abort:  # Ctrl-C, or the end of the input
        typer.echo("")
        confirmed = False
    if not confirmed:
        typer.echo("nothing was removed")
    return confirmed


def _print_plan(plan: Plan, *, every: bool) -> None:
    """Print what is kept and removed of each kind, the bytes this frees, and why."""
    from cli.formats import aligned_lines
    from pipelines.retention.resources import KINDS

    rows = [("", "kept", "removed", "frees", "why")]
    for kind in KINDS:
        if decisions := [each for each in plan.decisions if each.resource.kind == kind]:
            rows += _kind_rows(kind, decisions, plan.freed([kind]))
    for line in aligned_lines(rows, right=[1, 2, 3]):
        typer.echo(line)
    for each in plan.decisions if every else ():
        marker, resource = "removed" if each.remove else "kept", each.resource
        typer.echo(f"{marker:<7}  {resource.kind:<10} {resource.name}  {format_bytes(resource.bytes)}  {each.why}")
    for line in plan.ignored:
        typer.echo(f"left alone: {line}")
    if plan.removals:
        typer.echo(f"{len(plan.removals)} items would be removed and free {format_bytes(plan.freed())}")
    else:
        typer.echo("nothing to remove: everything here is needed or recent")


def _kind_rows(kind: str, decisions: Sequence[Decision], freed: int) -> Iterator[tuple[str, str, str, str, str]]:
    """The rows of one kind: its numbers beside the first reason, then the other reasons."""
    removed = [each for each in decisions if each.remove]
    keep_reason = Counter(_without_names(each.why) for each in decisions if not each.remove)
    why_removed = Counter(_without_names(each.why) for each in removed)
    reasons = [f"{count} kept: {why}" for why, count in keep_reason.most_common(3)]
    reasons += [f"{count} removed: {why}" for why, count in why_removed.most_common(2)]
    frees = format_bytes(freed) if removed else ""
    yield kind, str(len(decisions) - len(removed)), str(len(removed)), frees, reasons[0]
    yield from (("", "", "", "", reason) for reason in reasons[1:])


def _without_names(why: str) -> str:
    """A reason without the names of runs, models and events in it, so that equal reasons are counted together."""
    return re.sub(r"\b(\d{8}-\d{6}-[\w-]+|[0-9a-f]{16,64})\b", "…", re.sub(r"\bevent \d+\b", "an event", why))
