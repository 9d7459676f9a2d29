"""Look at runs: what they did or do, why each step ran, what it said, what it cost; end one, or run one again."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, Workspace, existing

if TYPE_CHECKING:
    from pipelines.history import LocalRuns

app = typer.Typer(help="The runs of a workspace: list, show, logs, cancel, retry.", no_args_is_help=True)

RunName = Annotated[str, typer.Argument(help="A run's name, or `last`.")]


def _runs(workspace: Path) -> LocalRuns:
    """Whoever answers for the runs of a place (pipelines/history.py)."""
    from pipelines.history import LocalRuns

    return LocalRuns(existing(workspace))


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Every run with its outcome, oldest first."""
    import shutil

    from cli.screen import clock

    lines = _runs(workspace).list()
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    if not lines:
        typer.echo("no runs yet; start one with `rankline demo`")
        return
    names, width = max(len(line.run) for line in lines), shutil.get_terminal_size((1000, 24)).columns
    for run, outcome, took, model, flow, trigger in (
        ("run", "outcome", "took", "model", "flow", "trigger"),
        *((r.run, r.outcome, clock(r.seconds) if r.seconds else "", r.model_id, r.flow, r.trigger) for r in lines),
    ):
        row = f"{run:<{names}}  {outcome:<18} {took:>7}  {model:<16}  {flow:<8}  {trigger}".rstrip()
        typer.echo(row if len(row) <= width else f"{row[: width - 1]}…")


@app.command("show")
def show(run: RunName = "last", workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """One run: its steps, durations, peak memory, cost, and why each ran or was reused; under way, how far it is."""
    from cli.run import reports
    from cli.screen import summary_lines
    from pipelines.history import RUNNING, UNFINISHED

    runs = _runs(workspace)
    told = runs.show(run)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    if told["trigger"]:
        typer.echo(asked_by(told["trigger"]))
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

    from cli.screen import clock, table, usual
    from pipelines.history import last_sign
    from rankline import ledger

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
def logs(
    run: RunName = "last",
    step: Annotated[str, typer.Argument(help="Only this step's; all of them if left out.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Kubeflow's own words, too.")] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """What the processes of a run's steps said, with the stack trace of an error nobody foresaw.

    --json prints one object a line: {"step": …, "line": …}.
    """
    before = None
    for said in _runs(workspace).logs(run, step, follow=follow, everything=everything):
        if as_json:
            typer.echo(json.dumps(asdict(said)))
            continue
        if said.step != before and not step:
            typer.echo(f"── {said.step or 'the runner'}")
        before = said.step
        typer.echo(said.line)


@app.command("cancel")
def cancel(run: RunName, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """End a run that is under way, from wherever it was started; what is finished is kept for the next one."""
    from components.summary.step import CANCELLED

    told = _runs(workspace).cancel(run)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif told["outcome"] == CANCELLED:
        typer.echo(f"cancelled {told['run']}; `rankline runs retry {told['run']}` goes on from what is finished")
    else:
        typer.echo(f"{told['run']} had just ended by itself: {told['outcome']}")


@app.command("retry")
def retry(run: RunName = "last", workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Run the very recipe that a run was made with again, in the same workspace; what is finished is reused.

    It ends as `rankline run` does, with the same exit codes. The new run names the one that it retries.
    """
    from cli.run import fetch_material, watched

    runs = _runs(workspace)
    folder = runs.folder(run)
    watched(
        lambda watch: runs.retry(
            folder.name, watch=watch, begins=lambda recipe: fetch_material(recipe, runs.workspace, as_json=as_json)
        ),
        folder.name.split("-", 2)[-1],
        runs.workspace,
        as_json,
    )
