"""Bring MLflow up to date after an event, in bounded time; a failure is one sentence and never an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankline.io.files import first_line
from rankline.mirror.candidates import aliases
from rankline.mirror.config import TrackingConfig
from rankline.mirror.sync import Synced, sync
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.bucket_workspace import BucketWorkspace


def follow(
    models: ModelRegistry,
    model_ids: Sequence[str],
    *,
    config: TrackingConfig,
    workspace: Path,
    bucket: BucketWorkspace | None = None,
) -> dict[str, Any]:
    """Show some models, the champion and what waits in MLflow: {uri, version, seconds}, or {error}.

    What takes longer than `mirror_timeout_s` is left to its thread and to the next sync.
    """
    if bucket and not config.tracking_uri:  # a database file in a bucket is none
        return {"error": "a workspace in a bucket has no MLflow; promote.tracking_uri names one"}
    started = time.monotonic()
    results: list[Synced | Exception] = []

    def work() -> None:
        try:
            only = [*model_ids, *aliases(models.history()).values()]
            synced = sync(
                models, config=config, workspace=workspace, bucket=bucket, only=only,
                lock_timeout_s=config.mirror_timeout_s,
            )  # fmt: skip
            results.append(synced)
        except Exception as error:  # MLflow and its database drivers each have their own errors
            results.append(error)

    thread = threading.Thread(target=work, name="MLflow", daemon=True)
    thread.start()
    thread.join(config.mirror_timeout_s)
    result = results[0] if results else TimeoutError(f"it did not answer within {config.mirror_timeout_s:g} s")
    if isinstance(result, Exception):
        return {"error": f"MLflow is not up to date: {first_line(result)}; `rankline sync` mends it later"}
    problems = {"problems": result.problems} if result.problems else {}
    versions = {"version": result.versions[model_ids[0]]} if model_ids and model_ids[0] in result.versions else {}
    return {"uri": result.uri, **versions, "seconds": round(time.monotonic() - started, 2), **problems}
