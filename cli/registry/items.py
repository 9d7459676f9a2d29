"""Takedowns: hide items from every answer, whichever model and catalogue serve, and show them again."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, ReadWorkspace, RepositoryUrl, open_registry
from rankline.runtime.current_user import current_user

if TYPE_CHECKING:
    from rankline.registry.model_registry import ModelRegistry

app = typer.Typer(help="Hide items from every answer within seconds, and show them again.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(help="Item ids, as the catalogue has them.")]
IdsFile = Annotated[
    str, typer.Option("--file", help="File with more item ids, one per line, such as a recall; - reads standard input.")
]
Why = Annotated[str, typer.Option("--why", help="The reason, recorded in the history.")]


@app.command("hide")
def hide(
    ids: Ids = None,
    file: IdsFile = "",
    why: Why = "no reason given",
    strict: Annotated[
        bool, typer.Option("--strict", help="Hide nothing and exit with 1 if the catalogue does not have all of them.")
    ] = False,
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Hide items from every answer: on running servers within their poll interval, and in every later catalogue.

    Hidden items still count as history of the users who interacted with them. An id that the catalogue does not have
    is reported on standard error and hidden as well, since a later catalogue may have it; --strict refuses it.

    Example: rankline items hide 318 127 --why "recalled by the maker"
    """
    registry = open_registry(workspace, repository)
    items = _collect_ids(ids, file)
    if strict:
        _refuse_unknown(registry, items)
    before = registry.hidden()
    event = registry.hide(items, who=current_user(), why=why)
    unknown = _unknown_items(registry, items)
    _print_result(
        as_json,
        event=event.n,
        hidden=[item for item in items if item not in set(unknown)],
        already=[item for item in items if item in before],
        unknown=unknown,
    )


@app.command("show")
def show(
    ids: Ids = None,
    file: IdsFile = "",
    why: Why = "no reason given",
    workspace: ReadWorkspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Show hidden items again, if the catalogue has them."""
    from rankline.errors import UsageError

    registry = open_registry(workspace, repository)
    before = registry.hidden()
    items = _collect_ids(ids, file, hidden=before)
    known = [item for item in items if item in before]
    if not known:
        raise UsageError(
            "none of these items is hidden",
            expected=f"some of the {len(before)} hidden items",
            found=", ".join(items[:5]),
            where=registry.root,
            hint="`rankline items list` lists them",
        )
    event = registry.show(known, who=current_user(), why=why)
    _print_result(as_json, event=event.n, shown=known, not_hidden=[item for item in items if item not in before])


@app.command("list")
def list_(workspace: ReadWorkspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """List every hidden item: since when, by whom, why, and whether the current catalogue has it."""
    registry = open_registry(workspace, repository)
    hidden = registry.hidden()
    unknown = set(_unknown_items(registry, hidden))
    if as_json:
        payload = [
            {"item_id": item, "event": e.n, "at": e.at, "who": e.who, "why": e.why, "known": item not in unknown}
            for item, e in sorted(hidden.items())
        ]
        typer.echo(json.dumps(payload, indent=2))
        return
    if not hidden:
        typer.echo("no item is hidden")
    for item, event in sorted(hidden.items()):
        note = "  (not in the catalogue)" if item in unknown else ""
        typer.echo(f"{item:<16}  {event.at:<24}  {event.who:<10}  {event.why}{note}")


def _collect_ids(ids: Sequence[str] | None, file: str, *, hidden: Collection[str] = ()) -> list[str]:
    """The distinct items of the command line and of the file, in order, stripped unless ``hidden`` with the spaces."""
    from rankline.errors import UsageError

    lines: list[str] = []
    if file:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
            lines = text.removeprefix("\ufeff").splitlines()  # spreadsheets write a byte order mark
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                "the file of item ids cannot be read",
                expected="text with one id per line",
                found=str(error),
                where=file,
                hint="- reads standard input",
            ) from error
    items = (item if item in hidden else item.strip() for item in [*(ids or ()), *lines])
    return list(dict.fromkeys(item for item in items if item))


def _unknown_items(registry: ModelRegistry, items: Iterable[str]) -> list[str]:
    """The items that the current catalogue does not have; none if there is no catalogue yet."""
    try:
        known = _catalogue_items(registry)
    except Exception as error:  # a takedown must not depend on a readable catalogue
        from rankline.io.files import first_line

        typer.secho(f"the catalogue cannot be read: {first_line(error)}", fg=typer.colors.YELLOW, err=True)
        return []
    return [] if known is None else [item for item in items if item not in known]


def _catalogue_items(registry: ModelRegistry) -> set[str] | None:
    """The items of the current catalogue; None if there is none yet."""
    champion = registry.champion_record()
    return None if champion is None else set(registry.item_ids(champion.model_id, champion.revision))


def _refuse_unknown(registry: ModelRegistry, items: Sequence[str]) -> None:
    """Check that the current catalogue has all of these items."""
    from rankline.errors import RegistryError
    from rankline.io.files import first_line

    matches = ""
    try:
        known = _catalogue_items(registry)
    except Exception as error:  # Arrow has its own errors
        known, matches = None, first_line(error)
    unknown = [item for item in items if known is not None and item not in known]
    if unknown:
        matches = f"{len(unknown)} of {len(items)} unknown: {', '.join(unknown[:20])}"
    if known is None or unknown:
        raise RegistryError(
            "nothing is hidden: the catalogue does not have all of these items",
            expected="ids as the catalogue has them",
            found=matches or "no catalogue, as no model serves yet",
            where=registry.root,
            hint="without --strict the known ones are hidden now, and the others as soon as a catalogue has them",
        )


def _print_result(as_json: bool, *, event: int, **results: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps({"event": event, **results}, indent=2))
        return
    labels = {
        "hidden": "hidden from every answer",
        "shown": "shown again",
        "already": "hidden before",
        "not_hidden": "not hidden, left as they are",
    }
    for name, items in results.items():
        if items and name == "unknown":
            warning = f"warning: the catalogue does not have {', '.join(items)}; hidden if a later one does"
            typer.secho(warning, fg=typer.colors.YELLOW, err=True)
        elif items:
            typer.echo(f"{labels[name]}: {', '.join(items)}")
    typer.echo(f"event {event}; servers follow within their poll interval of 2 s")
