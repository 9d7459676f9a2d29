"""What `rankline init` prints: the source, the proposal, its gaps, and the dry run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from onboarding.inference.dry_run import DryRun
    from onboarding.inference.proposal import Proposal
    from onboarding.survey.survey import Survey

FORMATS = {"recbole": "a RecBole set", "beir": "a BEIR folder", "tables": "tables in files", "sql": "a database"}
CONFIDENCE_COLOURS = {"sure": "green", "likely": "yellow", "a guess": "red"}
WIDTH_WITHOUT_TERMINAL = 140
MIN_WIDTH_OF_REASONS = 120
MAX_LEFT_OUT = 6  # names of files that are shown


def print_source(survey: Survey) -> None:
    """Print what kind of source it is, and the encoding of its text if that was guessed."""
    from rankline.io.sources import mask_passwords

    typer.echo(f"{mask_passwords(survey.source) or survey.connection}: {FORMATS[survey.format]}")
    if survey.left_out:
        shown = [f"{name} ({why})" for name, why in list(survey.left_out.items())[:MAX_LEFT_OUT]]
        more = len(survey.left_out) - len(shown)
        typer.echo(f"left out: {', '.join(shown)}" + f" and {more} more files" * bool(more))
    if survey.format != "tables" or survey.files.encoding in ("utf-8", "ascii"):
        return
    columns = (stats for table in survey.tables.values() for stats in table.columns.values())
    example = next((each for stats in columns for each in stats.examples if not each.isascii()), "")
    other = survey.encoding.runner_up
    typer.echo(
        f"text is read as {survey.files.encoding}" + f", such as {example!r}" * bool(example)
        + (f" (if that is wrong: --encoding {other})" if other else " (if that is wrong: --encoding)")
    )  # fmt: skip


def print_proposal(proposal: Proposal) -> None:
    """Print the proposal: one table per role, the tables that are not used, the kind of recipe."""
    for role in proposal.roles:
        print_mapping(proposal, role)
    unused = [table for name, table in proposal.survey.tables.items() if name not in proposal.roles.values()]
    if unused:
        typer.echo("not used: " + ", ".join(f"{table.place or table.name} ({table.rows_text})" for table in unused))
    print_labels(proposal)
    if setting := proposal.user_features_setting:
        typer.echo(f"\nattributes of users are kept; the model does not read them until you add --set '{setting}'")
    typer.echo(f"\nrecipe: {proposal.kind}")


def print_labels(proposal: Proposal) -> None:
    """Print what the events say about items, if the map will declare labels."""
    from onboarding.inference.label_text import label_sentences, other_sentences

    sentences = label_sentences(proposal)
    if not sentences:
        return
    typer.secho("\nwhat an event says about an item:", bold=True)
    width = max(map(len, sentences))
    for name, sentence in sentences.items():
        typer.echo(f"  {name:<{width}}  {sentence}")
    for sentence in other_sentences(proposal):
        typer.echo(f"  - {sentence}")


def print_mapping(proposal: Proposal, role: str) -> None:
    """Print what the columns of a role's table look like and what they are taken for."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    survey = proposal.table(role)
    rows = f"{survey.rows:,} rows" if survey.is_complete else f"the first {survey.rows:,} rows"
    files = f" in {survey.files} files" if survey.files > 1 else ""
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL)
    with_reasons = console.width >= MIN_WIDTH_OF_REASONS
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{role}: {survey.place or survey.name} ({rows}{files})", title_justify="left",
        title_style="bold", pad_edge=False,
    )  # fmt: skip
    table.add_column("column", style="bold", overflow="ellipsis", max_width=28, no_wrap=True)
    table.add_column("looks like", no_wrap=True)
    table.add_column("examples", style="dim", overflow="ellipsis", no_wrap=True, max_width=44 if with_reasons else 20)
    table.add_column("is", style="cyan", no_wrap=True)
    table.add_column("how sure", overflow="fold")
    mappings = {each.column: each for each in proposal.column_mappings.get(role, ())}
    for name, stats in survey.columns.items():
        kind = stats.type_label + ("" if stats.filled > 0.999 else f", {1 - stats.filled:.0%} empty")
        examples = " · ".join(" ".join(each.split())[:24] for each in stats.examples)
        if match := mappings.get(name):
            label = match.confidence_label
            confidence = Text(label + f": {match.why}" * with_reasons, style=CONFIDENCE_COLOURS[label])
            table.add_row(Text(name), kind, Text(examples), match.setting, confidence)
        else:
            table.add_row(Text(name), kind, Text(examples), "-", Text(""))
    console.print(table)


def print_gaps(proposal: Proposal) -> None:
    """Print what is missing for a good model, and the options that answer open questions."""
    if proposal.gaps:
        typer.secho("\nmissing for a good model:", bold=True)
    for gap in proposal.gaps:
        flag = f" ({gap.flag})" if gap.flag else ""
        typer.echo(f"  - {gap.what}\n    {gap.advice}{flag}")


def print_dry_run(result: DryRun, *, has_times: bool) -> None:
    """Print what ingest read of the first rows and what it rejected."""
    typer.secho("\ndry run of ingest:", bold=True)
    for table, read in result.rows_read.items():
        if not read:
            continue
        reasons = result.rejected.get(table, {})
        rejected = sum(reasons.values())
        text = f", {rejected:,} rejected ({rejected / read:.1%})" if rejected else ", none rejected"
        typer.echo(f"  {table:<8} {read:>9,} rows{text}")
        for reason, count in sorted(reasons.items(), key=lambda each: -each[1]):
            example = " ".join(result.examples.get((table, reason), "").split())[:100]
            typer.echo(f"    {count:>7,} {reason}" + f": {example}" * bool(example))
    for column, rows in result.rows_without_column.items():
        typer.echo(f"  {column} is empty in {rows:,} rows: their files have no such column")
    if result.empty_files:
        typer.echo(
            f"  without bytes, and left out: {', '.join(path.rpartition('/')[2] for path in result.empty_files)}"
        )
    if result.event_time_span[0] and has_times:
        typer.echo(f"  these events are from {result.event_time_span[0]} to {result.event_time_span[1]}")
    if result.feedback:
        typer.echo(
            "  of these events, " + ", ".join(f"{rows:,} are {group}" for group, rows in result.feedback.items())
        )
    if result.refusal:
        typer.secho(f"  `rankline run` will refuse: {result.refusal}", fg=typer.colors.RED)
    for table in result.tables_over_limit:
        typer.secho(
            f"  too many {table} are rejected (at most {result.max_rejected_share:.0%}): `rankline run` will refuse; "
            "fix them, choose other columns, or raise ingest.max_rejected_share",
            fg=typer.colors.RED,
        )
    if result.hint:
        typer.secho(f"  try: {result.hint}", fg=typer.colors.RED)
