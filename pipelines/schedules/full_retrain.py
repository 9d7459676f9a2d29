"""Which runs of a schedule train from scratch, where the others start with the champion's weights.

It is decided once, before the run of a firing first starts, and recorded in the firing. A run that starts again after
a kill starts in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipelines.schedules.firing import Firing
from pipelines.schedules.store import ScheduleStore
from rankline.runtime.outcomes import VERDICT_EXIT_CODES


def full_retrain_due(firings: Sequence[Firing], *, every: int) -> bool:
    """Whether the run after these trains from scratch: every N-th finished run does, none for 0.

    An active run that trains from scratch counts from its start, or concurrent runs would all do so.
    """
    counted = [
        firing
        for firing in firings
        if (firing.exit_code in VERDICT_EXIT_CODES if firing.status == "ended" else firing.scratch)
    ]
    runs_since_full_retrain = 0
    for firing in sorted(counted, key=_counted_at):
        runs_since_full_retrain = 0 if firing.scratch else runs_since_full_retrain + 1
    return bool(every) and runs_since_full_retrain >= every - 1


def _counted_at(firing: Firing) -> tuple[str, bool]:
    """A run counts at its end, or at its start while it is active; one that has not started comes last."""
    active = firing.status != "ended"
    return (firing.started_at or "later" if active else firing.ended_at), active


def record_full_retrain(store: ScheduleStore, name: str, instant: datetime) -> None:
    """Record in a firing whether its run trains from scratch, unless that is recorded already."""
    firings = store.firings(name)
    with firings.lock(instant), store.lock(name):  # the second of two concurrent firings sees the decision of the first
        firing = firings.read(instant)
        if firing is None or firing.scratch is not None or firing.status == "ended":
            return
        every = store.history(name)[firing.revision - 1].scratch_every
        if every:
            others = [each for each in firings.all() if each.scheduled_at != firing.scheduled_at]
            firings.write(firing.replace(scratch=full_retrain_due(others, every=every)))
