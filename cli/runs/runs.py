"""The runs of a workspace or a cluster: list and show them, read their logs, cancel or retry one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bucket_copy import require_folder
from cli.options import WORKSPACE, AsJson, ReadWorkspace, require_workspace
from cli.runs.cluster import POLL_S, RunContinues, Target, with_cluster_options
from rankline.runtime.outcomes import EXIT_INTERRUPTED, Outcome

if TYPE_CHECKING:
    from pipelines.runs.store import LocalRuns, Runs

app = typer.Typer(
    help="List, show, cancel and retry runs of a workspace or, with --host, of a cluster.", no_args_is_help=True
)

CANCEL_PROGRESS_S = 10.0  # between two lines while a cluster cancels a run
RunName = Annotated[str, typer.Argument(help="Name of a run, or `last`.")]


def _local_runs(workspace: Path, *, logs: bool = False) -> LocalRuns:
    from pipelines.runs.store import LocalRuns

    return LocalRuns(require_workspace(workspace, "runs", suffixes=("",) if logs else (".json", ".progress")))


@contextlib.contextmanager
def _runs(workspace: Path, where: Target, *, logs: bool = False) -> Iterator[Runs]:
    """The runs of the workspace, or of the cluster if one is meant."""
    if not where:
        yield _local_runs(workspace, logs=logs)
        return
    from pipelines.kubeflow.runs import ClusterRuns

    with where.connected() as cluster:
        yield ClusterRuns(cluster, poll_s=POLL_S)  # type: ignore[misc]  # watches a cluster, not a process


@app.command("list")
@with_cluster_options
def list_(where: Target, workspace: ReadWorkspace = WORKSPACE, as_json: AsJson = False) -> None:
    """List every run with its outcome, oldest first; on a cluster the latest 200 of Rankline's pipelines."""
    from cli.formats import aligned_lines, fitted, format_duration

    with _runs(workspace, where) as runs:
        listed = runs.list()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in listed], indent=2))
        return
    if not listed:
        typer.echo(f"no runs yet; start one with `rankline {'submit' if where else 'demo'}`")
        return
    rows = [("run", "outcome", "took", "model", "flow", "trigger")]
    for each in listed:
        took = format_duration(each.seconds) if each.seconds else ""
        rows.append((each.run, each.outcome, took, each.model_id, each.flow, each.trigger))
    typer.echo("\n".join(fitted(aligned_lines(rows, right=[2]))))


