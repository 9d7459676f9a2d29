"""Take items out of every answer, whichever model and catalogue serve, and let them in again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import WORKSPACE, AsJson, RepositoryUrl, Workspace, existing
from rankline.person import person

if TYPE_CHECKING:
    from rankline.repository import Repository

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
    workspace: Workspace = WORKSPACE,
    repository: RepositoryUrl = "",
    as_json: AsJson = False,
) -> None:
    """Leave items out of every answer: of each server within its poll interval, of each later model and catalogue.

    They still count where they are in somebody's history. An id that the catalogue does not know is kept, too: it may
    come with the next catalogue.

    Example: rankline items hide 318 127 --why "recalled by the maker"
    """
    models = _models(workspace, repository)
    items = _given(ids, file)
    before = models.hidden()
    event = models.hide(items, who=person(), why=why)
    _tell(
        as_json,
        event=event.n,
        hidden=items,
        already=[item for item in items if item in before],
        unknown=_unknown(models, items),
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

    models = _models(workspace, repository)
    items = _given(ids, file)
    before = models.hidden()
    known = [item for item in items if item in before]
    if not known:
        raise UsageError(
            "none of these items is hidden",
            expected=f"some of the {len(before)} that are",
            found=", ".join(items[:5]),
            where=models.root,
            hint="`rankline items list` tells them",
        )
    event = models.show(known, who=person(), why=why)
    _tell(as_json, event=event.n, shown=known, not_hidden=[item for item in items if item not in before])


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, repository: RepositoryUrl = "", as_json: AsJson = False) -> None:
    """Every hidden item: since when, by whom, why, and whether the catalogue that serves knows it."""
    models = _models(workspace, repository)
    hidden = models.hidden()
    unknown = set(_unknown(models, hidden))
    if as_json:
        told = [
            {"item_id": item, "event": e.n, "at": e.at, "who": e.who, "why": e.why, "known": item not in unknown}
            for item, e in sorted(hidden.items())
        ]
        typer.echo(json.dumps(told, indent=2))
        return
    if not hidden:
        typer.echo("no item is hidden")
    for item, event in sorted(hidden.items()):
        lacking = "  (not in the catalogue)" if item in unknown else ""
        typer.echo(f"{item:<16}  {event.at:<24}  {event.who:<10}  {event.why}{lacking}")


def _models(workspace: Path, repository: str) -> Repository:
    from rankline.repository import Repository

    return Repository(repository or existing(workspace) / "repository")


def _given(ids: Sequence[str] | None, file: str) -> list[str]:
    """The items of the command line and of the file, each once, in their order."""
    from rankline.errors import UsageError

    lines: list[str] = []
    if file:
        try:
            lines = (sys.stdin.read() if file == "-" else Path(file).read_text()).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                "the file of item ids cannot be read",
                expected="text with one id a line",
                found=str(error),
                where=file,
                hint="- reads standard input",
            ) from error
    return list(dict.fromkeys(item for item in [*(ids or ()), *map(str.strip, lines)] if item))


def _unknown(models: Repository, items: Iterable[str]) -> list[str]:
    """Those that the catalogue which serves does not hold; none is told before there is one."""
    from rankline.errors import RanklineError

    pointer = models.pointer()
    if pointer is None:
        return []
    try:
        known = set(models.item_ids(pointer.model_id, pointer.revision))
    except (RanklineError, OSError) as error:  # a takedown does not wait for a catalogue to be mended
        typer.secho(f"the catalogue cannot be read: {str(error).splitlines()[0]}", fg=typer.colors.YELLOW, err=True)
        return []
    return [item for item in items if item not in known]


def _tell(as_json: bool, *, event: int, **told: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps({"event": event, **told}, indent=2))
        return
    words = {
        "hidden": "hidden from every answer",
        "shown": "shown again",
        "already": "hidden before",
        "not_hidden": "not hidden, left as they are",
    }
    for name, items in told.items():
        if items and name == "unknown":
            warning = f"warning: the catalogue does not know {', '.join(items)}; hidden if a later one does"
            typer.secho(warning, fg=typer.colors.YELLOW, err=True)
        elif items:
            typer.echo(f"{words[name]}: {', '.join(items)}")
    typer.echo(f"event {event}; servers follow within their poll interval, 2 s")
