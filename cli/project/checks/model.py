"""What a check takes and returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.findings import Finding, Status

if TYPE_CHECKING:
    from cli.runs.cluster import Target
    from pipelines.recipes import Recipe

__all__ = ("TIMEOUT_S", "Check", "CheckContext", "Finding", "Status", "error_line", "redacted")
TIMEOUT_S = 5.0  # for a server to answer


@dataclass(frozen=True)
class CheckContext:
    """What is checked: the recipe that is to run, in a workspace, which need not exist yet, or on a cluster."""

    workspace: Path
    recipe: Recipe
    port: int
    cluster: Target | None = None
    account: str = ""  # service account of the cluster's pods

    @property
    def unreachable(self) -> Status:
        """The status of a server that this machine does not reach: a cluster may reach it all the same."""
        return "warn" if self.cluster else "fail"

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
