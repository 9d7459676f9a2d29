"""The `rankline` command. Each group of commands has a file; heavy imports stay inside the commands."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.data import data, features, fetch, init, recipes
from cli.project import build, doctor, gc, new
from cli.registry import catalogue, items, models, rollback
from cli.runs import cluster, refresh, run, runs, step, submit
from cli.schedules import schedule, scheduler
from cli.serving import demo, serve
from rankline.errors import EXIT_FAILED, RanklineError

app = typer.Typer(
    name="rankline",
    help="From raw events to a promoted language-model ranker.\n\n"
    "resolve_inputs -> ingest -> validate -> featurize -> finetune -> distill -> export -> evaluate -> promote -> serve\n\n"
    "Start with `rankline demo`, or, in under a minute, `rankline run --recipe smoke -w .rankline-smoke`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        from importlib import metadata

        typer.echo(f"rankline {metadata.version('rankline')}")
        raise typer.Exit


@app.callback()
def rankline(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of the command itself; its help is the app's."""


app.command("demo", help=demo.HELP)(demo.demo)
app.command("init", help=init.HELP)(init.init)
app.add_typer(data.app, name="data")
app.command("run", help=run.HELP)(run.run)
app.command("submit", help=submit.HELP)(submit.submit)
app.command("build", help=build.HELP)(build.build)
app.command("refresh", help=refresh.HELP)(refresh.refresh)
app.command("compile", help=run.COMPILE_HELP)(run.compile_)
app.add_typer(recipes.app, name="recipes")
app.add_typer(step.app, name="step")
app.add_typer(runs.app, name="runs")
app.add_typer(features.app, name="features")
app.add_typer(schedule.app, name="schedule")
app.command("scheduler", help=scheduler.HELP)(scheduler.scheduler)
app.command("gc", help=gc.HELP)(gc.gc)
app.command("new", help=new.HELP)(new.new)
app.command("doctor", help=doctor.HELP)(doctor.doctor)
app.command("fetch", help=fetch.HELP)(fetch.fetch)
app.command("serve", help=serve.HELP)(serve.serve)
app.command("ask", help=serve.ASK_HELP)(serve.ask)
app.command("champion", help=models.CHAMPION_HELP)(models.champion)
app.command("rollback", help=rollback.HELP)(rollback.rollback)
app.command("history", help=models.HISTORY_HELP)(models.history)
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(items.app, name="items")
app.command("mirror", help=models.MIRROR_HELP)(models.mirror)

INTERRUPTED = 130  # how typer ends on Ctrl-C


def main() -> None:
    """Run the command; a refusal is one message on stderr and an exit code, never a stack trace."""
    for number in (signal.SIGINT, signal.SIGTERM):  # ended by a supervisor is ended as by Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        app(standalone_mode=True)
    except RanklineError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written
        from rankline.io import disk

        if disk.no_space_message(error):
            typer.secho(str(disk.no_space_error(error, [Path.cwd()])), fg=typer.colors.RED, err=True)
            sys.exit(EXIT_FAILED)
        message = f"the file system refused: {error.strerror or error}\n  where: {error.filename or 'not said'}"
        typer.secho(
            f"{message}\n  try: another --workspace, or its permissions and free space", fg=typer.colors.RED, err=True
        )
        sys.exit(EXIT_FAILED)
    except SystemExit as end:
        if end.code == INTERRUPTED and not isinstance(end, cluster.RunContinues):
            typer.secho("interrupted; the next run goes on from what is finished", err=True)
        raise


if __name__ == "__main__":
    main()
