"""What the user says of the source to `rankline init`, by options or at prompts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from onboarding.inference.proposal import Proposal
    from onboarding.survey.survey import Survey

# settings that take lists of columns, or the column of a list; they are not confirmed one by one
LIST_SUFFIXES = ("attributes", "numbers", "vectors")


@dataclass
class Answers:
    """What the user says of the source, which goes before every guess."""

    name: str
    kind: str
    time_zone: str
    roles: dict[str, str] = field(default_factory=dict)  # role -> table
    columns: dict[str, str] = field(default_factory=dict)  # setting -> column

    def propose(self, survey: Survey) -> Proposal:
        """The proposal for a source with these answers."""
        from onboarding.inference.proposal import propose

        return propose(
            survey, name=self.name, roles=self.roles, kind=self.kind, time_zone=self.time_zone, overrides=self.columns
        )


def parse_columns(columns: list[str]) -> dict[str, str]:
    """setting=column, several times, as a dictionary."""
    from rankline.errors import UsageError

    overrides = {}
    for each in columns:
        setting, sign, column = each.partition("=")
        if not sign:
            raise UsageError("--column takes setting=column", expected="such as item_id=sku", found=each)
        overrides[setting.strip()] = column.strip()
    return overrides


def check_time_zone(zone: str) -> None:
    """Check that there is such a time zone.

    Raises:
        UsageError: there is none.
    """
    import zoneinfo

    from rankline.errors import UsageError

    if zone not in zoneinfo.available_timezones():
        raise UsageError("there is no such time zone", expected="UTC, or a name such as Europe/Berlin", found=zone)


def ask(survey: Survey, answers: Answers) -> Proposal:
    """The proposal after everything was confirmed or changed at prompts; fills ``answers``."""
    from onboarding.inference.proposal import check_time_unit

    _ask_roles(answers.propose(survey), answers)
    for role in answers.propose(survey).roles:
        _ask_columns(survey, role, answers)
    for gap in [gap for gap in answers.propose(survey).gaps if gap.flag]:
        if gap.flag == "--time-zone" and not answers.time_zone:
            typer.echo(f"{gap.what}.")
            answers.time_zone = _prompt("Which zone (UTC, Europe/Berlin, America/New_York…)", check_time_zone)
        elif "timestamp_unit" in gap.flag:
            typer.echo(f"{gap.what}.")
            if column := re.match(r"--column timestamp=(\S+) ", gap.flag):
                answers.columns["timestamp"] = column[1]
            question = "How is it written (s, ms, us, ns, iso, or a pattern)"
            answers.columns["timestamp_unit"] = _prompt(question, check_time_unit)
    return answers.propose(survey)


def _ask_roles(proposal: Proposal, answers: Answers) -> None:
    """Ask which table has each role, unless the format of the source defines it."""
    tables = proposal.survey.tables
    typer.echo("\ntables: " + ", ".join(f"{name} ({table.rows:,} rows)" for name, table in tables.items()))
    if proposal.survey.format in ("recbole", "beir"):
        return
    for role in ("events", "items", "users", "queries"):
        default = proposal.roles.get(role, "-")
        while True:
            answer = str(typer.prompt(f"which table has the {role} (- for none)", default=default))
            if answer in tables or (answer == "-" and role != "events"):
                break
            typer.echo(f"  one of {', '.join(tables)}")
        answers.roles[role] = "" if answer == "-" else answer


def _ask_columns(survey: Survey, role: str, answers: Answers) -> None:
    """Let the columns of a table be changed: uncertain ones one by one, then any."""
    from cli.data.init_output import print_mapping
    from rankline.errors import UsageError

    proposal = answers.propose(survey)
    print_mapping(proposal, role)
    table = proposal.table(role)
    for each in proposal.column_mappings.get(role, ()):
        is_list = each.setting.endswith(LIST_SUFFIXES) or each.setting == "text"
        if is_list or each.confidence_label == "sure" or each.setting in answers.columns:
            continue
        answer = str(typer.prompt(f"{each.setting} (a column, - for none)", default=each.column))
        if answer == "-" or answer in table.columns:
            answers.columns[each.setting] = "" if answer == "-" else answer
        else:
            typer.echo(f"  {table.name} has no column {answer}; nothing is changed")
    question = "change one? (setting=column, Enter to continue)"
    while change := str(typer.prompt(question, default="", show_default=False)):
        before = dict(answers.columns)
        try:
            answers.columns |= parse_columns([change])
            print_mapping(answers.propose(survey), role)
        except UsageError as error:
            answers.columns = before
            typer.secho(str(error), fg=typer.colors.RED)


def _prompt(question: str, check: Callable[[str], object]) -> str:
    """Ask until the answer is valid."""
    from rankline.errors import UsageError

    while True:
        answer = str(typer.prompt(question))
        try:
            check(answer)
        except UsageError as error:
            typer.secho(str(error), fg=typer.colors.RED)
        else:
            return answer