@app.command("show")
@with_cluster_options
def show(where: Target, run: RunName = "last", workspace: ReadWorkspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Show a run: its steps, durations, peak memory and cost, and why each step ran; its progress while it runs.

    On a cluster: the steps, their times and the outcome, as the API reports them. What it does not report is null.
    """
    from cli.runs.progress import summary_lines, warning_lines
    from cli.runs.run import report_pages

    with _runs(workspace, where) as backend:
        payload = backend.show(run)
    if as_json:
        typer.echo(json.dumps(payload, indent=2))
        return
    if payload["trigger"]:
        typer.echo(_trigger_line(payload["trigger"]))
    if where:
        from cli.runs.cluster import run_lines

        typer.echo("\n".join(run_lines(payload)))
        return
    if payload["outcome"] in (Outcome.RUNNING, Outcome.UNFINISHED):
        folder = _local_runs(workspace).folder(run)
        _print_unfinished(folder, workspace, running=payload["outcome"] == Outcome.RUNNING)
        return
    typer.echo("\n".join([*summary_lines(payload), *warning_lines(payload)]))
    if payload["error"]:
        prefix = f"{payload['failed_step']} stopped: " if payload["failed_step"] else ""
        typer.echo(f"{prefix}{payload['error']}")
    for title, path in report_pages(payload):
        typer.echo(f"{title}: {path}")


def _trigger_line(trigger: dict[str, Any]) -> str:
    """What started a run, in one line."""
    parts = [f"trigger: {trigger.get('kind', 'manual')}"]
    if trigger.get("retry_of"):
        parts.append(f"of run {trigger['retry_of']}")
    if trigger.get("schedule"):
        parts.append(f"by schedule {trigger['schedule']} for {trigger.get('scheduled_at', 'no time')}")
    if trigger.get("window_end"):
        parts.append(f"(window {trigger.get('window_start') or 'from the first event'} to {trigger['window_end']})")
    if trigger.get("why"):
        parts.append(f"because of {trigger['why']}")
    return " ".join(parts)


def _print_unfinished(folder: Path, workspace: Path, *, running: bool) -> None:
    """Print what the ledger knows of a run without a summary: it is running, or it was killed."""
    from rich.console import Console

    from cli.formats import format_duration
    from cli.runs.progress import run_table, usual_durations
    from pipelines.runs.folder import last_activity
    from rankline.runtime import ledger

    entries = ledger.read_entries(folder)
    started = min((entry.started for entry in entries.values()), default=folder.stat().st_mtime)
    ended = time.time() if running else last_activity(folder)
    recipe = str(json.loads((folder / "recipe.json").read_text()).get("name", ""))
    usual_seconds = usual_durations(workspace, recipe, before=folder) if recipe else {}
    Console(highlight=False).print(run_table(folder, usual_seconds, seconds=max(ended - started, 0), ended=not running))
    silence = format_duration(max(time.time() - last_activity(folder), 0))
    if running:
        typer.echo(f"it is running; the last sign of life was {silence} ago")
    else:
        typer.echo(f"it was killed with the command that watched it, {silence} ago; the next run continues from there")


@app.command("logs")
@with_cluster_options
def logs(
    where: Target,
    run: RunName = "last",
    step: Annotated[str, typer.Argument(help="Only this step. Default: all steps.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the run has ended.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Include Kubeflow's own lines.")] = False,
    workspace: ReadWorkspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Print what the steps of a run logged, with the stack traces of unexpected errors.

    On a cluster: what the steps printed, as long as their pods exist or the API server has an archive of their logs;
    else from the run's folder, where the cluster's workspace is mounted here. --all includes the lines of Kubeflow's
    launcher. For the logs of other pods, drivers included, a `kubectl` command is printed.

    --json prints one object per line: {"step": …, "line": …}.
    """
    last_step = None
    with _runs(workspace, where, logs=True) as runs:
        for log_line in runs.logs(run, step, follow=follow, everything=everything):
            if as_json:
                typer.echo(json.dumps(asdict(log_line)))
                continue
            if log_line.step != last_step and not step:
                typer.echo(f"── {log_line.step or 'the runner'}")
            last_step = log_line.step
            typer.echo(log_line.line)
        if where and not as_json:
            command = runs.logs_command(run, step)  # type: ignore[attr-defined]
            what = f"the pod of {step}" if step else "every pod, drivers included"
            if command:
                typer.secho(f"logs of {what}: {command}", err=True, dim=True)


def _cancel_progress() -> Callable[[dict[str, Any]], None]:
    """A function that prints every few seconds what a run that is being cancelled still does."""
    started = printed = time.monotonic()

    def watch(summary: dict[str, Any]) -> None:
        nonlocal printed
        if time.monotonic() - printed > CANCEL_PROGRESS_S:
            printed = time.monotonic()
            active = [step["step"] for step in summary["steps"] if step["status"] in ("running", "pending")]
            typer.secho(f"  {printed - started:.0f} s: {', '.join(active) or 'cancelling'}…", err=True)

    return watch


@app.command("cancel")
@with_cluster_options
def cancel(where: Target, run: RunName, workspace: ReadWorkspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Cancel a run, wherever it was started. The next run reuses its finished steps.

    On a cluster it takes a minute or two: Argo ends the pods and then runs the exit handler. Ctrl-C ends the waiting.
    """
    workspace = workspace if where else require_folder(workspace, "runs cancel")
    with _runs(workspace, where) as runs:
        try:
            payload = runs.cancel(run, watch=_cancel_progress()) if where else runs.cancel(run)  # type: ignore[call-arg]
        except KeyboardInterrupt:
            if where:
                typer.secho(f"interrupted; run {run} goes on being cancelled", err=True)
                raise RunContinues(EXIT_INTERRUPTED) from None
            raise
    if as_json:
        typer.echo(json.dumps(payload, indent=2))
    elif payload["outcome"] == Outcome.CANCELLED:
        typer.echo(
            f"cancelled {payload['run']}; `rankline runs retry {payload['run']}` continues from what is finished"
        )
    else:
        typer.echo(f"{payload['run']} had just ended by itself: {payload['outcome']}")


@app.command("retry")
@with_cluster_options
def retry(where: Target, run: RunName = "last", workspace: ReadWorkspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Run a run's exact recipe again in the same workspace; finished steps are reused.

    It ends like `rankline run`, with the same exit codes. The new run records which one it retries. On a cluster this
    is the API's retry of a run that failed or was cancelled: the run keeps its name and continues where it stopped.
    """
    from cli.runs.run import fetch_assets, run_and_report

    if where:
        from cli.runs.cluster import watch_run as watch_cluster_run
        from pipelines.kubeflow.runs import ClusterRuns

        with where.connected() as cluster:
            run_id, url = ClusterRuns(cluster).restart(run)
            if not as_json:
                typer.echo(f"run {run_id} continues\n{url}")
            watch_cluster_run(cluster, run_id, url, as_json=as_json, submitted={}, poll_s=POLL_S)
    runs = _local_runs(require_folder(workspace, "runs retry"))
    folder = runs.folder(run)
    run_and_report(
        lambda watch: runs.retry(
            folder.name, watch=watch, on_start=lambda recipe: fetch_assets(recipe, runs.workspace, as_json=as_json)
        ),
        folder.name.split("-", 2)[-1],
        runs.workspace,
        as_json,
    )
