"""New code or settings: which steps of the last training would not be reused because of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pipelines.recipe import run_context, step_settings
from pipelines.schedules.triggers.observation import Observation
from pipelines.schedules.triggers.spec import Trigger
from pipelines.schedules.triggers.subject import Subject
from pipelines.steps import CACHED_TRAINING_STEPS, STEPS
from rankline.runtime import ledger
from rankline.runtime.step_cache import WINDOW_SETTINGS, StepCache, cache_key, key_changes

_BY_SCHEDULE = {"ingest": WINDOW_SETTINGS, "finetune": ("warm_start",)}  # settings that a firing sets


def observe_code(trigger: Trigger, subject: Subject) -> Observation:
    """Compare the code, the settings and the libraries of each step with those of the last training."""
    if subject.training is None:
        return Observation(trigger=str(trigger), observed="", why="there is no training yet to compare with")
    changes = {step: _changes(step, subject) for step in CACHED_TRAINING_STEPS}
    changed = {step: why for step, why in changes.items() if why}
    unknown = [step for step, why in changes.items() if why is None]
    steps = "; ".join(f"{step}: {', '.join(why)}" for step, why in changed.items())
    gone = f" (no longer in the cache: {', '.join(unknown)})" if unknown else ""
    return Observation(
        trigger=str(trigger),
        observed=f"{len(changed)} steps changed",
        threshold="1 step",
        fires=bool(changed),
        problem=not changed and bool(unknown),
        why=f"{steps or 'no step has changed'} since run {subject.training.run}{gone}",
    )


def _changes(step: str, subject: Subject) -> list[str] | None:
    """What of a step's own has changed, its inputs and the source aside; None where the cache has lost it."""
    assert subject.training is not None, "asked after that"
    entry = ledger.read_entries(subject.workspace / "runs" / subject.training.run).get(step)
    cache = StepCache(run_context(subject.recipe, subject.workspace).cache_folder(step))
    stored = cache.get(entry.key) if entry and entry.key else None
    if stored is None:
        return None
    settings = step_settings(subject.recipe, str(subject.workspace))[step]
    config: BaseModel = type(getattr(subject.recipe, step))(**settings)
    before: dict[str, Any] = stored.key
    now = cache_key(
        step, config, subject.workspace, inputs=before["inputs"], lineage=before["lineage"], code=STEPS[step].code
    )
    for name in _BY_SCHEDULE.get(step, ()):
        now["config"][name] = before["config"].get(name)
    return key_changes(before, now)
