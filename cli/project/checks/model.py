"""What a check takes and returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipelines.recipes import Recipe

TIMEOUT_S = 5.0  # for a server to answer
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, its status, what was found, and what to do if it is not ok."""

    check: str
    status: Status
    found: str
    hint: str = ""


@dataclass(frozen=True)
class CheckContext:
    """What is checked: a workspace, which need not exist yet, and the recipe that is to run in it."""

    workspace: Path
    recipe: Recipe
    port: int

    @property
    def repository(self) -> str:
        """Folder or URL of the model registry: the recipe's, or the workspace's own."""
        from pipelines.recipe import storage_settings

        storage: dict[str, str] = storage_settings(self.recipe, str(self.workspace)).get("storage", {})
        return storage.get("repository") or str(self.workspace / "repository")

    @property
    def nearest_folder(self) -> Path:
        """The workspace, or the nearest existing folder above it."""
        folders = (self.workspace, *self.workspace.parents)
        return next((folder for folder in folders if folder.is_dir()), Path("/"))


Check = Callable[[CheckContext], Iterator[Finding]]


def redacted(address: str) -> str:
    """An address with its password masked."""
    return re.sub(r"://([^/@:]*):[^/@]*@", r"://\1:…@", address)


def error_line(error: BaseException) -> str:
    """The type and the first line of an error of a library, without passwords."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redacted(f"{type(error).__name__}: {lines[0] if lines else ''}"[:200])
