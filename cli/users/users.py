"""Erase users from a workspace."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.bucket_copy import bucket_of
from cli.options import WORKSPACE, AsJson, ReadWorkspace, require_workspace

if TYPE_CHECKING:
    from pipelines.erasure.erase import Erasure

app = typer.Typer(help="Erase users from everything that Rankline keeps.", no_args_is_help=True)


@app.command("erase")
def erase(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of users, as the source has them.")] = None,
    file: Annotated[str, typer.Option("--file", help="File with more ids, one per line; - reads standard input.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed or rewritten.")] = False,
    workspace: ReadWorkspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Erase users from the workspace and from every storage that its runs and schedules name.

    Finished steps that hold a user's rows are removed, and the next run computes them again. Online stores, their
    sources, logs, run records and profiles are written anew; of evidence, the tables of requests are removed and the
    reports stay. Then everything is searched for the ids, and the command fails if it finds one.

    The users go on a list of keyed hashes, <workspace>/erased, which ingest leaves out of every later run: data that
    brings them again does not bring them back. With ingest.hash_users, give the plain ids and set the key in the
    environment.

    Models that were trained before have learnt from these users: they hold no ids, and the next training replaces them.
    Sources outside of the workspace and copies that you made stay as they are.

    An id that is found nowhere is named: check how the source writes it.

    Exit code: 0 done; 1 something still holds an id; 2 wrong usage, or a run is in progress.

    Examples: rankline users erase u17; rankline users erase --file requests.txt --dry-run
    """
    from pipelines.erasure.erase import erase as erase_users

    users = _collect_ids(ids or [], file)
    workspace = require_workspace(workspace, "runs", "online", "erased", "schedules", "profiles")
    result = erase_users(
        workspace,
        users,
        bucket=bucket_of(workspace),
        dry_run=dry_run,
        say=lambda line: typer.echo(line, err=as_json),
    )
    typer.echo(json.dumps(result.as_dict(), indent=2) if as_json else _sentence(result))


def _collect_ids(ids: list[str], file: str) -> list[str]:
    """The ids of the command line and of a file, each once."""
    from rankline.errors import UsageError

    lines: list[str] = []
    if file:
        try:
            lines = (sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                "the file with the ids cannot be read", expected="UTF-8, one id per line", found=str(error), where=file
            ) from error
    users = [each for each in dict.fromkeys([*ids, *(line.strip() for line in lines)]) if each]
    if not users:
        raise UsageError("no user is named", expected="at least one id", hint="rankline users erase u17")
    return users


def _sentence(result: Erasure) -> str:
    """What was done, and the ids that are nowhere."""
    done = Counter(each.action for each in result.treated)
    online = ", ".join(f"{service} {users}" for service, users in result.online.items()) or "none"
    verb = "would be" if result.dry_run else "were"
    users = f"{result.users} user{'s' * (result.users != 1)}"
    lines = [
        f"{users}: {done['removed']} files and folders {verb} removed, {done['rewritten']} rewritten; "
        f"users with rows online: {online}",
    ]
    lines += [
        f"{each.place}/{each.path} {each.action}: {each.why}"
        for each in result.treated
        if each.action in ("kept", "stays")
    ]
    if not result.dry_run:
        lines.append("a search of everything finds none of the ids, and later runs leave these users out")
    listed = "" if result.dry_run else "; it is on the list, so later runs leave it out"
    lines += [f"not found anywhere: {each}: check how the source writes it{listed}" for each in result.unmatched]
    return "\n".join(lines)
