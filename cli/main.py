"""The `rankline` command. Heavy imports stay inside the commands, so that the help appears at once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.data import data, features, init, recipes
from cli.project import build, doctor, gc, new
from cli.project import cluster as set_up
from cli.registry import catalogue, gates, items, models, promote, sync
from cli.review import console, decisions, evaluate, status
from cli.runs import ablate, cluster, refresh, run, runs, step, submit, tune
from cli.schedules import schedule, scheduler
from cli.serving import demo, serve
from cli.users import users
from rankline.errors import RanklineError, UsageError
from rankline.runtime.outcomes import EXIT_INTERRUPTED


class GroupedCommands(TyperGroup):
    """A group that lists its commands under the titles they were registered with."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse arguments whose bytes are not UTF-8, which no id, file of ours or output can hold."""
        for each in args:
            if not each.isascii() and any("\ud800" <= sign <= "\udfff" for sign in each):
                raise UsageError(
                    "an argument is not UTF-8",
                    expected="text in UTF-8",
                    found=ascii(each),
                    hint="convert it: iconv -f LATIN1 -t UTF-8; rename a file whose name is not UTF-8",
                )
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section per title, in the order of registration."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for title, commands in commands_by_title(self).items():
            with formatter.section(title):
                formatter.write_dl([(name, each.get_short_help_str(limit)) for name, each in commands.items()])


def commands_by_title(group: TyperGroup) -> dict[str, dict[str, Any]]:
    """Title -> name -> command, of the commands that are not hidden."""
    titled: dict[str, dict[str, Any]] = {}
    for name, command in group.commands.items():
        if not command.hidden:
            titled.setdefault(getattr(command, "rich_help_panel", None) or "Commands", {})[name] = command
    return titled


app = typer.Typer(
    name="rankline",
    cls=GroupedCommands,
    help="Train, evaluate, promote and serve a language-model ranker for search and recommendation.\n\n"
    "A run is a pipeline of steps:\n\n"
    "resolve_inputs -> ingest -> validate -> featurize -> finetune -> distill -> export -> evaluate -> promote "
    "-> serve\n\n"
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself; its help is the app's."""


RUN, DATA, MODELS, SERVE, SCHEDULES, PROJECT = (
    "Run pipelines", "Data and features", "Models and catalogues", "Serve", "Schedules", "Machine and project",
)  # fmt: skip
app.command("demo", rich_help_panel=RUN)(demo.demo)
app.command("run", rich_help_panel=RUN)(run.run)
app.command("submit", rich_help_panel=RUN)(submit.submit)
app.command("compile", rich_help_panel=RUN)(run.compile_)
app.command("refresh", rich_help_panel=RUN)(refresh.refresh)
app.command("tune", rich_help_panel=RUN)(tune.tune)
app.command("ablate", rich_help_panel=RUN)(ablate.ablate)
app.add_typer(step.app, name="step", rich_help_panel=RUN)
app.add_typer(runs.app, name="runs", rich_help_panel=RUN)
app.command("init", help=init.HELP, rich_help_panel=DATA)(init.init)
app.add_typer(data.app, name="data", rich_help_panel=DATA)
app.add_typer(recipes.app, name="recipes", rich_help_panel=DATA)
app.command("fetch", help=recipes.FETCH_HELP, rich_help_panel=DATA)(recipes.fetch)
app.add_typer(features.app, name="features", rich_help_panel=DATA)
app.add_typer(users.app, name="users", rich_help_panel=DATA)
app.command("status", rich_help_panel=MODELS)(status.status)
app.command("champion", rich_help_panel=MODELS)(models.champion)
app.command("history", rich_help_panel=MODELS)(models.history)
app.command("lineage", rich_help_panel=MODELS)(status.lineage)
decisions.app.command("serve")(console.serve)
decisions.app.command("token")(console.token)
app.add_typer(decisions.app, name="review", rich_help_panel=MODELS)
app.command("evaluate", rich_help_panel=MODELS)(evaluate.evaluate)
app.command("rollback", rich_help_panel=MODELS)(models.rollback)
app.command("promote", rich_help_panel=MODELS)(promote.promote)
app.add_typer(gates.app, name="gates", rich_help_panel=MODELS)
app.command("sync", rich_help_panel=MODELS)(sync.sync)
app.command("mirror", hidden=True)(sync.mirror)
app.add_typer(catalogue.app, name="catalogue", rich_help_panel=MODELS)
app.add_typer(items.app, name="items", rich_help_panel=MODELS)
app.command("serve", rich_help_panel=SERVE)(serve.serve)
app.command("ask", rich_help_panel=SERVE)(serve.ask)
app.add_typer(schedule.app, name="schedule", rich_help_panel=SCHEDULES)
app.command("scheduler", help=scheduler.HELP, rich_help_panel=SCHEDULES)(scheduler.scheduler)
app.command("doctor", rich_help_panel=PROJECT)(doctor.doctor)
app.add_typer(set_up.app, name="cluster", rich_help_panel=PROJECT)
app.command("gc", rich_help_panel=PROJECT)(gc.gc)
app.command("build", rich_help_panel=PROJECT)(build.build)
app.command("new", rich_help_panel=PROJECT)(new.new)


def main() -> None:
    """Run the command; an error is one message on stderr and an exit code, never a stack trace."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a supervisor's SIGTERM ends a command as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    try:
        app(standalone_mode=True)
    except RanklineError as error:
        _exit_with(error)
    except OSError as error:
        _exit_with(_file_error(error))
    except Exception as error:
        _exit_with(_unforeseen_error(error))
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED and not isinstance(end, cluster.RunContinues):
            typer.secho("interrupted; the next run continues from what is finished", err=True)
        raise


def _exit_with(error: RanklineError) -> None:
    typer.secho(str(error), fg=typer.colors.RED, err=True)
    sys.exit(error.exit_code)


def _unforeseen_error(error: Exception) -> RanklineError:
    """An error that nothing expected: its stack trace is in a file, as that of a step is in the step's log."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="rankline-", suffix=".log", delete=False, encoding="utf-8") as log:
        log.write("".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode())
    words = " ".join(str(error).split()).encode("utf-8", "backslashreplace").decode()
    return RanklineError(
        f"an unforeseen {type(error).__name__}",
        found=words[:400],
        where=log.name,
        hint="this is a bug of Rankline: report it with that file; it may hold values of your data",
    )


def _file_error(error: OSError) -> RanklineError:
    """What the file system refused, such as a full disk or a folder without write permission."""
    from rankline.io import disk

    if disk.no_space_message(error):
        return disk.no_space_error(error, [Path.cwd()])
    return RanklineError(
        f"the file system refused: {error.strerror or error}",
        where=str(error.filename or "an unnamed file"),
        hint="another --workspace, or check its permissions and free space",
    )


if __name__ == "__main__":
    main()
