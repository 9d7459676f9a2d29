"""Give back the room that nothing needs any more."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Workspace, require_workspace

if TYPE_CHECKING:
    from pipelines.retention.policy import Plan

HELP = """Remove what nothing needs any more: old runs, their kept work, models nobody would go back to, leftovers.

It shows what would go and asks; --yes does not ask, --dry-run only shows. What serves, what it could be taken back to,
what goes on or waits for somebody, and the history of every model stay whatever is said here.
Exit code: 0 done, nothing to do, or the answer was no; 2 wrong usage, or there is nobody to ask.

Example: rankline gc --keep-runs 10 --keep-days 3 --dry-run"""

Runs = Annotated[int | None, typer.Option("--keep-runs", min=1, help="Latest runs that are kept (20).")]
Bundles = Annotated[
    int | None,
    typer.Option("--keep-bundles", min=2, help="Champions that are kept: the one that serves, those before it (5)."),
]
Catalogues = Annotated[
    int | None, typer.Option("--keep-catalogues", min=1, help="Published catalogue revisions of each kept model (5).")
]
Days = Annotated[
    float | None, typer.Option("--keep-days", min=0, help="Nothing that is younger than so many days goes (7).")
]


def gc(
    keep_runs: Runs = None,
    keep_bundles: Bundles = None,
    keep_catalogues: Catalogues = None,
    keep_days: Days = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    every: Annotated[bool, typer.Option("--list", help="Name every single thing, and why it goes or stays.")] = False,
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from pydantic import ValidationError

    from pipelines.retention import policy
    from pipelines.retention.inventory import repository_of
    from pipelines.retention.policy import Keep
    from pipelines.retention.sweep import plan_sweep, sweep
    from rankline.errors import UsageError

    workspace = require_workspace(workspace).resolve()
    given = {"runs": keep_runs, "bundles": keep_bundles, "catalogues": keep_catalogues, "days": keep_days}
    try:
        keep = Keep.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"--keep-{first['loc'][0]} cannot be {first['input']}", expected=first["msg"], found=str(first["input"])
        ) from error
    repository = repository or repository_of(workspace)
    plan = plan_sweep(workspace, keep, repository=repository)
    if not as_json:
        if repository:
            typer.echo(f"models: {repository}")
        _print_plan(plan, every=every)
    if dry_run or (as_json and not yes):
        if as_json:
            typer.echo(json.dumps({**policy.plan_as_dict(plan), "removed": False}, indent=2))
        return
    if not plan.removals:
        if as_json:
            typer.echo(json.dumps({**policy.plan_as_dict(plan), "removed": True, "stayed": []}, indent=2))
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "there is nobody to ask, and nothing was removed",
                expected="--yes, or a terminal",
                hint="`rankline gc --yes` removes what is told above",
            )
        if not _confirmed(f"remove {len(plan.removals)} things, {format_bytes(plan.freed())}?"):
            typer.echo("nothing was removed")
            return
    result = sweep(workspace, plan, repository=repository, say=lambda line: typer.echo(line, err=as_json))
    if as_json:
        stayed = [{"kind": f.resource.kind, "name": f.resource.name, "why": f.why} for f in result.skipped]
        told: dict[str, Any] = {
            **policy.plan_as_dict(plan),
            "removed": True,
            "stayed": stayed,
            "bytes_freed": result.freed,
        }
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo(f"removed {len(result.removed)} things: {format_bytes(result.freed)} are free again")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:  # Ctrl-C, or the end of the input
        typer.echo("")
        return False


def _print_plan(plan: Plan, *, every: bool) -> None:
    """A table: of each kind how many stay and go, the bytes that come free, and why."""
    from collections import Counter

    from pipelines.retention.resources import KINDS

    rows = [("", "kept", "goes", "frees", "why")]
    for kind in KINDS:
        fates = [fate for fate in plan.decisions if fate.resource.kind == kind]
        if not fates:
            continue
        going = [fate for fate in fates if fate.remove]
        kept = Counter(_without_names(fate.why, fate.resource.name) for fate in fates if not fate.remove)
        gone = Counter(_without_names(fate.why, fate.resource.name) for fate in going)
        why = [f"{count} kept: {reason}" for reason, count in kept.most_common(3)]
        why += [f"{count} go{'es' * (count == 1)}: {reason}" for reason, count in gone.most_common(2)]
        frees = format_bytes(plan.freed([kind])) if going else ""
        rows.append((kind, str(len(fates) - len(going)), str(len(going)), frees, why[0]))
        rows += [("", "", "", "", line) for line in why[1:]]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        first = f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        typer.echo(f"{first}  {row[4]}".rstrip())
    for fate in plan.decisions if every else ():
        marker = "goes" if fate.remove else "kept"
        typer.echo(
            f"{marker}  {fate.resource.kind:<10} {fate.resource.name}  {format_bytes(fate.resource.bytes)}  {fate.why}"
        )
    for line in plan.ignored:
        typer.echo(f"left alone: {line}")
    if plan.removals:
        typer.echo(f"{len(plan.removals)} things would go and free {format_bytes(plan.freed())}")
    else:
        typer.echo("nothing goes: all that is here is needed, or young")


def _without_names(why: str, name: str) -> str:
    """A reason without the names in it, so that equal ones are counted together."""
    import re

    return re.sub(r"\b(\d{8}-\d{6}-[\w-]+|[0-9a-f]{16,64})\b", "…", re.sub(r"\bevent \d+\b", "an event", why))


def format_bytes(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
