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
    from onboarding.inference.trial import Proof
    from onboarding.survey import Survey

HELP = """Look at data of your own and write the map and the recipe that read it.

SOURCE is a folder, a file (Parquet, CSV, JSON lines, DuckDB), a RecBole set, a BEIR folder, or a URL
(s3://…, postgresql://host/database; the password comes from PGPASSWORD).

In a terminal every guess can be changed; --yes takes them all. What cannot be guessed (the zone of clocks) has to be
said either way. Exit code: 0 written, 2 something has to be said first, 1 the source cannot be read.

Example: rankline init /data/shop --name shop --time-zone Europe/Berlin --yes"""

Said = Annotated[
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
    columns: Said = [],  # noqa: B006
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

    asking = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    source = _source(source, connection, asking=asking)
    chosen = _name(name, source)
    said = _said(columns)
    _kind(kind)
    _zone(time_zone)
    roles = {"events": events, "items": items, "users": users, "queries": queries}
    given = {role: table for role, table in roles.items() if table}
    only = tuple(dict.fromkeys(given.values())) if "events" in given and "://" not in (events or "") else ()
    looked = survey(source, rows=rows, encoding=encoding or "", only=only, connection=connection)

    def proposal() -> Proposal:
        return propose(looked, name=chosen, roles=given, kind=kind or "", time_zone=time_zone or "", said=said)

    made = proposal()
    _show_source(looked)
    if asking:
        given |= _asked_roles(made)
        made = proposal()
        _ask_columns(made, said, again=proposal)
        made = proposal()
        for lack in [lack for lack in made.lacks if lack.flag]:
            if lack.flag == "--time-zone":
                typer.echo(f"{lack.what}.")
                time_zone = time_zone or _asked_zone()
            elif "timestamp_unit" in lack.flag:
                said["timestamp_unit"] = _asked_unit(lack.what)
        made = proposal()
    else:
        _show(made)
    _tell_lacks(made)
    if open_ := [lack for lack in made.lacks if lack.flag]:
        _refuse(made, open_, yes=yes)
    if not yes and not asking:
        _refuse(made, [], yes=yes)
    _prove_and_write(made, output, rows, force=force, asking=asking)


def _source(source: str | None, connection: str, *, asking: bool) -> str:
    from rankline.errors import UsageError

    if source is None and not connection:
        if not asking:
            raise UsageError(
                "where the data is was not said",
                expected="rankline init SOURCE",
                found="no source, and no terminal to ask in",
                hint="rankline init /data/shop --yes",
            )
        source = str(typer.prompt("Where is the data (folder, file or URL)"))
    return source or ""


def _name(name: str | None, source: str) -> str:
    """A name that is one for Python and for Kubeflow."""
    from rankline.errors import UsageError

    told = name or re.sub(r"[^a-z0-9]+", "_", re.split(r"[/?]", source.rstrip("/"))[-1].split(".")[0].lower()).strip(
        "_"
    )
    if re.fullmatch(r"[a-z][a-z0-9_]*", told) and not _taken(told):
        return told
    if name is None:
        return "mine"
    raise UsageError(
        "a recipe cannot have that name",
        expected="small letters, digits and _, a letter first; no word of Python, no module that is installed",
        found=repr(name),
        hint="--name my_shop",
    )


def _taken(name: str) -> bool:
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
    plain = not keyword.iskeyword(name) and name not in sys.stdlib_module_names and name not in ours
    return not plain or PathFinder.find_spec(name, site.getsitepackages()) is not None


def _said(columns: list[str]) -> dict[str, str]:
    from rankline.errors import UsageError

    told = {}
    for each in columns:
        meaning, sign, column = each.partition("=")
        if not sign:
            raise UsageError("--column is meaning=column", expected="such as item_id=sku", found=each)
        told[meaning.strip()] = column.strip()
    return told


def _kind(kind: str | None) -> None:
    from onboarding.inference.kinds import KINDS
    from rankline.errors import UsageError

    if kind is not None and kind not in KINDS:
        raise UsageError("there is no such kind of recipe", expected=", ".join(KINDS), found=kind)


def _zone(zone: str | None) -> None:
    import zoneinfo

    from rankline.errors import UsageError

    if zone is not None and zone not in zoneinfo.available_timezones():
        raise UsageError("there is no such time zone", expected="UTC, or a name such as Europe/Berlin", found=zone)


def _asked_zone() -> str:
    from rankline.errors import UsageError

    while True:
        zone = str(typer.prompt("Which zone (UTC, Europe/Berlin, America/New_York…)"))
        try:
            _zone(zone)
        except UsageError as error:
            typer.secho(str(error), fg=typer.colors.RED)
        else:
            return zone


def _asked_unit(what: str) -> str:
    from onboarding.inference import checked_unit
    from rankline.errors import UsageError

    typer.echo(f"{what}.")
    while True:
        try:
            return checked_unit(str(typer.prompt("How is it written (s, ms, us, ns, iso, or a pattern)")))
        except UsageError as error:
            typer.secho(str(error), fg=typer.colors.RED)


def _show_source(looked: Survey) -> None:
    from rankline.io.sources import masked

    kinds = {
        "recbole": "a RecBole set", "beir": "a BEIR folder", "tables": "tables in files", "sql": "a database",
    }  # fmt: skip
    typer.echo(f"{masked(looked.source) or looked.connection}: {kinds[looked.format]}")
    if looked.format == "tables" and looked.files.encoding not in ("utf-8", "ascii"):
        shown = next(
            (
                example
                for table in looked.tables.values()
                for facts in table.columns.values()
                for example in facts.examples
                if not example.isascii()
            ),
            "",
        )
        other = looked.encoding.runner_up
        typer.echo(
            f"text is read as {looked.files.encoding}" + f", such as {shown!r}" * bool(shown)
            + (f" (if that is wrong: --encoding {other})" if other else " (else: --encoding)")
        )  # fmt: skip


def _show(made: Proposal) -> None:
    """The proposal: a table of the source a table here, three example values a column."""
    for role in made.roles:
        _show_table(made, role)
    unused = [name for name in made.survey.tables if name not in made.roles.values()]
    if unused:
        typer.echo(f"not used: {', '.join(unused)}")
    typer.echo(f"\nrecipe: {made.kind}")


def _show_table(made: Proposal, role: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    seen = made.survey.tables[made.roles[role]]
    rows = f"{seen.rows:,} rows" if seen.whole else f"the first {seen.rows:,} rows"
    files = f" in {seen.files} files" if seen.files > 1 else ""
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)
    wide = console.width >= 120  # else the reasons would not find room
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{role}: {seen.place or seen.name} ({rows}{files})", title_justify="left",
        title_style="bold", pad_edge=False,
    )  # fmt: skip
    table.add_column("column", style="bold", overflow="ellipsis", max_width=28, no_wrap=True)
    table.add_column("looks like", no_wrap=True)
    table.add_column("examples", style="dim", overflow="ellipsis", no_wrap=True, max_width=44 if wide else 20)
    table.add_column("is", style="cyan", no_wrap=True)
    table.add_column("how sure", overflow="fold")
    meanings = {each.column: each for each in made.meanings.get(role, ())}
    colours = {"sure": "green", "likely": "yellow", "a guess": "red"}
    for name, facts in seen.columns.items():
        found = meanings.get(name)
        empty = "" if facts.filled > 0.999 else f", {1 - facts.filled:.0%} empty"
        examples = " · ".join(" ".join(each.split())[:24] for each in facts.examples)
        sure = Text(
            found.surety + f": {found.why}" * wide if found else "", style=colours[found.surety] if found else ""
        )
        table.add_row(Text(name), facts.shown + empty, Text(examples), found.setting if found else "-", sure)
    console.print(table)


