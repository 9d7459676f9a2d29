"""Use your own data: survey it, propose how to read it, try that out, and write the map and the recipe."""

from __future__ import annotations

import json
import re
import runpy
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.data.init_answers import Answers, ask, check_time_zone, parse_columns

if TYPE_CHECKING:
    from onboarding.inference.dry_run import DryRun
    from onboarding.inference.gaps import Gap
    from onboarding.inference.proposal import Proposal

HELP = """Survey your own data, and write the map and the recipe that read it.

SOURCE is a folder, a file (Parquet, CSV, JSON lines, DuckDB), a RecBole set, a BEIR folder, or a URL
(s3://…, postgresql://host/database; the password comes from PGPASSWORD).

In a terminal you can change every guess; --yes takes them all. What the data does not tell, such as the time zone of
local times, has to be given either way.

Exit code: 0 written; 2 an option is missing; 1 the source cannot be read, or `rankline run` would refuse it with the
map that was written.

Example: rankline init /data/shop --name shop --time-zone Europe/Berlin --yes"""

PACKAGES = (
    "benchmarks", "cli", "components", "feature_repo", "onboarding", "pipelines", "rankline", "recipes", "serving",
)  # fmt: skip
ColumnOption = Annotated[
    list[str],
    typer.Option("--column", "-c", help="Set what a column is: setting=column, such as item_id=sku or title=name."),
]


