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

from cli.options import WORKSPACE, AsJson, Workspace, existing
from cli.runs.cluster import POLL_S, Where, reachable

if TYPE_CHECKING:
    from pipelines.runs.store import LocalRuns, Runs

app = typer.Typer(
    help="The runs of a workspace or, with --host, of a cluster: list, show, logs, cancel, retry.", no_args_is_help=True
)

RunName = Annotated[str, typer.Argument(help="A run's name, or `last`.")]


def _local(workspace: Path) -> LocalRuns:
    from pipelines.runs.store import LocalRuns

    return LocalRuns(existing(workspace))


@contextlib.contextmanager
def _runs(workspace: Path, where: Where) -> Iterator[Runs]:
    """Whoever answers for the runs of a place (pipelines/runs/store.py)."""
    if not where:
        yield _local(workspace)
        return
    from pipelines.kubeflow.runs import ClusterRuns

    with where.connected() as cluster:
        yield ClusterRuns(cluster, poll_s=POLL_S)


@app.command("list")
@reachable
def list_(where: Where, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Every run with its outcome, oldest first; of a cluster the latest 200 of our pipelines."""
    import shutil

    from cli.runs.progress import clock

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
        *((r.run, r.outcome, clock(r.seconds) if r.seconds else "", r.model_id, r.flow, r.trigger) for r in lines),
    ]
    wide = [max(map(len, column)) for column in zip(*rows)]
    width = shutil.get_terminal_size((1000, 24)).columns
    for row in rows:
        line = "  ".join(f"{cell:{'>' if n == 2 else '<'}{wide[n]}}" for n, cell in enumerate(row)).rstrip()
        typer.echo(line if len(line) <= width else f"{line[: width - 1]}…")


@app.command("show")
@reachable
def show(where: Where, run: RunName = "last", workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """One run: its steps, durations, peak memory, cost, and why each ran or was reused; under way, how far it is.

    A cluster's API tells the steps, their times and the outcome; what it does not know is null.
    """
    from cli.runs.progress import summary_lines
    from cli.runs.run import reports
    from pipelines.runs.store import RUNNING, UNFINISHED

    with _runs(workspace, where) as place:
        told = place.show(run)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    if told["trigger"]:
        typer.echo(asked_by(told["trigger"]))
    if where:
        from cli.runs.cluster import lines

        typer.echo("\n".join(lines(told)))
        if told["failed_step"]:
            typer.echo(f"{told['failed_step']} stopped")
        return
    runs = _local(workspace)
    if told["outcome"] in (RUNNING, UNFINISHED):
        _show_unfinished(runs.folder(run), workspace, running=told["outcome"] == RUNNING)
        return
    typer.echo("\n".join(summary_lines(told)))
    if told["error"]:
        typer.echo(f"{told['failed_step']} stopped: {told['error']}" if told["failed_step"] else told["error"])
    for title, path in reports(told):
        typer.echo(f"{title}: {path}")


def asked_by(trigger: dict[str, Any]) -> str:
    """What asked for a run, in one line."""
    parts = [f"trigger: {trigger.get('kind', 'manual')}"]
    if trigger.get("retry_of"):
        parts.append(f"of run {trigger['retry_of']}")
    if trigger.get("schedule"):
        parts.append(f"by schedule {trigger['schedule']} for {trigger.get('scheduled_at', 'no time')}")
    if trigger.get("window_end"):
        parts.append(f"(window {trigger.get('window_start') or 'from the first event'} to {trigger['window_end']})")
    return " ".join(parts)


def _show_unfinished(folder: Path, workspace: Path, *, running: bool) -> None:
    """What the ledger knows of a run that has no summary: it goes on, or it was killed."""
    from rich.console import Console

    from cli.runs.progress import clock, table, usual
    from pipelines.runs.store import last_sign
    from rankline.runtime import ledger

    entries = ledger.read(folder)
    began = min((entry.started for entry in entries.values()), default=folder.stat().st_mtime)
    ended = time.time() if running else last_sign(folder)
    recipe = str(json.loads((folder / "recipe.json").read_text()).get("name", ""))
    known = usual(workspace, recipe, before=folder) if recipe else {}
    Console(highlight=False).print(table(folder, known, seconds=max(ended - began, 0), ended=not running))
    quiet = clock(max(time.time() - last_sign(folder), 0))
    if running:
        typer.echo(f"it is running; the last sign of life was {quiet} ago")
    else:
        typer.echo(f"it was killed with the command that watched it, {quiet} ago; the next run goes on from there")


@app.command("logs")
@reachable
def logs(
    where: Where,
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
    before = None
    with _runs(workspace, where) as runs:
        for said in runs.logs(run, step, follow=follow, everything=everything):
            if as_json:
                typer.echo(json.dumps(asdict(said)))
                continue
            if said.step != before and not step:
                typer.echo(f"── {said.step or 'the runner'}")
            before = said.step
            typer.echo(said.line)
        if where and not as_json:
            typer.secho(f"every pod's, drivers included: {runs.elsewhere(run)}", err=True, dim=True)  # type: ignore[attr-defined]


@app.command("cancel")
@reachable
def cancel(where: Where, run: RunName, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """End a run that is under way, from wherever it was started; what is finished is kept for the next one."""
    from components.summary.step import CANCELLED

    with _runs(workspace, where) as runs:
        told = runs.cancel(run)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif told["outcome"] == CANCELLED:
        typer.echo(f"cancelled {told['run']}; `rankline runs retry {told['run']}` goes on from what is finished")
    else:
        typer.echo(f"{told['run']} had just ended by itself: {told['outcome']}")


@app.command("retry")
@reachable
def retry(where: Where, run: RunName = "last", workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Run the very recipe that a run was made with again, in the same workspace; what is finished is reused.

    It ends as `rankline run` does, with the same exit codes. The new run names the one that it retries. On a cluster
    it is the API's retry, of a run that failed or was cancelled: the run keeps its name and goes on where it stopped.
    """
    from cli.runs.run import fetch_material, watched

    if where:
        from cli.runs.cluster import watched as watched_there
        from pipelines.kubeflow.runs import ClusterRuns

        with where.connected() as cluster:
            id, url = ClusterRuns(cluster).again(run)
            if not as_json:
                typer.echo(f"run {id} goes on\n{url}")
            watched_there(cluster, id, url, as_json=as_json, told={}, poll_s=POLL_S)
    runs = _local(workspace)
    folder = runs.folder(run)
    watched(
        lambda watch: runs.retry(
            folder.name, watch=watch, begins=lambda recipe: fetch_material(recipe, runs.workspace, as_json=as_json)
        ),
        folder.name.split("-", 2)[-1],
        runs.workspace,
        as_json,
    )
