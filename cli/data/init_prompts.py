"""What `rankline init` asks in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from cli.data.init_output import print_mapping

if TYPE_CHECKING:
    from onboarding.inference.proposal import Proposal

# settings of one column each, which are confirmed one by one when they are not sure
LIST_SUFFIXES = ("attributes", "numbers", "vectors")


def prompt_roles(proposal: Proposal) -> dict[str, str]:
    """Ask which table has each role; empty for a role without a table."""
    answers: dict[str, str] = {}
    tables = proposal.survey.tables
    typer.echo("\ntables: " + ", ".join(f"{name} ({table.rows:,} rows)" for name, table in tables.items()))
    if proposal.survey.format in ("recbole", "beir"):
        return answers
    for role in ("events", "items", "users", "queries"):
        while True:
            default = proposal.roles.get(role, "-")
            answer = str(typer.prompt(f"which table has the {role} (- for none)", default=default))
            if answer in tables or (answer == "-" and role != "events"):
                break
            typer.echo(f"  one of {', '.join(tables)}")
        answers[role] = "" if answer == "-" else answer
    return answers


def prompt_columns(
    proposal: Proposal,
    overrides: dict[str, str],
    *,
    parse: Callable[[list[str]], dict[str, str]],
    propose_again: Callable[[], Proposal],
) -> None:
    """Let every column be confirmed or changed: uncertain ones one by one, then any of a table; fills ``overrides``."""
    for role in proposal.roles:
        print_mapping(proposal, role)
        _confirm_uncertain(proposal, role, overrides)
        while change := str(
            typer.prompt("change one? (setting=column, Enter to continue)", default="", show_default=False)
        ):
            proposal = _apply(change, proposal, overrides, parse, propose_again)
            print_mapping(proposal, role)


def _confirm_uncertain(proposal: Proposal, role: str, overrides: dict[str, str]) -> None:
    table = proposal.table(role)
    for each in proposal.column_mappings.get(role, ()):
        is_list = each.setting.endswith(LIST_SUFFIXES) or each.setting == "text"
        if is_list or each.confidence_label == "sure" or each.setting in overrides:
            continue
        answer = str(typer.prompt(f"{each.setting} (a column, - for none)", default=each.column))
        if answer == "-" or answer in table.columns:
            overrides[each.setting] = "" if answer == "-" else answer
        else:
            typer.echo(f"  {table.name} has no column {answer}; nothing is changed")


def _apply(
    change: str,
    proposal: Proposal,
    overrides: dict[str, str],
    parse: Callable[[list[str]], dict[str, str]],
    propose_again: Callable[[], Proposal],
) -> Proposal:
    """The proposal after a change; the same one, and the reason, if the change is not possible."""
    from rankline.errors import UsageError

    before = dict(overrides)
    try:
        overrides |= parse([change])
        return propose_again()
    except UsageError as error:
        overrides.clear()
        overrides |= before
        typer.secho(str(error), fg=typer.colors.RED)
        return proposal


def prompt_time_zone(check: Callable[[str], None]) -> str:
    """Ask for the time zone until it is one."""
    return _prompt_until_valid("Which zone (UTC, Europe/Berlin, America/New_York…)", check)


def prompt_time_unit(check: Callable[[str], object]) -> str:
    """Ask for the unit or the pattern of times until it is one."""
    return _prompt_until_valid("How is it written (s, ms, us, ns, iso, or a pattern)", check)


def _prompt_until_valid(question: str, check: Callable[[str], object]) -> str:
    from rankline.errors import UsageError

    while True:
        answer = str(typer.prompt(question))
        try:
            check(answer)
        except UsageError as error:
            typer.secho(str(error), fg=typer.colors.RED)
        else:
            return answer
