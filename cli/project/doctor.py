"""Examine machine, libraries, GPU, stores and workspace, and say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, RecipeName, Settings, Workspace

HELP = """Examine this machine and a workspace before a run: each line is ok, warn or fail, and says what to do.

Nothing is changed. Exit code 1 when something fails, 0 otherwise."""

COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    recipe: RecipeName = "movielens",
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
    port: Annotated[int, typer.Option(help="Port that the server is to listen on.")] = 8000,
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    import dataclasses
    import json
    import warnings

    from cli.project.checks import CheckContext, run_checks
    from pipelines.recipes import named
    from rankline.errors import EXIT_FAILED, EXIT_OK

    warnings.simplefilter("ignore")  # libraries that are only asked whether they answer
    context = CheckContext(workspace.resolve(), named(recipe, settings), port)
    counts, findings, last_section = {"ok": 0, "warn": 0, "fail": 0}, [], ""
    for section, finding in _with_few_retries(run_checks(context)):
        counts[finding.status] += 1
        findings.append({"subject": section, **dataclasses.asdict(finding)})
        if as_json:
            continue
        if section != last_section:
            last_section = section
            typer.secho(f"\n{last_section}" if len(findings) > 1 else last_section, bold=True)
        typer.secho(f"  {finding.status:<4}", fg=COLOURS[finding.status], nl=False)
        typer.echo(f"  {finding.check:<20} {finding.found}")
        if finding.status != "ok" and finding.hint:
            typer.echo(f"        try: {finding.hint}")
    if as_json:
        worst = next(status for status in ("fail", "warn", "ok") if counts[status])
        typer.echo(json.dumps({"status": worst, "findings": findings}, indent=2))
    else:
        typer.echo(f"\n{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failing")
    raise typer.Exit(EXIT_FAILED if counts["fail"] else EXIT_OK)


def _with_few_retries(findings: Iterator[Any]) -> Iterator[Any]:
    """The same findings, with less patience for buckets than a run has."""
    import os

    was_set = "AWS_MAX_ATTEMPTS" in os.environ
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    try:
        yield from findings
    finally:
        if not was_set:
            del os.environ["AWS_MAX_ATTEMPTS"]
