"""Options that several commands share, and what they open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.bucket_copy import bucket_of, folder, folder_or_copy

if TYPE_CHECKING:
    from rankline.registry.model_registry import ModelRegistry
    from rankline.registry.registry_state import Champion

Workspace = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="RANKLINE_WORKSPACE", parser=folder, metavar="<path>",
        help="Folder of everything runs read and write: data, cache, run ledger, model registry.",
    ),
]  # fmt: skip
ReadWorkspace = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="RANKLINE_WORKSPACE", parser=folder_or_copy, metavar="<path or url>",
        help="Folder of everything runs read and write, or URL of a workspace in a bucket (storage.workspace).",
    ),
]  # fmt: skip
RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="Name of a recipe (`rankline recipes`), or module:function.")
]
SourcePath = Annotated[
    str | None, typer.Option("--source", help="Where your data is, for a recipe that takes a source (search, labels…).")
]
MapFile = Annotated[
    str | None, typer.Option("--map", help="TOML or JSON file that says how to read the source (`rankline init`).")
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        "-s",
        help="Change one setting: section.setting=value, such as finetune.epochs=3; or @FILE, with tables of sections.",
    ),
]
Runner = Annotated[
    Literal["local", "docker"],
    typer.Option(help="Where steps run: as processes, or in the images of `rankline build` with a Docker engine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str, typer.Option("--url", envvar="RANKLINE_URL", help="URL of the server.")]
RepositoryUrl = Annotated[
    str,
    typer.Option(
        "--repository", envvar="RANKLINE_REPOSITORY",
        help="Model registry: a folder or bucket URL. Default: the repository of the workspace.",
    ),
]  # fmt: skip

WORKSPACE = Path(".rankline")


def require_workspace(workspace: Path, *names: str, suffixes: tuple[str, ...] = ("",)) -> Path:
    """The workspace, which has to exist for a command that only reads.

    The copy of a workspace in a bucket is brought up to date below these names, as far as files have one of these
    endings.

    Raises:
        UsageError: it does not exist; with a workspace that does, if there is one.
    """
    from rankline.errors import UsageError

    if (bucket := bucket_of(workspace)) is not None:
        for name in names:
            bucket.download(name, suffixes=suffixes)
    if workspace.is_dir():
        return workspace
    path = workspace.resolve()
    configured = os.environ.get("RANKLINE_WORKSPACE")
    is_configured = bool(configured) and Path(configured or "") == workspace
    origin = "RANKLINE_WORKSPACE" if is_configured else "--workspace, or the current folder"
    ancestor = next((folder / WORKSPACE for folder in Path.cwd().parents if (folder / WORKSPACE).is_dir()), None)
    raise UsageError(
        "there is no workspace here",
        expected="the folder of an earlier run",
        found=f"no {path.name} in {path.parent}",
        where=f"{path} ({origin})",
        hint=f"-w {ancestor}, which exists"
        if ancestor
        else "-w FOLDER, or RANKLINE_WORKSPACE, names another; `rankline demo` creates one here",
    )


def open_registry(workspace: Path, repository: str) -> ModelRegistry:
    """The model registry at a URL, or that of the workspace if the URL is empty.

    Raises:
        UsageError: neither is there.
    """
    from rankline.registry.model_registry import ModelRegistry

    return ModelRegistry(repository or repository_of(workspace))


def repository_of(workspace: Path) -> str:
    """The model registry of a workspace: a folder or a URL."""
    bucket = bucket_of(workspace)
    return f"{bucket.url}/repository" if bucket else str(require_workspace(workspace) / "repository")


def require_champion(registry: ModelRegistry) -> Champion:
    """The model that serves.

    Raises:
        UsageError: no model has been promoted yet.
    """
    from rankline.errors import UsageError

    champion = registry.champion_record()
    if champion is None:
        raise UsageError(
            "no model has been promoted yet",
            expected="a promoted model",
            where=registry.root,
            hint="`rankline run --recipe …` trains one, and promotes it if it passes the gates",
        )
    return champion
