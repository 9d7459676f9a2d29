"""The paths and URLs that the steps of one run share."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankline.errors import StorageError
from rankline.io.files import read_json_object, restrict_permissions
from rankline.io.storage import StorageConfig

if TYPE_CHECKING:
    from rankline.announcer import Announcer
    from rankline.runtime.bucket_workspace import BucketWorkspace

WATCHER = "watcher.json"  # in a run's folder: the process that watches it, and its user


class RunContext:
    """The folder of a run, with its ledger, and what the workspace keeps from earlier runs."""

    def __init__(self, workspace: Path, run_id: str, storage: StorageConfig | None = None) -> None:
        run_dir = os.environ.get("RANKLINE_RUN_DIR")
        self.workspace, self.storage = workspace, (storage or StorageConfig()).resolved
        self.folder = Path(run_dir) if run_dir else workspace / "runs" / run_id
        self.run_id = self.folder.name
        self.is_watched_here = bool(run_dir)  # the process that started the run writes its folder, too
        self.passes_references = False
        self.names: dict[str, str] = {}  # of the recipe and the flow
        self.announced: Mapping[str, Any] = {}  # the parameters that say where its events are shown

    @classmethod
    def from_parameters(cls, run: dict[str, Any], job: str) -> RunContext:
        """The run that a pipeline describes to its components, whose files are nobody else's from here on.

        ``job`` is Kubeflow's id of the run. It is a parameter of its own because Kubeflow fills in the placeholder
        only where it is a whole string, not within a dict.
        """
        storage = StorageConfig(**run.get("storage", {}))
        restrict_permissions(group_shared=storage.group_shared)
        context = cls(Path(run["workspace"]), job, storage)
        context.names = {name: run[name] for name in ("recipe", "flow") if "flow" in run}
        context.passes_references = bool(run.get("references"))
        context.announced = run
        return context

    @functools.cached_property
    def bucket(self) -> BucketWorkspace | None:
        """The workspace in a bucket, which the steps of a run share instead of a folder; None without one."""
        from rankline.runtime.bucket_workspace import BucketWorkspace

        return BucketWorkspace(self.storage.workspace, self.workspace) if self.storage.workspace else None

    def download(self, name: str) -> None:
        """Make the files below ``name`` in the workspace those of the bucket, if there is one."""
        if self.bucket is not None:
            self.bucket.download(name)

    @contextlib.contextmanager
    def writing(self, name: str, *, owner: Mapping[str, str], timeout_s: float = 600.0) -> Iterator[None]:
        """Change what several runs write below ``name``; in a bucket one after the other, each from the latest state.

        Raises:
            StorageError: another process has been writing for longer than ``timeout_s``.
        """
        with contextlib.ExitStack() as stack:
            publish = None
            if self.bucket is not None:
                try:
                    publish = stack.enter_context(self.bucket.writing(name, owner=owner, timeout_s=timeout_s))
                except TimeoutError as error:
                    raise StorageError(
                        f"another process is writing {name}",
                        expected=f"it to finish within {timeout_s:g} s",
                        found=str(error),
                        where=f"{self.bucket.url}/{name}",
                        hint="run again when it has finished",
                    ) from error
            yield
            if publish is not None:
                publish()

    def download_run(self) -> None:
        """Make the run's folder that of the bucket, unless it is newer here."""
        if not self.is_watched_here:
            self.download(f"runs/{self.run_id}")

    def upload_run(self) -> None:
        """Upload the changed files of the run's folder; a bucket that does not respond costs a message."""
        if self.bucket is not None:
            try:
                self.bucket.upload(f"runs/{self.run_id}", deep=False)
            except (StorageError, OSError) as error:
                print(f"the run's folder was not uploaded: {error}", file=sys.stderr)

    def uploading(self) -> contextlib.AbstractContextManager[None]:
        """Upload the run's folder every few seconds while the block runs, if there is a bucket."""
        return self.bucket.uploading(f"runs/{self.run_id}") if self.bucket is not None else contextlib.nullcontext()

    @functools.cached_property
    def announcer(self) -> Announcer:
        """Where the events of this run are shown, besides the registry."""
        from rankline.announcer import Announcer

        return Announcer.from_parameters(self.announced, self.workspace, self.bucket)

    def announce_end(self, summary: Mapping[str, Any]) -> None:
        """Notify of a run that failed; ``summary`` is that of its folder. What goes wrong is a line on stderr."""
        if self.announcer.hears_of(summary["outcome"]) and (warning := self.announcer.announce_failure(summary)):
            print(f"warning: {warning}", file=sys.stderr)

    @property
    def started_by(self) -> str:
        """Who started the run; empty where nobody knows, as on a cluster, or where a schedule did."""
        return str(read_json_object(self.folder / WATCHER).get("user", ""))

    @property
    def repository(self) -> str:
        """The model registry: a folder or a URL."""
        return self.storage.repository or str(self.workspace / "repository")

    def cache_folder(self, step: str) -> Path:
        """The workspace's cache of a step."""
        return self.workspace / "cache" / step

    def checkpoint_folder(self, step: str, key: str) -> Path:
        """Where a step saves the checkpoints that a later attempt resumes from; it outlives the run."""
        return self.workspace / "checkpoints" / step / key[:16]
