"""What follows an event of the registry outside of it: MLflow shows it, and people are notified."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankline.mirror.config import TrackingConfig
from rankline.notifications.config import NotifyConfig
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.outcomes import Outcome


@dataclass(frozen=True)
class Announcement:
    """What became of it: MLflow's {uri, version, seconds} or {error}, and a sentence for each failure."""

    mlflow: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Announcer:
    """Where the events of a workspace are shown; neither place can fail or hold up what was done."""

    workspace: Path
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    bucket: BucketWorkspace | None = None
    recipe: str = ""

    @classmethod
    def from_parameters(cls, run: Mapping[str, Any], workspace: Path, bucket: BucketWorkspace | None) -> Announcer:
        """Where the events of a run are shown, as a pipeline describes the run to its components."""
        tracking, notify = TrackingConfig(**run.get("mlflow", {})), NotifyConfig(**run.get("notify", {}))
        return cls(workspace, tracking, notify, bucket, run.get("recipe", ""))

    def announce(self, models: ModelRegistry, model_id: str, events: Sequence[Event]) -> Announcement:
        """Let MLflow show a model and the aliases, and notify of these events, at the same time."""
        from rankline.mirror.follow import follow
        from rankline.notifications.notify import notify

        warnings: list[str] = []

        def notify_all() -> None:
            for event in events:
                warnings.append(
                    notify(
                        event, settings=self.notify, workspace=self.workspace, bucket=self.bucket, recipe=self.recipe
                    )
                )

        thread = threading.Thread(target=notify_all, name="notifications", daemon=True)
        thread.start()
        shown = follow(models, [model_id], config=self.tracking, workspace=self.workspace, bucket=self.bucket)
        thread.join(self.notify.timeout_s * max(len(events), 1) + 5)
        problems = [shown["error"]] if "error" in shown else shown.get("problems", [])
        return Announcement(shown, tuple(filter(None, [*problems, *warnings])))

    def hears_of(self, outcome: str) -> bool:
        """Whether anybody is notified of a run that ended like this: neither with a verdict nor by a user."""
        is_failure = outcome in (Outcome.FAILED, Outcome.STALE, Outcome.INCOMPLETE)
        return is_failure and bool(self.notify.webhooks or self.notify.email.host)

    def announce_failure(self, summary: Mapping[str, Any]) -> str:
        """Notify of a run without a verdict; a warning if that was not delivered."""
        from rankline.notifications.notify import notify_of_failure

        return notify_of_failure(
            summary, settings=self.notify, workspace=self.workspace, bucket=self.bucket, recipe=self.recipe
        )
