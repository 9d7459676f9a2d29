"""What the package of a run says of its steps: their memory, how long they may take, whether they are retried."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.triggers import unix_seconds
from pipelines.steps import PACKED_TASK, PACKED_TASKS, StepRow, row_of_task
from rankline.errors import UsageError
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_summary import CANCEL, note_cancelled


class RunPackage:
    """The package that a run was started from; empty answers where the cluster no longer has it."""

    def __init__(self, cluster: Cluster, run: Any) -> None:
        self._files, reference = cluster.files, run.pipeline_version_reference
        spec = cluster.package(reference.pipeline_id, reference.pipeline_version_id) if reference else {}
        self._spec, self._platform = spec.get("pipeline_spec", spec), spec.get("platform_spec", {})
        self.known = bool(self._spec)

    def has_retries(self, step: str) -> bool:
        """Whether a failed attempt of the step is tried again."""
        return any("retryPolicy" in task for name, task in self._tasks() if name == self._task_of(step))

    def row(self, step: str) -> StepRow:
        """The row that the pod of the step is placed by."""
        return PACKED_TASK if self._task_of(step) in PACKED_TASKS else row_of_task(step)

    def memory(self, step: str) -> str:
        """The memory that the step may use, such as 8Gi."""
        container = self._executor(self._spec, step).get("container", {})
        return str(container.get("resources", {}).get("resourceMemoryLimit", ""))

    def timeout_s(self, step: str) -> float | None:
        """How long the step may take."""
        platform = self._platform.get("platforms", {}).get("kubernetes", {})
        timeout_s = self._executor(platform, step).get("activeDeadlineSeconds")
        return float(timeout_s) if timeout_s else None

    @property
    def keep_s(self) -> int:
        """How long the pods stay after the end of the run (`cluster.keep_s`); 0 for as long as the cluster likes."""
        return int(self._limits.get("resourceTtlOnCompletion") or 0)

    def refuse_after_deadline(self, run: Any) -> None:
        """Refuse to retry a run that the cluster would end at once: Argo counts its deadline from its first start.

        Raises:
            UsageError: its deadline has passed.
        """
        timeout_s = int(self._limits.get("activeDeadlineSeconds") or 0)  # cluster.run_timeout_s
        began_s = unix_seconds(run.created_at)
        if not timeout_s or began_s is None or time.time() < began_s + timeout_s:
            return
        raise UsageError(
            f"run {run.run_id} cannot be retried: its deadline has passed, and the cluster would end it at once",
            expected=f"a run that began less than {timeout_s} s ago (cluster.run_timeout_s)",
            found=f"one that began {time.time() - began_s:.0f} s ago",
            hint="`rankline submit` starts a new run; steps that have not changed are reused",
        )

    @property
    def _limits(self) -> dict[str, Any]:
        limits: dict[str, Any] = self._platform.get("platforms", {}).get("kubernetes", {}).get("pipelineConfig", {})
        return limits

    def _run_parameters(self) -> dict[str, Any]:
        """What each step gets of its run: the workspace, the storage, the recipe's name."""
        for _, task in self._tasks():
            parameter = task.get("inputs", {}).get("parameters", {}).get("run", {})
            constant = parameter.get("runtimeValue", {}).get("constant")
            if isinstance(constant, dict):
                return constant
        return {}

    def context(self, run: str) -> RunContext | None:
        """The paths and URLs that the steps of a run share; None where they are not known."""
        with contextlib.suppress(KeyError, ValueError):  # of no package, or one of another version
            return RunContext.from_parameters(self._run_parameters(), run)
        return None

    def run_folder(self, run: str) -> Path | None:
        """The folder of a run in the cluster's workspace: mounted here, or copied from its bucket."""
        context = self.context(run)
        if context is None:
            return None
        folder = context.folder
        if context.storage.workspace:
            bucket = BucketWorkspace.cached(context.storage.workspace)
            self._files.ask(bucket.url, lambda: bucket.download(f"runs/{run}"))
            folder = bucket.folder / "runs" / run
        return folder if folder.is_dir() else None

    def request_cancel(self, run: str, why: str = "") -> None:
        """Tell the summary of a run that it was cancelled, where the cluster's workspace can be written from here."""
        if (context := self.context(run)) is None:
            return
        folder, url = self.run_folder(run), context.storage.workspace
        if folder is None and url:  # no step has begun
            folder = BucketWorkspace.cached(url).folder / "runs" / run
        if folder is None:
            return

        def write() -> None:
            note_cancelled(folder, why=why)
            if url:
                BucketWorkspace.cached(url).upload_missing(f"runs/{run}/{CANCEL}")

        self._files.ask(url.rstrip("/") or str(context.workspace), write)

    def _tasks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        components = [self._spec.get("root", {}), *self._spec.get("components", {}).values()]
        for component in components:
            yield from component.get("dag", {}).get("tasks", {}).items()

    def _task_of(self, step: str) -> str:
        packed = [task for task, steps in PACKED_TASKS.items() if step in steps]
        return packed[0] if packed and packed[0] in dict(self._tasks()) else step.replace("_", "-")

    def _executor(self, spec: dict[str, Any], step: str) -> dict[str, Any]:
        executors = spec.get("deploymentSpec", {}).get("executors", {})
        executor: dict[str, Any] = executors.get(f"exec-{self._task_of(step)}", {})
        return executor


def size_setting(row: StepRow, name: str) -> str:
    """The setting of the size that a step has, such as cluster.train.memory."""
    return f"cluster.{row.size}.{name}"
