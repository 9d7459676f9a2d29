"""What `rankline doctor` looks at: one module a subject, one function a check, one finding a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, what was found, and what to do where it is not well."""

    check: str
    status: Status
    found: str
    hint: str = ""


@dataclass(frozen=True)
class CheckContext:
    """What is examined: a workspace, which need not be there yet, and the recipe that is to run in it."""

    workspace: Path
    recipe: Any
    port: int

    @property
    def repository(self) -> str:
        """Folder or URL of the model repository: what the recipe says, else the workspace's own."""
        from pipelines.recipe import storage_settings

        storage: dict[str, str] = storage_settings(self.recipe, str(self.workspace)).get("storage", {})
        return storage.get("repository") or str(self.workspace / "repository")

    @property
    def nearest_folder(self) -> Path:
        """The workspace, or the nearest folder above it that is there."""
        folders = (self.workspace, *self.workspace.parents)
        return next((folder for folder in folders if folder.is_dir()), Path("/"))


Check = Callable[[CheckContext], Iterator[Finding]]


def run_checks(context: CheckContext) -> Iterator[tuple[str, Finding]]:
    """(subject, finding) of every check, in order; a check that breaks is itself a failure, not the end."""
    from cli.project.checks import gpu, libraries, machine, stores, workspace

    for subject in (machine, libraries, gpu, stores, workspace):
        name = subject.__name__.rsplit(".", 1)[-1]
        for check in subject.CHECKS:
            try:
                for finding in check(context):
                    yield name, finding
            except Exception as error:  # whatever is wrong with what it looks at, the others are still told
                message = " ".join(str(error).split())[:300]
                hint = "that is what was looked at last; the other lines stand"
                yield name, Finding(check.__name__.strip("_"), "fail", f"{type(error).__name__}: {message}", hint)


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
