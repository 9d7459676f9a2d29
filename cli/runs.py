"""Look at runs: what they did or are doing, why each step ran, what it cost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import WORKSPACE, AsJson, Workspace, existing

app = typer.Typer(help="List the runs of a workspace, or show one.", no_args_is_help=True)

START_S = 300.0  # a step's process is that much older than its first word at most
QUIET_S = 30.0  # between two steps nothing is written for a few seconds


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Every run with its outcome, oldest first."""
    import shutil

    from cli.screen import clock
    from components.summary.step import SUMMARY
    from pipelines.run import runs

    rows = []
    for folder in runs(existing(workspace)):
        path = folder / SUMMARY
        told = json.loads(path.read_text()) if path.is_file() else {"outcome": state(folder), "model_id": ""}
        rows.append({"run": folder.name, **{k: told.get(k) for k in ("outcome", "model_id", "seconds")}})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("no runs yet; start one with `rankline demo`")
        return
    names, width = max(len(str(row["run"])) for row in rows), shutil.get_terminal_size((1000, 24)).columns
    for run, outcome, took, model in (
        ("run", "outcome", "took", "model"),
        *((r["run"], r["outcome"], clock(r["seconds"]) if r["seconds"] else "", r["model_id"]) for r in rows),
    ):
        line = f"{run:<{names}}  {outcome:<18} {took:>7}  {model or ''}".rstrip()
        typer.echo(line if len(line) <= width else f"{line[: width - 1]}…")


@app.command("show")
def show(
    run: Annotated[str, typer.Argument(help="A run's name, or `last`.")] = "last",
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """One run: its steps, durations, peak memory, cost, and why each ran or was reused; under way, how far it is."""
    from cli.run import reports
    from cli.screen import summary_lines
    from components.summary.step import SUMMARY
    from pipelines.run import runs
    from rankline.errors import UsageError

    names = {folder.name: folder for folder in runs(existing(workspace))}
    folder = names.get(list(names)[-1] if run == "last" and names else run)
    if folder is None:
        raise UsageError(
            f"there is no run {run!r}",
            expected="one of `rankline runs list`",
            found=", ".join(list(names)[-3:]) or "no runs",
            where=str(workspace / "runs"),
            hint="start one with `rankline demo`",
        )
    if not (folder / SUMMARY).is_file():
        _show_unfinished(folder, workspace, as_json=as_json)
        return
    summary = json.loads((folder / SUMMARY).read_text())
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    typer.echo("\n".join(summary_lines(summary)))
    if summary["error"]:
        typer.echo(f"{summary['failed_step']} stopped: {summary['error']}")
    for title, path in reports(summary):
        typer.echo(f"{title}: {path}")


def _show_unfinished(folder: Path, workspace: Path, *, as_json: bool) -> None:
    """What the ledger knows of a run that has no summary: it goes on, or it was killed."""
    from rich.console import Console

    from cli.screen import clock, estimates, table
    from rankline import ledger, progress

    now, entries = state(folder), ledger.read(folder)
    if as_json:
        steps: list[dict[str, Any]] = []
        for step, entry in entries.items():
            far = progress.read(folder / f"{step}.progress")
            steps.append({**entry.model_dump(), "seconds": round(entry.seconds, 2), "progress": far})
        typer.echo(json.dumps({"run": folder.name, "outcome": now, "steps": steps}, indent=2))
        return
    began = min((entry.started for entry in entries.values()), default=folder.stat().st_mtime)
    ended = time.time() if now == "running" else _last_sign(folder)
    recipe = str(json.loads((folder / "recipe.json").read_text()).get("name", ""))
    known = estimates(workspace, recipe, before=folder) if recipe else {}
    Console(highlight=False).print(table(folder, known, seconds=max(ended - began, 0), ended=now != "running"))
    quiet = clock(max(time.time() - _last_sign(folder), 0))
    if now == "running":
        typer.echo(f"it is running; the last sign of life was {quiet} ago")
    else:
        typer.echo(f"it was killed with the command that watched it, {quiet} ago; the next run goes on from there")


def _last_sign(folder: Path) -> float:
    """When anything was last written into a run's folder (unix seconds)."""
    return max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)


def state(folder: Path) -> str:
    """`running` or `unfinished`: what a run without a summary is.

    The process of its running step tells; where it cannot be seen (between two steps, in a container, on
    another machine) a sign of life within half a minute does.
    """
    import psutil

    from rankline import ledger

    for entry in ledger.read(folder).values():
        if entry.status == "running" and entry.pid and psutil.pid_exists(entry.pid):
            process = psutil.Process(entry.pid)
            # a number can be another process's: one of a container, or one that was given out again
            began = entry.started - process.create_time()
            if -1 < began < START_S and process.status() != psutil.STATUS_ZOMBIE:
                return "running"
    return "running" if abs(time.time() - _last_sign(folder)) < QUIET_S else "unfinished"
