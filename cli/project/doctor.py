"""Check machine, libraries, GPU, stores and workspace before a run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Iterator
from typing import Annotated

import typer

from cli.options import WORKSPACE, AsJson, RecipeName, Settings, Workspace

HELP = """Check this machine and a workspace before a run. Each line is ok, warn or fail, and says what to do.

Nothing is changed.

Exit code: 1 if something fails, 0 otherwise."""

COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    recipe: RecipeName = "movielens",
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
    port: Annotated[int, typer.Option(help="Port on which the server will listen.")] = 8000,
    as_json: AsJson = False,
) -> None:
    """See HELP."""
    from cli.project.checks.model import CheckContext
    from cli.project.checks.run import run_checks
    from pipelines.recipes import named
    from rankline.errors import EXIT_FAILED, EXIT_OK

    context = CheckContext(workspace.resolve(), named(recipe, settings), port)
    counts, payload, last_subject = {"ok": 0, "warn": 0, "fail": 0}, [], ""
    with _few_retries(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that are only asked whether they work
        for subject, finding in run_checks(context):
            counts[finding.status] += 1
            payload.append({"subject": subject, **dataclasses.asdict(finding)})
            if as_json:
                continue
            if subject != last_subject:
                typer.secho(f"\n{subject}" if last_subject else subject, bold=True)
                last_subject = subject
            typer.secho(f"  {finding.status:<4}", fg=COLOURS[finding.status], nl=False)
            typer.echo(f"  {finding.check:<20} {finding.found}")
            if finding.status != "ok" and finding.hint:
                typer.echo(f"        try: {finding.hint}")
    if as_json:
        worst = next(status for status in ("fail", "warn", "ok") if counts[status])
        typer.echo(json.dumps({"status": worst, "findings": payload}, indent=2))
    else:
        typer.echo(f"\n{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failing")
    raise typer.Exit(EXIT_FAILED if counts["fail"] else EXIT_OK)


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Let a bucket that does not answer fail sooner than in a run."""
    name = "AWS_MAX_ATTEMPTS"
    was_set = name in os.environ
    os.environ.setdefault(name, "2")
    try:
        yield
    finally:
        if not was_set:
            del os.environ[name]