def _asked_roles(made: Proposal) -> dict[str, str]:
    """Which table is what, confirmed one by one."""
    told = {}
    names = list(made.survey.tables)
    typer.echo("\ntables: " + ", ".join(f"{name} ({made.survey.tables[name].rows:,} rows)" for name in names))
    if made.survey.format in ("recbole", "beir"):
        return told
    for role in ("events", "items", "users", "queries"):
        while True:
            answer = str(typer.prompt(f"which table is of {role} (- for none)", default=made.roles.get(role, "-")))
            if answer in names or (answer == "-" and role != "events"):
                break
            typer.echo(f"  one of {', '.join(names)}")
        told[role] = "" if answer == "-" else answer
    return told


def _ask_columns(made: Proposal, said: dict[str, str], *, again: Any) -> None:
    """Every column confirmed: those that are not sure one by one, the others together."""
    from rankline.errors import UsageError

    for role in made.roles:
        _show_table(made, role)
        seen = made.survey.tables[made.roles[role]]
        for meaning in made.meanings.get(role, ()):
            single = not meaning.setting.endswith(("attributes", "numbers", "vectors")) and meaning.setting != "text"
            if single and meaning.surety != "sure" and meaning.setting not in said:
                answer = str(typer.prompt(f"{meaning.setting} (a column, - for none)", default=meaning.column))
                if answer == "-" or answer in seen.columns:
                    said[meaning.setting] = "" if answer == "-" else answer
                else:
                    typer.echo(f"  {seen.name} has no column {answer}; kept as it is")
        while change := str(
            typer.prompt("change one? (meaning=column, Enter to go on)", default="", show_default=False)
        ):
            before = dict(said)
            try:
                said |= _said([change])
                made = again()
                _show_table(made, role)
            except UsageError as error:
                said.clear()
                said |= before
                typer.secho(str(error), fg=typer.colors.RED)


