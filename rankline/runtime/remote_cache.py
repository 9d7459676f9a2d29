"""Where finished work and checkpoints are kept for other machines: a folder or bucket beside the workspace.

    <artifacts>/<step>/<key>/entry.json          what was kept and the digests of its files; written last, once
    <artifacts>/<step>/<key>/<unique>/<output>/… the files that it names
    <checkpoints>/<step>/<key>/latest.json       which checkpoint is the newest; written after it
    <checkpoints>/<step>/<key>/<digest>.pt

The workspace's own cache comes first; the shelf is asked for what is not there. An entry is visible whole or not
at all, what comes back is held against its digests, and a shelf that does not answer costs time, never the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError, StorageError
from rankline.io import digest, storage
from rankline.runtime import ledger

ENTRY_FILE, LATEST_FILE = "entry.json", "latest.json"
ENTRY_FIELDS = ("key", "result", "files", "run", "seal")  # what the workspace's own cache says of an entry


class RemoteCache:
    """Finished work of every step, under its key."""

    def __init__(self, url: str) -> None:
        self._url = url

    def fetch(self, step: str, name: str, cache_folder: Path) -> str:
        """Bring an entry into the workspace's own cache; what was wrong with it, empty where nothing was."""
        try:
            fs, root = storage.open_filesystem(f"{self._url.rstrip('/')}/{step}/{name}")
            try:
                entry = json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))
            except FileNotFoundError:
                return ""
            except ValueError:
                return self._discard_damaged(fs, root, f"{ENTRY_FILE} is no JSON")
            partial = cache_folder / f".{name}.{uuid.uuid4().hex}"
            try:
                for output, files in entry["files"].items():
                    for file, sha256 in files.items():
                        self._download(fs, f"{root}/{entry['folder']}/{output}/{file}", partial / output / file, sha256)
                ledger.write_json(partial / ENTRY_FILE, {key: entry[key] for key in ENTRY_FIELDS})
                with contextlib.suppress(OSError):  # another run has just fetched the same
                    os.replace(partial, cache_folder / name)
            except (IntegrityError, FileNotFoundError, KeyError, TypeError, AttributeError) as error:
                return self._discard_damaged(fs, root, str(error).splitlines()[0])
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        except (StorageError, OSError) as error:
            return f"{self._url} could not be read ({_first_line(error)})"
        return ""

    def read_entry(self, step: str, name: str) -> Any:
        """What an entry says, without bringing its files; none where there is none that can be read."""
        with contextlib.suppress(StorageError, OSError, ValueError):
            fs, root = storage.open_filesystem(f"{self._url.rstrip('/')}/{step}/{name}")
            fields = json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))
            return {key: fields[key] for key in ENTRY_FIELDS if key in fields}
        return None

    def has_step(self, step: str) -> bool:
        """Whether any work of a step is here."""
        with contextlib.suppress(StorageError, OSError):
            fs, root = storage.open_filesystem(f"{self._url.rstrip('/')}/{step}")
            return bool(fs.ls(root, detail=False))
        return False

    def put(self, step: str, name: str, folder: Path) -> str:
        """Put an entry of the workspace's cache here; why that failed, empty where it did not.

        Two runs that finish the same work at once do not mix their files: the entry names the files of whoever
        was first, and the other's go away again.
        """
        unique = uuid.uuid4().hex
        try:
            fs, root = storage.open_filesystem(f"{self._url.rstrip('/')}/{step}/{name}")
            if fs.exists(f"{root}/{ENTRY_FILE}"):
                return ""
            entry = json.loads((folder / ENTRY_FILE).read_text())
            for output, files in entry["files"].items():
                for file in files:
                    fs.makedirs(f"{root}/{unique}/{output}/{file}".rpartition("/")[0], exist_ok=True)
                    # the one file of an output that is no folder lies in the cache under the output's own name
                    source = folder / output / file if (folder / output).is_dir() else folder / output
                    fs.put_file(str(source), f"{root}/{unique}/{output}/{file}")
            try:
                fs.pipe_file(f"{root}/{ENTRY_FILE}", json.dumps({**entry, "folder": unique}).encode(), mode="create")
            except FileExistsError:
                if json.loads(fs.cat_file(f"{root}/{ENTRY_FILE}"))["folder"] != unique:
                    fs.rm(f"{root}/{unique}", recursive=True)
        except (StorageError, OSError) as error:
            return f"not kept at {self._url} ({_first_line(error)})"
        return ""

    @staticmethod
    def _download(fs: Any, source: str, target: Path, sha256: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(source, str(target))
        digest.verify(target.parent, {target.name: sha256}, hint="it is made anew")

    def _discard_damaged(self, fs: Any, root: str, why: str) -> str:
        """Take a damaged entry away, so that it is made anew and kept in its place."""
        with contextlib.suppress(StorageError, OSError):
            fs.rm_file(f"{root}/{ENTRY_FILE}")
        return f"the copy at {self._url} was damaged ({why})"


@contextlib.contextmanager
def synced(folder: Path, url: str, *, interval_s: float = 2.0) -> Iterator[list[str]]:
    """Copy a trainer's checkpoints from ``folder`` to a shelf while it trains, and the last one back beforehand.

    What could not be copied either way is in the list that is yielded: training goes on without it. A training
    that ends well leaves nothing on the shelf.
    """
    warnings: list[str] = []
    sync = CheckpointSync(folder, url, warnings)
    sync.download()
    done = threading.Event()

    def sync_periodically() -> None:
        while not done.wait(interval_s):
            sync.upload()

    thread = threading.Thread(target=sync_periodically, name="checkpoints", daemon=True)
    thread.start()
    try:
        yield warnings
    except BaseException:
        done.set()
        thread.join()
        sync.upload()
        raise
    done.set()
    thread.join()
    sync.delete_remote()


class CheckpointSync:
    """Between a folder of checkpoints, each named by its digest, and the same folder on a shelf."""

    def __init__(self, folder: Path, url: str, warnings: list[str]) -> None:
        self._folder, self._url, self._warnings = folder, url, warnings
        self._uploaded = ""

    def download(self) -> None:
        """The newest checkpoint, where this machine has none."""
        if any(self._folder.glob("*.pt")):
            return
        with self._collect_warnings():
            fs, root = storage.open_filesystem(self._url)
            try:
                name = json.loads(fs.cat_file(f"{root}/{LATEST_FILE}"))["name"]
                self._folder.mkdir(parents=True, exist_ok=True)
                partial = self._folder / f"partial.{uuid.uuid4().hex}"
                fs.get_file(f"{root}/{name}", str(partial))
            except FileNotFoundError:
                return
            if digest.file_digest(partial) != Path(name).stem:
                partial.unlink()
                self._warnings.append(f"the checkpoint at {self._url} was damaged, training begins anew")
                return
            os.replace(partial, self._folder / name)
            self._uploaded = name

    def upload(self) -> None:
        """The newest checkpoint of this machine, and then the word that it is the newest."""
        with self._collect_warnings():
            mtimes = {path: path.stat().st_mtime_ns for path in self._folder.glob("*.pt")}
            newest = max(mtimes, key=lambda path: mtimes[path], default=None)
            if newest is None or newest.name == self._uploaded:
                return
            fs, root = storage.open_filesystem(self._url)
            fs.makedirs(root, exist_ok=True)
            fs.put_file(str(newest), f"{root}/{newest.name}")
            fs.pipe_file(f"{root}/{LATEST_FILE}", json.dumps({"name": newest.name}).encode())
            previous, self._uploaded = self._uploaded, newest.name
            if previous:
                fs.rm_file(f"{root}/{previous}")

    def delete_remote(self) -> None:
        """Forget what is on the shelf."""
        with self._collect_warnings():
            fs, root = storage.open_filesystem(self._url)
            fs.rm(root, recursive=True)

    @contextlib.contextmanager
    def _collect_warnings(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            pass  # the trainer replaced it meanwhile, or there was nothing to forget
        except (StorageError, OSError, ValueError, KeyError) as error:
            self._warnings.append(f"checkpoints at {self._url}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
