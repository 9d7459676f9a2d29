"""Look at runs: what they did or do, why each step ran, what it said, what it cost; end one, or run one again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, Workspace, require_workspace
from cli.runs.cluster import POLL_S, Target, with_cluster_options

if TYPE_CHECKING:
    from pipelines.runs.store import LocalRuns, Runs

app = typer.Typer(
    help="The runs of a workspace or, with --host, of a cluster: list, show, logs, cancel, retry.", no_args_is_help=True
)

RunName = Annotated[str, typer.Argument(help="A run's name, or `last`.")]


def _local_runs(workspace: Path) -> LocalRuns:
    from pipelines.runs.store import LocalRuns

    return LocalRuns(require_workspace(workspace))


@contextlib.contextmanager
def _runs(workspace: Path, where: Target) -> Iterator[Runs]:
    """Whoever answers for the runs of a place (pipelines/runs/store.py)."""
    if not where:
        yield _local_runs(workspace)
        return
    from pipelines.kubeflow.runs import ClusterRuns

    with where.connected() as cluster:
        yield ClusterRuns(cluster, poll_s=POLL_S)


@app.command("list")
@with_cluster_options
def list_(where: Target, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Every run with its outcome, oldest first; of a cluster the latest 200 of our pipelines."""
    import shutil

    from cli.runs.progress import format_duration

    with _runs(workspace, where) as runs:
        lines = runs.list()
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    if not lines:
        typer.echo(f"no runs yet; start one with `rankline {'submit' if where else 'demo'}`")
        return
    rows = [
        ("run", "outcome", "took", "model", "flow", "trigger"),
        *(
            (r.run, r.outcome, format_duration(r.seconds) if r.seconds else "", r.model_id, r.flow, r.trigger)
            for r in lines
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    width = shutil.get_terminal_size((1000, 24)).columns
    for row in rows:
        line = "  ".join(f"{cell:{'>' if n == 2 else '<'}{widths[n]}}" for n, cell in enumerate(row)).rstrip()
        typer.echo(line if len(line) <= width else f"{line[: width - 1]}…")


@app.command("show")
@with_cluster_options
def show(where: Target, run: RunName = "last", workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """One run: its steps, durations, peak memory, cost, and why each ran or was reused; under way, how far it is.

    A cluster's API tells the steps, their times and the outcome; what it does not know is null.
    """
    from cli.runs.progress import summary_lines
    from cli.runs.run import report_pages
    from pipelines.runs.store import RUNNING, UNFINISHED

    with _runs(workspace, where) as backend:
        payload = backend.show(run)
    if as_json:
        typer.echo(json.dumps(payload, indent=2))
        return
    if payload["trigger"]:
        typer.echo(trigger_line(payload["trigger"]))
    if where:
        from cli.runs.cluster import run_lines

        typer.echo("\n".join(run_lines(payload)))
        if payload["failed_step"]:
            typer.echo(f"{payload['failed_step']} stopped")
        return
    runs = _local_runs(workspace)
    if payload["outcome"] in (RUNNING, UNFINISHED):
        _print_unfinished(runs.folder(run), workspace, running=payload["outcome"] == RUNNING)
        return
    typer.echo("\n".join(summary_lines(payload)))
    if payload["error"]:
        typer.echo(
            f"{payload['failed_step']} stopped: {payload['error']}" if payload["failed_step"] else payload["error"]
        )
    for title, path in report_pages(payload):
        typer.echo(f"{title}: {path}")


def trigger_line(trigger: dict[str, Any]) -> str:
    """What asked for a run, in one line."""
    parts = [f"trigger: {trigger.get('kind', 'manual')}"]
    if trigger.get("retry_of"):
        parts.append(f"of run {trigger['retry_of']}")
    if trigger.get("schedule"):
        parts.append(f"by schedule {trigger['schedule']} for {trigger.get('scheduled_at', 'no time')}")
    if trigger.get("window_end"):
        parts.append(f"(window {trigger.get('window_start') or 'from the first event'} to {trigger['window_end']})")
    return " ".join(parts)


def _print_unfinished(folder: Path, workspace: Path, *, running: bool) -> None:
    """What the ledger knows of a run that has no summary: it goes on, or it was killed."""
    from rich.console import Console

    from cli.runs.progress import format_duration, run_table, usual_durations
    from pipelines.runs.store import last_activity
    from rankline.runtime import ledger

    entries = ledger.read_entries(folder)
    began = min((entry.started for entry in entries.values()), default=folder.stat().st_mtime)
    ended = time.time() if running else last_activity(folder)
    recipe = str(json.loads((folder / "recipe.json").read_text()).get("name", ""))
    usual_seconds = usual_durations(workspace, recipe, before=folder) if recipe else {}
    Console(highlight=False).print(run_table(folder, usual_seconds, seconds=max(ended - began, 0), ended=not running))
    silence = format_duration(max(time.time() - last_activity(folder), 0))
    if running:
        typer.echo(f"it is running; the last sign of life was {silence} ago")
    else:
        typer.echo(f"it was killed with the command that watched it, {silence} ago; the next run goes on from there")


@app.command("logs")
@with_cluster_options
def logs(
    where: Target,
    run: RunName = "last",
    step: Annotated[str, typer.Argument(help="Only this step's; all of them if left out.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Kubeflow's own words, too.")] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """What the processes of a run's steps said, with the stack trace of an error nobody foresaw.

    Of a cluster: what the API server hands on of each step's own container, as long as its pod is there or the server
    keeps logs; the drivers' and what it does not hand on is `kubectl`'s, by the command that is printed.
    --json prints one object a line: {"step": …, "line": …}.
    """
    last_step = None
    with _runs(workspace, where) as runs:
        for log_line in runs.logs(run, step, follow=follow, everything=everything):
            if as_json:
                typer.echo(json.dumps(asdict(log_line)))
                continue
            if log_line.step != last_step and not step:
                typer.echo(f"── {log_line.step or 'the runner'}")
            last_step = log_line.step
            typer.echo(log_line.line)
        if where and not as_json:
            typer.secho(f"every pod's, drivers included: {runs.logs_command(run)}", err=True, dim=True)  # type: ignore[attr-defined]


@app.command("cancel")
@with_cluster_options
def cancel(where: Target, run: RunName, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """End a run that is under way, from wherever it was started; what is finished is kept for the next one."""
    from components.summary.step import CANCELLED

    with _runs(workspace, where) as runs:
        payload = runs.cancel(run)
    if as_json:
        typer.echo(json.dumps(payload, indent=2))
    elif payload["outcome"] == CANCELLED:
        typer.echo(f"cancelled {payload['run']}; `rankline runs retry {payload['run']}` goes on from what is finished")
    else:
        typer.echo(f"{payload['run']} had just ended by itself: {payload['outcome']}")


@app.command("retry")
@with_cluster_options
def retry(where: Target, run: RunName = "last", workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Run the very recipe that a run was made with again, in the same workspace; what is finished is reused.

    It ends as `rankline run` does, with the same exit codes. The new run names the one that it retries. On a cluster
    it is the API's retry, of a run that failed or was cancelled: the run keeps its name and goes on where it stopped.
    """
    from cli.runs.run import fetch_assets, run_and_report

    if where:
        from cli.runs.cluster import watch_run as watch_cluster_run
        from pipelines.kubeflow.runs import ClusterRuns

        with where.connected() as cluster:
            id, url = ClusterRuns(cluster).restart(run)
            if not as_json:
                typer.echo(f"run {id} goes on\n{url}")
            watch_cluster_run(cluster, id, url, as_json=as_json, submitted={}, poll_s=POLL_S)
    runs = _local_runs(workspace)
    folder = runs.folder(run)
    run_and_report(
        lambda watch: runs.retry(
            folder.name, watch=watch, on_start=lambda recipe: fetch_assets(recipe, runs.workspace, as_json=as_json)
        ),
        folder.name.split("-", 2)[-1],
        runs.workspace,
        as_json,
    )
