"""Check machine, libraries, GPU, stores and workspace before a run, or a cluster before a recipe is submitted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Iterator
from typing import Annotated

import typer

from cli.options import WORKSPACE, AsJson, MapFile, RecipeName, Settings, SourcePath, Workspace
from cli.runs.cluster import Target, with_cluster_options

COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


@with_cluster_options
def doctor(
    where: Target,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe, as --recipe.", show_default=False)] = "",
    recipe: RecipeName = "movielens",
    source: SourcePath = None,
    map: MapFile = None,
    settings: Settings = [],  # noqa: B006
    workspace: Workspace = WORKSPACE,
    port: Annotated[int, typer.Option(help="Port on which the server will listen.")] = 8000,
    account: Annotated[
        str, typer.Option("--service-account", help="Service account of the cluster's pods. Default: Kubeflow's own.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check this machine and a workspace before a run. Each line is ok, warn or fail, and says what to do.

    With --host, or another option of a cluster, it checks what `rankline submit` of the recipe needs there: that
    Kubeflow answers, and with a kubeconfig its version, the controller's defaults, namespace, service account, volume,
    secrets and nodes; the images' digests; and the stores. What this machine may not read is reported as not known.

    Nothing is changed.

    Exit code: 1 if something fails, 0 otherwise.
    """
    from cli.project.checks.model import CheckContext
    from cli.project.checks.run import run_checks
    from pipelines.recipes import named
    from rankline.errors import EXIT_FAILED, EXIT_OK

    chosen = named(name or recipe, settings, source=source, map=map)
    context = CheckContext(workspace.resolve(), chosen, port, where if where.cluster else None, account)
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
