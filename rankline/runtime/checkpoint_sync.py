"""Checkpoints in a folder or bucket that several machines share, so that training resumes on another machine.

<checkpoints>/<step>/<key>/latest.json   the newest checkpoint; written after it
<checkpoints>/<step>/<key>/<digest>.pt
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from rankline.errors import StorageError
from rankline.io import digest, files, storage
from rankline.periodic import repeated

LATEST_FILE = "latest.json"


@contextlib.contextmanager
def synced(folder: Path, url: str, *, interval_s: float = 2.0) -> Iterator[list[str]]:
    """Download the newest checkpoint to ``folder``, upload newer ones while training, and remove all in the end.

    Yields the warnings: what cannot be copied is listed there, and training continues. Training that fails leaves its
    newest checkpoint at ``url``.
    """
    warnings: list[str] = []
    sync = CheckpointSync(folder, url, warnings)
    sync.download()
    try:
        with repeated(sync.upload, interval_s=interval_s, name="checkpoints"):
            yield warnings
    except BaseException:
        sync.upload()
        raise
    sync.delete_remote()


class CheckpointSync:
    """A folder of checkpoints, each named by its digest, and its copy at a URL."""

    def __init__(self, folder: Path, url: str, warnings: list[str]) -> None:
        self._folder, self._url, self._warnings = folder, url, warnings
        self._uploaded = ""

    def download(self) -> None:
        """Download the newest checkpoint, unless this machine has one."""
        if any(self._folder.glob("*.pt")):
            return
        with self._collect_warnings():
            fs, root = storage.open_filesystem(self._url)
            name = json.loads(fs.cat_file(f"{root}/{LATEST_FILE}"))["name"]
            with files.replacing(self._folder / name) as partial:
                fs.get_file(f"{root}/{name}", str(partial))
                if digest.file_digest(partial) != Path(name).stem:
                    raise _DamagedCheckpoint
            self._uploaded = name

    def upload(self) -> None:
        """Upload the newest checkpoint of this machine, then the file that names it, and remove the previous one."""
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
        """Remove all checkpoints at the URL."""
        with self._collect_warnings():
            fs, root = storage.open_filesystem(self._url)
            fs.rm(root, recursive=True)

    @contextlib.contextmanager
    def _collect_warnings(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            pass  # there is no checkpoint, or the trainer has just replaced it
        except _DamagedCheckpoint:
            self._warnings.append(f"the checkpoint at {self._url} was damaged, training starts from scratch")
        except (StorageError, OSError, ValueError, KeyError) as error:
            self._warnings.append(f"checkpoints at {self._url}: {files.first_line(error)}")


class _DamagedCheckpoint(Exception):
    """The downloaded checkpoint does not have the digest that is its name."""
