"""Take items out of every answer, whichever model and catalogue serve, and let them in again."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Workspace, require_workspace
from rankline.runtime.current_user import current_user

if TYPE_CHECKING:
    from rankline.registry.model_registry import ModelRegistry

app = typer.Typer(help="Takedowns: items that no answer holds, within seconds and until shown.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(help="Item ids, as the catalogue has them.")]
IdsFile = Annotated[
    str, typer.Option("--file", help="File with one more item id a line, such as a recall; - for standard input.")
]
Why = Annotated[str, typer.Option("--why", help="The reason, kept in the history.")]


@app.command("hide")
def hide(
    ids: Ids = None,
    file: IdsFile = "",
    why: Why = "no reason given",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Hide nothing and exit with 1 where the catalogue does not know them all."),
    ] = False,
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Leave items out of every answer: of each server within its poll interval, of each later model and catalogue.

    They still count where they are in somebody's history. An id that the catalogue does not know is told on standard
    error and kept, too: it may come with the next catalogue. --strict refuses it.

    Example: rankline items hide 318 127 --why "recalled by the maker"
    """
    registry = _registry(workspace, repository)
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
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Let hidden items into the answers again, as far as the catalogue has them."""
    from rankline.errors import UsageError

    registry = _registry(workspace, repository)
    before = registry.hidden()
    items = _collect_ids(ids, file, hidden=before)
    known = [item for item in items if item in before]
    if not known:
        raise UsageError(
            "none of these items is hidden",
            expected=f"some of the {len(before)} that are",
            found=", ".join(items[:5]),
            where=registry.root,
            hint="`rankline items list` tells them",
        )
    event = registry.show(known, who=current_user(), why=why)
    _print_result(as_json, event=event.n, shown=known, not_hidden=[item for item in items if item not in before])


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """Every hidden item: since when, by whom, why, and whether the catalogue that serves knows it."""
    registry = _registry(workspace, repository)
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


def _registry(workspace: Path, repository: str) -> ModelRegistry:
    from rankline.registry.model_registry import ModelRegistry

    return ModelRegistry(repository or require_workspace(workspace) / "repository")


def _collect_ids(ids: Sequence[str] | None, file: str, *, hidden: Collection[str] = ()) -> list[str]:
    """The items of the command line and of the file, each once, in their order, without blanks around them.

    What is ``hidden`` with blanks is meant as it is written.
    """
    from rankline.errors import UsageError

    lines: list[str] = []
    if file:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
            lines = text.removeprefix("\ufeff").splitlines()  # spreadsheets begin a file with this mark
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                "the file of item ids cannot be read",
                expected="text with one id a line",
                found=str(error),
                where=file,
                hint="- reads standard input",
            ) from error
    given = (item if item in hidden else item.strip() for item in [*(ids or ()), *lines])
    return list(dict.fromkeys(item for item in given if item))


def _unknown_items(registry: ModelRegistry, items: Iterable[str]) -> list[str]:
    """Those that the catalogue which serves does not hold; none is told before there is one."""
    try:
        known = _catalogue_items(registry)
    except Exception as error:  # a takedown does not wait for a catalogue to be mended
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        typer.secho(f"the catalogue cannot be read: {why}", fg=typer.colors.YELLOW, err=True)
        return []
    return [] if known is None else [item for item in items if item not in known]


def _catalogue_items(registry: ModelRegistry) -> set[str] | None:
    """The items of the catalogue that serves; None before there is one."""
    champion_record = registry.champion_record()
    return (
        None if champion_record is None else set(registry.item_ids(champion_record.model_id, champion_record.revision))
    )


def _refuse_unknown(registry: ModelRegistry, items: Sequence[str]) -> None:
    """Stop unless the catalogue that serves holds every one of these.

    Raises:
        RepositoryError: it does not, there is none, or it cannot be read.
    """
    from rankline.errors import RegistryError

    try:
        known = _catalogue_items(registry)
        found = "no catalogue, as no model serves yet" if known is None else ""
    except Exception as error:  # Arrow has its own
        known, found = None, str(error).splitlines()[0] if str(error) else type(error).__name__
    unknown = [item for item in items if known is not None and item not in known]
    if known is None or unknown:
        raise RegistryError(
            "nothing is hidden: the catalogue does not know all of these items",
            expected="ids as the catalogue has them",
            found=found or f"{len(unknown)} of {len(items)} unknown: {', '.join(unknown[:20])}",
            where=registry.root,
            hint="without --strict those that are known are hidden, and the others once a catalogue has them",
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
            warning = f"warning: the catalogue does not know {', '.join(items)}; hidden if a later one does"
            typer.secho(warning, fg=typer.colors.YELLOW, err=True)
        elif items:
            typer.echo(f"{labels[name]}: {', '.join(items)}")
    typer.echo(f"event {event}; servers follow within their poll interval, 2 s")
