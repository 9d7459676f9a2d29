"""Workspaces in a bucket, as commands read them: a copy of the small files in the user's cache folder.

The option -w of commands that only read takes the URL of one. The copy is brought up to date each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankline.errors import UsageError

if TYPE_CHECKING:
    from rankline.runtime.bucket_workspace import BucketWorkspace


def folder(value: str) -> Path:
    """The path of a workspace, for a command that needs a folder.

    Raises:
        UsageError: it is in a bucket.
    """
    if not _is_url(value):
        return Path(value)
    raise UsageError(
        "this command works on a folder, not on a workspace in a bucket",
        expected="-w FOLDER",
        found=f"-w {value}",
        hint="a cluster's runs write there (`rankline submit`); to run on this machine: "
        f"-w FOLDER --set storage.workspace={value}",
    )


def folder_or_copy(value: str) -> Path:
    """The path of a workspace: the folder, or that of the copy of one in a bucket."""
    return copy_folder(value) if _is_url(value) else Path(value)


def _is_url(value: object) -> bool:
    return "://" in str(value)


def copy_folder(url: str) -> Path:
    """The folder of this user's copy of a workspace in a bucket."""
    from rankline.runtime.bucket_workspace import BucketWorkspace

    return BucketWorkspace.cached(url).folder


def bucket_of(workspace: Path) -> BucketWorkspace | None:
    """The workspace in a bucket that a folder is the copy of; None for a workspace of its own."""
    from rankline.runtime.bucket_workspace import URL_FILE, BucketWorkspace

    file = workspace / URL_FILE
    return BucketWorkspace(file.read_text(), workspace) if file.is_file() else None


def require_folder(workspace: Path, command: str) -> Path:
    """The workspace, which has to be a folder for a command that changes it.

    Raises:
        UsageError: it is in a bucket.
    """
    if (bucket := bucket_of(workspace)) is None:
        return workspace
    raise UsageError(
        f"`rankline {command}` does not work on a workspace in a bucket",
        expected="-w FOLDER, or for a cluster --host URL",
        found=bucket.url,
    )
