"""Whose turn it is to train from scratch, where a schedule's runs otherwise begin with the champion's weights.

It is settled once, before a fire time's run begins for the first time, and kept in its claim: a run that is begun
again after a kill begins in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipelines.schedules.firings import Firing
from pipelines.schedules.store import LocalSchedules
from rankline.runtime.outcomes import VERDICT_EXIT_CODES


def full_retrain_due(firings: Sequence[Firing], *, every: int) -> bool:
    """Whether the next run is one from scratch, after these: every how many finished runs one is (0: never).

    A turn that is being taken counts from its beginning on, or runs begun together would all take it.
    """
    counted_firings = [
        firing for firing in firings
        if (firing.exit_code in VERDICT_EXIT_CODES if firing.status == "ended" else firing.scratch)
    ]  # fmt: skip
    runs_since_full_retrain = 0
    for firing in sorted(counted_firings, key=_counted_at):
        runs_since_full_retrain = 0 if firing.scratch else runs_since_full_retrain + 1
    return bool(every) and runs_since_full_retrain >= every - 1


def _counted_at(firing: Firing) -> tuple[str, bool]:
    """When a run counts: at its end or, under way, at its beginning; one that is about to begin comes last."""
    under_way = firing.status != "ended"
    return (firing.started_at or "later" if under_way else firing.ended_at), under_way


def record_full_retrain(store: LocalSchedules, name: str, instant: datetime) -> None:
    """Write into a claim whether its run trains from scratch, unless that is written already."""
    firings = store.firings(name)
    with firings.lock(instant), store.lock(name):  # of two that begin together the second sees the first one's turn
        firing = firings.read(instant)
        if firing is None or firing.scratch is not None or firing.status == "ended":
            return
        every = store.history(name)[firing.revision - 1].scratch_every
        if every:
            other_firings = [each for each in firings.all() if each.scheduled_at != firing.scheduled_at]
            firings.write(firing.replace(scratch=full_retrain_due(other_firings, every=every)))
