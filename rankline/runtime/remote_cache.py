"""The remote cache: finished steps in a folder or bucket that several machines share.

    <artifacts>/<step>/<key>/entry.json           the entry, with the digests of its files; written last, once
    <artifacts>/<step>/<key>/<unique>/<output>/…  the files

Steps look into the workspace's own cache first. A remote cache that fails costs time, never the run.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError, StorageError
from rankline.io import digest, files, storage

ENTRY_FILE = "entry.json"
ENTRY_FIELDS = ("key", "result", "files", "run", "seal")  # those of an entry in the workspace's cache


class RemoteCache:
    """The remote cache of every step."""

    def __init__(self, url: str) -> None:
        self._url = url

    def fetch(self, step: str, name: str, cache_folder: Path) -> str:
        """Download an entry into the workspace's cache; returns a warning, empty unless something went wrong."""
        try:
            fs, root = self._open(step, name)
            try:
                entry = json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))
            except FileNotFoundError:
                return ""
            except ValueError:
                return self._discard_damaged(fs, root, f"{ENTRY_FILE} is not JSON")
            try:
                _download_entry(fs, root, entry, cache_folder / name)
            except (IntegrityError, FileNotFoundError, KeyError, TypeError, AttributeError) as error:
                return self._discard_damaged(fs, root, files.first_line(error))
        except (StorageError, OSError) as error:
            return f"{self._url} could not be read ({files.first_line(error)})"
        return ""

    def read_entry(self, step: str, name: str) -> Any:
        """The entry without its files; None where there is none that can be read."""
        with contextlib.suppress(StorageError, OSError, ValueError):
            fs, root = self._open(step, name)
            fields = json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))
            return {key: fields[key] for key in ENTRY_FIELDS if key in fields}
        return None

    def has_step(self, step: str) -> bool:
        """Whether there is any entry of a step."""
        with contextlib.suppress(StorageError, OSError):
            fs, root = self._open(step)
            return bool(fs.ls(root, detail=False))
        return False

    def put(self, step: str, name: str, folder: Path) -> str:
        """Upload an entry of the workspace's cache; returns a warning, empty unless something went wrong.

        Two runs may upload the same entry at once: the first one to write `entry.json` wins, and the other removes
        its files.
        """
        unique = uuid.uuid4().hex
        try:
            fs, root = self._open(step, name)
            if fs.exists(f"{root}/{ENTRY_FILE}"):
                return ""
            entry = json.loads((folder / ENTRY_FILE).read_text())
            for output, output_files in entry["files"].items():
                for file in output_files:
                    fs.makedirs(f"{root}/{unique}/{output}/{file}".rpartition("/")[0], exist_ok=True)
                    # an output that is a single file has the output's name in the workspace's cache
                    source = folder / output / file if (folder / output).is_dir() else folder / output
                    fs.put_file(str(source), f"{root}/{unique}/{output}/{file}")
            try:
                fs.pipe_file(f"{root}/{ENTRY_FILE}", json.dumps({**entry, "folder": unique}).encode(), mode="create")
            except FileExistsError:
                if json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))["folder"] != unique:
                    fs.rm(f"{root}/{unique}", recursive=True)
        except (StorageError, OSError) as error:
            return f"not uploaded to {self._url} ({files.first_line(error)})"
        return ""

    def _open(self, *names: str) -> tuple[Any, str]:
        return storage.open_filesystem("/".join((self._url.rstrip("/"), *names)))

    def _discard_damaged(self, fs: Any, root: str, reason: str) -> str:
        """Remove a damaged entry, so that a whole one can take its place."""
        with contextlib.suppress(StorageError, OSError):
            fs.rm_file(f"{root}/{ENTRY_FILE}")
        return f"the entry at {self._url} was damaged ({reason})"


def _download_entry(fs: Any, root: str, entry: Any, folder: Path) -> None:
    """Download an entry to ``folder``, verified; another run that does the same meanwhile wins.

    Raises:
        IntegrityError: a file has changed.
        FileNotFoundError: a file is missing.
    """
    partial = files.partial_path(folder)
    try:
        for output, digests in entry["files"].items():
            for file, sha256 in digests.items():
                target = partial / output / file
                target.parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(f"{root}/{entry['folder']}/{output}/{file}", str(target))
                digest.verify(target.parent, {target.name: sha256}, hint="")
        files.write_json(partial / ENTRY_FILE, {key: entry[key] for key in ENTRY_FIELDS})
        files.publish_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
