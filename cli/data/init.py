"""Bring your own data: look at it, propose how to read it, write the map and the recipe, and prove that they fit."""

from __future__ import annotations

import os
import re
import runpy
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from onboarding.inference import Proposal
    from onboarding.inference.trial import DryRun
    from onboarding.survey import Survey

HELP = """Look at data of your own and write the map and the recipe that read it.

SOURCE is a folder, a file (Parquet, CSV, JSON lines, DuckDB), a RecBole set, a BEIR folder, or a URL
(s3://…, postgresql://host/database; the password comes from PGPASSWORD).

In a terminal every guess can be changed; --yes takes them all. What cannot be guessed (the zone of clocks) has to be
said either way. Exit code: 0 written, 2 something has to be said first, 1 the source cannot be read.

Example: rankline init /data/shop --name shop --time-zone Europe/Berlin --yes"""

ColumnOption = Annotated[
    list[str],
    typer.Option("--column", "-c", help="Say what a column is: meaning=column, such as item_id=sku or title=name."),
]


def init(
    source: Annotated[str | None, typer.Argument(help="Where the data is.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the recipe; else that of the folder.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="What to learn: interactions, search, labels or shop (search for users).")
    ] = None,
    events: Annotated[
        str | None, typer.Option(help="Table of events: file, pattern, folder; of databases a name or query.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="Table of items, said in the same way.")] = None,
    users: Annotated[str | None, typer.Option(help="Table of users.")] = None,
    queries: Annotated[str | None, typer.Option(help="Table of queries.")] = None,
    columns: ColumnOption = [],  # noqa: B006
    time_zone: Annotated[
        str | None, typer.Option(help="Zone of clocks that do not tell theirs: UTC, Europe/Berlin…")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files, where the guess is wrong.")] = None,
    connection: Annotated[str, typer.Option(help="Variable that holds a Postgres URL, password and all.")] = "",
    rows: Annotated[
        int, typer.Option(min=100, help="Rows of each table to look at, and events to prove the map on.")
    ] = 100_000,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the map and the recipe.")] = Path("."),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposal as it is; ask nothing.")] = False,
    force: Annotated[bool, typer.Option(help="Write over files that are there.")] = False,
) -> None:  # fmt: skip
    """See HELP."""
    from onboarding.inference import propose
    from onboarding.survey import survey

    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    source = _resolve_source(source, connection, interactive=interactive)
    recipe_name = _recipe_name(name, source)
    overrides = _parse_columns(columns)
    _check_kind(kind)
    _check_time_zone(time_zone)
    roles = {"events": events, "items": items, "users": users, "queries": queries}
    given_roles = {role: table for role, table in roles.items() if table}
    only = tuple(dict.fromkeys(given_roles.values())) if "events" in given_roles and "://" not in (events or "") else ()
    source_survey = survey(source, rows=rows, encoding=encoding or "", only=only, connection=connection)

    def proposal() -> Proposal:
        return propose(
            source_survey,
            name=recipe_name,
            roles=given_roles,
            kind=kind or "",
            time_zone=time_zone or "",
            overrides=overrides,
        )

    draft = proposal()
    _print_source(source_survey)
    if interactive:
        given_roles |= _prompt_roles(draft)
        draft = proposal()
        _prompt_columns(draft, overrides, again=proposal)
        draft = proposal()
        for gap in [gap for gap in draft.gaps if gap.flag]:
            if gap.flag == "--time-zone":
                typer.echo(f"{gap.what}.")
                time_zone = time_zone or _prompt_time_zone()
            elif "timestamp_unit" in gap.flag:
                overrides["timestamp_unit"] = _prompt_time_unit(gap.what)
        draft = proposal()
    else:
        _print_proposal(draft)
    _print_gaps(draft)
    if unanswered := [gap for gap in draft.gaps if gap.flag]:
        _refuse_incomplete(draft, unanswered, yes=yes)
    if not yes and not interactive:
        _refuse_incomplete(draft, [], yes=yes)
    _dry_run_and_write(draft, output, rows, force=force, interactive=interactive)


def _resolve_source(source: str | None, connection: str, *, interactive: bool) -> str:
    from rankline.errors import UsageError

    if source is None and not connection:
        if not interactive:
            raise UsageError(
                "where the data is was not said",
                expected="rankline init SOURCE",
                found="no source, and no terminal to ask in",
                hint="rankline init /data/shop --yes",
            )
        source = str(typer.prompt("Where is the data (folder, file or URL)"))
    return source or ""


def _recipe_name(name: str | None, source: str) -> str:
    """A name that is one for Python and for Kubeflow."""
    from rankline.errors import UsageError

    candidate = name or re.sub(
        r"[^a-z0-9]+", "_", re.split(r"[/?]", source.rstrip("/"))[-1].split(".")[0].lower()
    ).strip("_")
    if re.fullmatch(r"[a-z][a-z0-9_]*", candidate) and not _shadows_module(candidate):
        return candidate
    if name is None:
        return "mine"
    raise UsageError(
        "a recipe cannot have that name",
        expected="small letters, digits and _, a letter first; no word of Python, no module that is installed",
        found=repr(name),
        hint="--name my_shop",
    )


def _shadows_module(name: str) -> bool:
    """Would a module of this name be none, or another one: Python's, Rankline's, a library's?"""
    import keyword
    import site
    from importlib.machinery import PathFinder

    ours = (
        "benchmarks",
        "cli",
        "components",
        "feature_repo",
        "onboarding",
        "pipelines",
        "rankline",
        "recipes",
        "serving",
    )
    is_free = not keyword.iskeyword(name) and name not in sys.stdlib_module_names and name not in ours
    return not is_free or PathFinder.find_spec(name, site.getsitepackages()) is not None


def _parse_columns(columns: list[str]) -> dict[str, str]:
    from rankline.errors import UsageError

    overrides = {}
    for each in columns:
        meaning, sign, column = each.partition("=")
        if not sign:
            raise UsageError("--column is meaning=column", expected="such as item_id=sku", found=each)
        overrides[meaning.strip()] = column.strip()
    return overrides


def _check_kind(kind: str | None) -> None:
    from onboarding.inference.kinds import KINDS
    from rankline.errors import UsageError

    if kind is not None and kind not in KINDS:
        raise UsageError("there is no such kind of recipe", expected=", ".join(KINDS), found=kind)


def _check_time_zone(zone: str | None) -> None:
    import zoneinfo

    from rankline.errors import UsageError

    if zone is not None and zone not in zoneinfo.available_timezones():
        raise UsageError("there is no such time zone", expected="UTC, or a name such as Europe/Berlin", found=zone)


def _prompt_time_zone() -> str:
    from rankline.errors import UsageError

    while True:
        zone = str(typer.prompt("Which zone (UTC, Europe/Berlin, America/New_York…)"))
        try:
            _check_time_zone(zone)
        except UsageError as error:
            typer.secho(str(error), fg=typer.colors.RED)
        else:
            return zone


def _prompt_time_unit(what: str) -> str:
    from onboarding.inference import check_time_unit
    from rankline.errors import UsageError

    typer.echo(f"{what}.")
    while True:
        try:
            return check_time_unit(str(typer.prompt("How is it written (s, ms, us, ns, iso, or a pattern)")))
        except UsageError as error:
            typer.secho(str(error), fg=typer.colors.RED)


def _print_source(source_survey: Survey) -> None:
    from rankline.io.sources import mask_passwords

    kinds = {
        "recbole": "a RecBole set", "beir": "a BEIR folder", "tables": "tables in files", "sql": "a database",
    }  # fmt: skip
    typer.echo(f"{mask_passwords(source_survey.source) or source_survey.connection}: {kinds[source_survey.format]}")
    if source_survey.format == "tables" and source_survey.files.encoding not in ("utf-8", "ascii"):
        example_value = next(
            (
                example
                for table in source_survey.tables.values()
                for stats in table.columns.values()
                for example in stats.examples
                if not example.isascii()
            ),
            "",
        )
        other = source_survey.encoding.runner_up
        typer.echo(
            f"text is read as {source_survey.files.encoding}" + f", such as {example_value!r}" * bool(example_value)
            + (f" (if that is wrong: --encoding {other})" if other else " (else: --encoding)")
        )  # fmt: skip


def _print_proposal(proposal: Proposal) -> None:
    """The proposal: a table of the source a table here, three example values a column."""
    for role in proposal.roles:
        _print_table(proposal, role)
    unused = [name for name in proposal.survey.tables if name not in proposal.roles.values()]
    if unused:
        typer.echo(f"not used: {', '.join(unused)}")
    typer.echo(f"\nrecipe: {proposal.kind}")


def _print_table(proposal: Proposal, role: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table_survey = proposal.survey.tables[proposal.roles[role]]
    rows = f"{table_survey.rows:,} rows" if table_survey.is_complete else f"the first {table_survey.rows:,} rows"
    files = f" in {table_survey.files} files" if table_survey.files > 1 else ""
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)
    wide = console.width >= 120  # else the reasons would not find room
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{role}: {table_survey.place or table_survey.name} ({rows}{files})", title_justify="left",
        title_style="bold", pad_edge=False,
    )  # fmt: skip
    table.add_column("column", style="bold", overflow="ellipsis", max_width=28, no_wrap=True)
    table.add_column("looks like", no_wrap=True)
    table.add_column("examples", style="dim", overflow="ellipsis", no_wrap=True, max_width=44 if wide else 20)
    table.add_column("is", style="cyan", no_wrap=True)
    table.add_column("how sure", overflow="fold")
    meanings = {each.column: each for each in proposal.column_mappings.get(role, ())}
    colours = {"sure": "green", "likely": "yellow", "a guess": "red"}
    for name, stats in table_survey.columns.items():
        match = meanings.get(name)
        empty = "" if stats.filled > 0.999 else f", {1 - stats.filled:.0%} empty"
        examples = " · ".join(" ".join(each.split())[:24] for each in stats.examples)
        confidence = Text(
            match.confidence_label + f": {match.why}" * wide if match else "",
            style=colours[match.confidence_label] if match else "",
        )
        table.add_row(Text(name), stats.type_label + empty, Text(examples), match.setting if match else "-", confidence)
    console.print(table)


def _prompt_roles(proposal: Proposal) -> dict[str, str]:
    """Which table is what, confirmed one by one."""
    answers = {}
    names = list(proposal.survey.tables)
    typer.echo("\ntables: " + ", ".join(f"{name} ({proposal.survey.tables[name].rows:,} rows)" for name in names))
    if proposal.survey.format in ("recbole", "beir"):
        return answers
    for role in ("events", "items", "users", "queries"):
        while True:
            answer = str(typer.prompt(f"which table is of {role} (- for none)", default=proposal.roles.get(role, "-")))
            if answer in names or (answer == "-" and role != "events"):
                break
            typer.echo(f"  one of {', '.join(names)}")
        answers[role] = "" if answer == "-" else answer
    return answers


def _prompt_columns(proposal: Proposal, overrides: dict[str, str], *, again: Any) -> None:
    """Every column confirmed: those that are not sure one by one, the others together."""
    from rankline.errors import UsageError

    for role in proposal.roles:
        _print_table(proposal, role)
        table_survey = proposal.survey.tables[proposal.roles[role]]
        for meaning in proposal.column_mappings.get(role, ()):
            takes_one_column = (
                not meaning.setting.endswith(("attributes", "numbers", "vectors")) and meaning.setting != "text"
            )
            if takes_one_column and meaning.confidence_label != "sure" and meaning.setting not in overrides:
                answer = str(typer.prompt(f"{meaning.setting} (a column, - for none)", default=meaning.column))
                if answer == "-" or answer in table_survey.columns:
                    overrides[meaning.setting] = "" if answer == "-" else answer
                else:
                    typer.echo(f"  {table_survey.name} has no column {answer}; kept as it is")
        while change := str(
            typer.prompt("change one? (meaning=column, Enter to go on)", default="", show_default=False)
        ):
            before = dict(overrides)
            try:
                overrides |= _parse_columns([change])
                proposal = again()
                _print_table(proposal, role)
            except UsageError as error:
                overrides.clear()
                overrides |= before
                typer.secho(str(error), fg=typer.colors.RED)


def _print_gaps(proposal: Proposal) -> None:
    if proposal.gaps:
        typer.secho("\nmissing for a good model:", bold=True)
    for gap in proposal.gaps:
        flag = f" ({gap.flag})" if gap.flag else ""
        typer.echo(f"  - {gap.what}\n    {gap.advice}{flag}")


def _refuse_incomplete(proposal: Proposal, unanswered: list[Any], *, yes: bool) -> None:
    """Nothing is written: say what has to be said first."""
    from rankline.errors import UsageError

    flags = list(dict.fromkeys(gap.flag for gap in unanswered)) + ([] if yes else ["--yes"])
    raise UsageError(
        "nothing was written: "
        + ("some things have to be said first" if unanswered else "there is no terminal to ask in"),
        expected=" ".join(flags),
        found=f"it would write {proposal.name}.toml and {proposal.name}.py ({proposal.kind})",
        hint="the same command with these options",
    )


def _dry_run_and_write(proposal: Proposal, output: Path, rows: int, *, force: bool, interactive: bool) -> None:
    import json

    from onboarding.inference.texts import render_map, render_recipe
    from onboarding.inference.trial import dry_run
    from rankline.errors import SourceError, UsageError

    map_path, recipe_path = output / f"{proposal.name}.toml", output / f"{proposal.name}.py"
    if existing := [path.name for path in (map_path, recipe_path) if path.exists() and not force]:
        raise UsageError(
            f"{' and '.join(existing)} {'is' if len(existing) == 1 else 'are'} there already",
            expected="a name that is free",
            where=str(output.resolve()),
            hint="--name another, or --force to write over them",
        )
    if interactive and not typer.confirm(f"\nwrite {map_path} and {recipe_path}?", default=True):
        raise typer.Exit(2)
    texts = {map_path: render_map(proposal), recipe_path: render_recipe(proposal, map_name=map_path.name)}
    with tempfile.TemporaryDirectory() as folder:  # what is written has been loaded and has read the source
        for path, text in texts.items():
            Path(folder, path.name).write_text(text, encoding="utf-8")
        try:
            recipe = runpy.run_path(str(Path(folder, recipe_path.name)))[proposal.name]()
            proof = dry_run(recipe.ingest, events=rows)
        except (SourceError, UsageError) as error:
            raise type(error)(
                f"nothing was written: ingest cannot read the source with this map: {error.message}",
                expected=error.expected, found=error.found, where=error.where if folder not in error.where else "",
                hint=f"{error.hint}; then run init again, with --column where a column was mistaken",
            ) from error  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    _print_dry_run(proof, proposal)
    for setting in [setting for setting in proposal.recipe_settings if setting.endswith(("scales", "stemmer"))]:
        typer.echo(
            f"the recipe sets {setting} = {json.dumps(proposal.recipe_settings[setting])}, as the data asks for it"
        )
    where = "" if output.resolve() == Path.cwd() else f"PYTHONPATH={output} "
    typer.echo(f"\nwrote {map_path} (how to read it) and {recipe_path} (the recipe). Next:")
    typer.echo(f"  {where}rankline data profile --recipe {proposal.name}:{proposal.name} --html profile.html")
    typer.echo(f"  {where}rankline run --recipe {proposal.name}:{proposal.name} -w .rankline-{proposal.name}")


def _print_dry_run(result: DryRun, proposal: Proposal) -> None:
    """What ingest made of the first rows."""
    typer.secho("\ningest read, as a proof:", bold=True)
    for table, read in result.rows_read.items():
        if not read:
            continue
        reasons = result.rejected.get(table, {})
        bad = sum(reasons.values())
        rejected_text = f", {bad:,} set aside ({bad / read:.1%})" if bad else ", none set aside"
        typer.echo(f"  {table:<8} {read:>9,} rows{rejected_text}")
        for reason, count in sorted(reasons.items(), key=lambda each: -each[1]):
            example = " ".join(result.examples.get((table, reason), "").split())[:100]
            typer.echo(f"    {count:>7,} {reason}" + f": {example}" * bool(example))
    if result.event_time_span[0] and proposal.column("events", "timestamp"):
        typer.echo(f"  the first of them happened {result.event_time_span[0]}, the last {result.event_time_span[1]}")
    for table in result.tables_over_limit:
        typer.secho(
            f"  too many {table} are set aside (at most {result.max_rejected_share:.0%}): `rankline run` will refuse; "
            "mend them, say other columns, or raise ingest.max_rejected_share",
            fg=typer.colors.RED,
        )
