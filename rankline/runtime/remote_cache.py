"""The remote cache: finished steps in a folder or bucket that several machines share.

    <artifacts>/<step>/<key>/entry.json           the entry, with the digests of its files; written last, once
    <artifacts>/<step>/<key>/<unique>/<output>/…  the files
    <artifacts>/<step>/latest.json                the newest entry, which a changed step is compared with

Steps look into the workspace's own cache first. A remote cache that fails costs time, never the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError, StorageError
from rankline.io import digest, files, storage
from rankline.runtime.step_cache import UNKNOWN, CacheEntry, matches, parse_cache_entry

ENTRY_FILE, LATEST_FILE = "entry.json", "latest.json"
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

    def get(self, step: str, name: str) -> CacheEntry | None:
        """The entry without its files; None where there is none that can be read."""
        with contextlib.suppress(StorageError, OSError, ValueError):
            fs, root = self._open(step, name)
            fields = json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))
            entry = {key: fields[key] for key in ENTRY_FIELDS if key in fields}
            return parse_cache_entry(entry, Path(root))
        return None

    def find(self, step: str, key: dict[str, Any], *, ignore_lineage: bool = False) -> CacheEntry | None:
        """The entry of a key, without its files; with ``ignore_lineage`` one of any lineage, the newest first."""
        exact = self.get(step, digest.json_digest(key))
        if exact is not None or not ignore_lineage:
            return exact
        pattern = {**key, "lineage": UNKNOWN}
        entries = (self.get(step, name) for name in self._names(step))
        return next((entry for entry in entries if entry is not None and matches(entry.key, pattern)), None)

    def latest(self, step: str) -> CacheEntry | None:
        """The newest entry of a step, without its files."""
        with contextlib.suppress(StorageError, OSError, ValueError, KeyError, TypeError):
            fs, root = self._open(step)
            return self.get(step, json.loads(fs.cat_file(f"{root}/{LATEST_FILE}"))["name"])
        return None

    def read_file(self, step: str, name: str, file: str) -> bytes:
        """One file (output/path) of an entry, verified.

        Raises:
            FileNotFoundError: there is no such entry, or no such file in it.
            IntegrityError: the file has changed.
        """
        fs, root = self._open(step, name)
        entry = json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))
        output, _, path = file.partition("/")
        if path not in entry["files"].get(output, {}):
            raise FileNotFoundError(f"{root}/{file}")
        content = bytes(fs.cat_file(f"{root}/{entry['folder']}/{file}"))
        if hashlib.sha256(content).hexdigest() != entry["files"][output][path]:
            raise IntegrityError(
                f"{file} of a finished {step} does not match its digest",
                where=f"{self._url}/{step}/{name}",
                hint="delete that folder and start a new run: it makes again what is missing",
            )
        return content

    def _names(self, step: str) -> list[str]:
        """The names of a step's entries, newest first."""
        with contextlib.suppress(StorageError, OSError):
            fs, root = self._open(step)
            infos = [info for path, info in fs.find(root, detail=True).items() if path.endswith(f"/{ENTRY_FILE}")]
            infos.sort(key=storage.modified_time, reverse=True)
            return [str(info["name"]).split("/")[-2] for info in infos]
        return []

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
            fs.pipe_file(f"{root.rpartition('/')[0]}/{LATEST_FILE}", json.dumps({"name": name}).encode())
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