def init(
    source: Annotated[str | None, typer.Argument(help="Where the data is.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the recipe. Default: that of the folder.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Kind of recipe: interactions, search, labels, or shop (search for users).")
    ] = None,
    events: Annotated[
        str | None, typer.Option(help="Table of events: file, pattern or folder; in a database a name or query.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="Table of items, given in the same way.")] = None,
    users: Annotated[str | None, typer.Option(help="Table of users.")] = None,
    queries: Annotated[str | None, typer.Option(help="Table of queries.")] = None,
    columns: ColumnOption = [],  # noqa: B006
    time_zone: Annotated[str | None, typer.Option(help="Time zone of local times: UTC, Europe/Berlin…")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files, if the guess is wrong.")] = None,
    files: Annotated[
        list[str],
        typer.Option(
            help="How text files are written: setting=value, such as quote= or decimal=, or names=user_id,item_id,at "
            "for files without a header (names:PLACE=… for one of several tables)."
        ),
    ] = [],  # noqa: B006
    connection: Annotated[
        str, typer.Option(help="Environment variable that holds a Postgres URL including the password.")
    ] = "",
    rows: Annotated[
        int, typer.Option(min=100, help="Rows of each table to survey, and number of events of the dry run.")
    ] = 100_000,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the map and the recipe.")] = Path("."),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposal as it is; ask nothing.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite existing files.")] = False,
) -> None:  # fmt: skip
    """See HELP."""
    from cli.data.init_output import print_gaps, print_labels, print_proposal, print_source
    from cli.data.progress import EchoedProgress
    from onboarding.survey.survey import survey

    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    source = _resolve_source(source, connection, interactive=interactive)
    answers = Answers(_recipe_name(name, source), kind or "", time_zone or "", columns=parse_columns(columns))
    _check_kind(kind)
    if time_zone is not None:
        check_time_zone(time_zone)
    roles = {"events": events, "items": items, "users": users, "queries": queries}
    answers.roles = {role: table for role, table in roles.items() if table}
    only = tuple(dict.fromkeys(answers.roles.values())) if events and "://" not in events else ()
    source_survey = survey(
        source, rows=rows, encoding=encoding or "", only=only, connection=connection, files=tuple(files),
        say=EchoedProgress().line,
    )  # fmt: skip
    print_source(source_survey)
    if interactive:
        proposal = ask(source_survey, answers)
        print_labels(proposal)
    else:
        proposal = answers.propose(source_survey)
        print_proposal(proposal)
    print_gaps(proposal)
    questions = [gap for gap in proposal.gaps if gap.flag]
    if questions or not (yes or interactive):
        _refuse_incomplete(proposal, questions, yes=yes)
    _dry_run_and_write(proposal, output, rows, force=force, interactive=interactive)


def _resolve_source(source: str | None, connection: str, *, interactive: bool) -> str:
    from rankline.errors import UsageError

    if source is None and not connection:
        if not interactive:
            raise UsageError(
                "there is no source",
                expected="rankline init SOURCE",
                found="no SOURCE, and no terminal to ask for it",
                hint="rankline init /data/shop --yes",
            )
        source = str(typer.prompt("Where is the data (folder, file or URL)"))
    return source or ""


def _recipe_name(name: str | None, source: str) -> str:
    """The name of the recipe, which Python and Kubeflow have to accept."""
    from rankline.errors import UsageError

    last_part = re.split(r"[/?]", source.rstrip("/"))[-1].split(".")[0].lower()
    candidate = name or re.sub(r"[^a-z0-9]+", "_", last_part).strip("_")
    if re.fullmatch(r"[a-z][a-z0-9_]*", candidate) and not _shadows_module(candidate):
        return candidate
    if name is None:
        return "mine"
    raise UsageError(
        "a recipe cannot have that name",
        expected="lower-case letters, digits and _, starting with a letter; no Python keyword or installed module",
        found=repr(name),
        hint="--name my_shop",
    )


def _shadows_module(name: str) -> bool:
    """Whether a module of this name would be invalid or hide one of Python, of Rankline or of a library."""
    import keyword
    import site
    from importlib.machinery import PathFinder

    if keyword.iskeyword(name) or name in sys.stdlib_module_names or name in PACKAGES:
        return True
    return PathFinder.find_spec(name, site.getsitepackages()) is not None


def _check_kind(kind: str | None) -> None:
    from onboarding.inference.recipe_kind import KINDS
    from rankline.errors import UsageError

    if kind is not None and kind not in KINDS:
        raise UsageError("there is no such kind of recipe", expected=", ".join(KINDS), found=kind)


def _refuse_incomplete(proposal: Proposal, questions: list[Gap], *, yes: bool) -> None:
    from rankline.errors import UsageError

    flags = list(dict.fromkeys(gap.flag for gap in questions)) + ([] if yes else ["--yes"])
    reason = "options are missing" if questions else "there is no terminal to ask in"
    raise UsageError(
        f"nothing was written: {reason}",
        expected=" ".join(flags),
        found=f"it would write {proposal.name}.toml and {proposal.name}.py ({proposal.kind})",
        hint="the same command with these options",
    )


def _dry_run_and_write(proposal: Proposal, output: Path, rows: int, *, force: bool, interactive: bool) -> None:
    from cli.data.init_output import print_dry_run
    from onboarding.inference.render import render_map, render_recipe

    map_path, recipe_path = output / f"{proposal.name}.toml", output / f"{proposal.name}.py"
    if not force:
        _refuse_existing(map_path, recipe_path)
    if interactive and not typer.confirm(f"\nwrite {map_path} and {recipe_path}?", default=True):
        raise typer.Exit(2)
    texts = {map_path: render_map(proposal), recipe_path: render_recipe(proposal, map_name=map_path.name)}
    result = _try_out(texts, recipe_path, proposal.name, rows)
    output.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    print_dry_run(result, has_times=bool(proposal.column("events", "timestamp")))
    is_refused = bool(result.refusal or result.tables_over_limit)
    for setting, value in proposal.recipe_settings.items():
        if setting.endswith(("scales", "stemmer")):
            typer.echo(f"the recipe sets {setting} = {json.dumps(value)} because of the data")
    where = "" if output.resolve() == Path.cwd() else f"PYTHONPATH={output} "
    typer.echo(f"\nwrote {map_path} (how to read it) and {recipe_path} (the recipe). Next:")
    if is_refused:
        typer.secho("  correct the map or the data: as they are, `rankline run` refuses them", fg=typer.colors.RED)
        raise typer.Exit(1)
    typer.echo(f"  {where}rankline data profile --recipe {proposal.name}:{proposal.name} --html profile.html")
    typer.echo(f"  {where}rankline run --recipe {proposal.name}:{proposal.name} -w .rankline-{proposal.name}")


def _refuse_existing(*paths: Path) -> None:
    from rankline.errors import UsageError

    existing = [path.name for path in paths if path.exists()]
    if existing:
        raise UsageError(
            f"{' and '.join(existing)} {'exists' if len(existing) == 1 else 'exist'} already",
            expected="a name that is free",
            where=str(paths[0].parent.resolve()),
            hint="--name another, or --force to overwrite",
        )


def _try_out(texts: dict[Path, str], recipe_path: Path, name: str, rows: int) -> DryRun:
    """Load the recipe from a temporary folder and run ingest on the first rows, before anything is written."""
    from cli.data.progress import EchoedProgress
    from onboarding.inference.dry_run import dry_run
    from rankline.errors import SourceError, UsageError

    with tempfile.TemporaryDirectory() as folder:
        for path, text in texts.items():
            Path(folder, path.name).write_text(text, encoding="utf-8")
        try:
            recipe = runpy.run_path(str(Path(folder, recipe_path.name)))[name]()
            return dry_run(recipe.ingest, events=rows, progress=EchoedProgress())
        except (SourceError, UsageError) as error:
            raise type(error)(
                f"nothing was written: ingest cannot read the source with this map: {error.message}",
                expected=error.expected,
                found=error.found,
                where=error.where if folder not in error.where else "",
                hint=f"{error.hint}; then run init again, with --column for columns that were mistaken",
            ) from error