def _tell_lacks(made: Proposal) -> None:
    if made.lacks:
        typer.secho("\nmissing for a good model:", bold=True)
    for lack in made.lacks:
        flag = f" ({lack.flag})" if lack.flag else ""
        typer.echo(f"  - {lack.what}\n    {lack.do}{flag}")


def _refuse(made: Proposal, open_: list[Any], *, yes: bool) -> None:
    """Nothing is written: say what has to be said first."""
    from rankline.errors import UsageError

    flags = list(dict.fromkeys(lack.flag for lack in open_)) + ([] if yes else ["--yes"])
    raise UsageError(
        "nothing was written: " + ("some things have to be said first" if open_ else "there is no terminal to ask in"),
        expected=" ".join(flags),
        found=f"it would write {made.name}.toml and {made.name}.py ({made.kind})",
        hint="the same command with these options",
    )


def _prove_and_write(made: Proposal, output: Path, rows: int, *, force: bool, asking: bool) -> None:
    import json

    from onboarding.inference.texts import map_text, recipe_text
    from onboarding.inference.trial import prove
    from rankline.errors import SourceError, UsageError

    map_path, recipe_path = output / f"{made.name}.toml", output / f"{made.name}.py"
    if there := [path.name for path in (map_path, recipe_path) if path.exists() and not force]:
        raise UsageError(
            f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already",
            expected="a name that is free",
            where=str(output.resolve()),
            hint="--name another, or --force to write over them",
        )
    if asking and not typer.confirm(f"\nwrite {map_path} and {recipe_path}?", default=True):
        raise typer.Exit(2)
    texts = {map_path: map_text(made), recipe_path: recipe_text(made, map_name=map_path.name)}
    with tempfile.TemporaryDirectory() as folder:  # what is written has been loaded and has read the source
        for path, text in texts.items():
            Path(folder, path.name).write_text(text, encoding="utf-8")
        try:
            recipe = runpy.run_path(str(Path(folder, recipe_path.name)))[made.name]()
            proof = prove(recipe.ingest, events=rows)
        except (SourceError, UsageError) as error:
            raise type(error)(
                f"nothing was written: ingest cannot read the source with this map: {error.message}",
                expected=error.expected, found=error.found, where=error.where if folder not in error.where else "",
                hint=f"{error.hint}; then run init again, with --column where a column was mistaken",
            ) from error  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    _tell_proof(proof, made)
    for knob in [knob for knob in made.knobs if knob.endswith(("scales", "stemmer"))]:
        typer.echo(f"the recipe sets {knob} = {json.dumps(made.knobs[knob])}, as the data asks for it")
    where = "" if output.resolve() == Path.cwd() else f"PYTHONPATH={output} "
    typer.echo(f"\nwrote {map_path} (how to read it) and {recipe_path} (the recipe). Next:")
    typer.echo(f"  {where}rankline data profile --recipe {made.name}:{made.name} --html profile.html")
    typer.echo(f"  {where}rankline run --recipe {made.name}:{made.name} -w .rankline-{made.name}")


def _tell_proof(proof: Proof, made: Proposal) -> None:
    """What ingest made of the first rows."""
    typer.secho("\ningest read, as a proof:", bold=True)
    for table, read in proof.read.items():
        if not read:
            continue
        reasons = proof.rejected.get(table, {})
        bad = sum(reasons.values())
        told = f", {bad:,} set aside ({bad / read:.1%})" if bad else ", none set aside"
        typer.echo(f"  {table:<8} {read:>9,} rows{told}")
        for reason, count in sorted(reasons.items(), key=lambda each: -each[1]):
            example = " ".join(proof.examples.get((table, reason), "").split())[:100]
            typer.echo(f"    {count:>7,} {reason}" + f": {example}" * bool(example))
    if proof.span[0] and made.column("events", "timestamp"):
        typer.echo(f"  the first of them happened {proof.span[0]}, the last {proof.span[1]}")
    for table in proof.too_many:
        typer.secho(
            f"  too many {table} are set aside (at most {proof.most_rejected:.0%}): `rankline run` will refuse; "
            "mend them, say other columns, or raise ingest.max_rejected_share",
            fg=typer.colors.RED,
        )
