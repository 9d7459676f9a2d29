"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="RANKLINE_WORKSPACE",
        help="Folder of everything a run reads and leaves: material, cache, ledger, model repository.",
    ),
]  # fmt: skip
RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="Name of a recipe (`rankline recipes`), or module:function.")
]
SourcePath = Annotated[
    str | None, typer.Option("--source", help="Where the data is, for a recipe of anybody's (search, labels…).")
]
MapFile = Annotated[
    str | None, typer.Option("--map", help="TOML or JSON file that says how to read the source (`rankline init`).")
]
Settings = Annotated[
    list[str],
    typer.Option("--set", "-s", help="Change one knob: section.knob=value, such as finetune.epochs=3."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Url = Annotated[str, typer.Option("--url", envvar="RANKLINE_URL", help="Where the server answers.")]
RepositoryUrl = Annotated[
    str,
    typer.Option(
        "--repository", envvar="RANKLINE_REPOSITORY",
        help="Model repository: folder or bucket URL; the workspace's own if left out.",
    ),
]  # fmt: skip

WORKSPACE = Path(".rankline")


def require_workspace(workspace: Path) -> Path:
    """The workspace, which has to be there for a command that only looks.

    Raises:
        UsageError: with where it was looked for, and where there is one.
    """
    from rankline.errors import UsageError

    if workspace.is_dir():
        return workspace
    path = workspace.resolve()
    configured = os.environ.get("RANKLINE_WORKSPACE")
    origin = (
        "RANKLINE_WORKSPACE" if configured and Path(configured) == workspace else "--workspace, or the current folder"
    )
    ancestor = next((folder / WORKSPACE for folder in Path.cwd().parents if (folder / WORKSPACE).is_dir()), None)
    raise UsageError(
        "there is no workspace here",
        expected="a folder that a run has filled",
        found=f"no {path.name} in {path.parent}",
        where=f"{path} ({origin})",
        hint=f"-w {ancestor}, which is one" if ancestor else "`rankline demo` makes one; -w FOLDER names one elsewhere",
    )
