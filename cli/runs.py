"""Look at runs: what they did, why each step ran, what it cost."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.options import WORKSPACE, AsJson, Workspace

app = typer.Typer(help="List the runs of a workspace, or show one.", no_args_is_help=True)


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Every run with its outcome, oldest first."""
    from components.summary.step import SUMMARY
    from pipelines.run import runs

    rows = []
    for folder in runs(workspace):
        path = folder / SUMMARY
        told = json.loads(path.read_text()) if path.is_file() else {"outcome": "unfinished", "model_id": ""}
        rows.append({"run": folder.name, **{k: told.get(k) for k in ("outcome", "model_id", "seconds")}})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(f"{row['run']:<36} {row['outcome']:<18} {row['model_id'] or '':<18} {row['seconds'] or ''}")
    if not rows:
        typer.echo("no runs yet; start one with `rankline demo`")


@app.command("show")
def show(
    run: Annotated[str, typer.Argument(help="A run's name, or `last`.")] = "last",
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """One run: its steps, durations, peak memory, cost, and why each ran or was reused."""
    from cli.run import reports
    from cli.screen import summary_lines
    from components.summary.step import SUMMARY
    from pipelines.run import runs
    from rankline import ledger
    from rankline.errors import UsageError

    names = {folder.name: folder for folder in runs(workspace)}
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
        raise UsageError(
            f"run {folder.name} has not finished, or was killed with the command that watched it",
            expected=SUMMARY,
            found="steps " + (", ".join(ledger.read(folder)) or "none"),
            where=str(folder),
            hint="wait for it, or run again: the next run goes on from what is finished",
        )
    summary = json.loads((folder / SUMMARY).read_text())
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    typer.echo("\n".join(summary_lines(summary)))
    if summary["error"]:
        typer.echo(f"{summary['failed_step']} stopped: {summary['error']}")
    for title, path in reports(summary):
        typer.echo(f"{title}: {path}")
