"""Data volume: how many events came since the data of the last training."""

from __future__ import annotations

from pipelines.schedules.triggers.observation import Observation
from pipelines.schedules.triggers.spec import Trigger
from pipelines.schedules.triggers.subject import Subject


def observe_events(trigger: Trigger, subject: Subject) -> Observation:
    """Count the events since the last training; without one, all of them, and any share is reached."""
    assert trigger.limit is not None, "parse asks for one"
    count, training = subject.live.events, subject.training
    enough = trigger.limit * (training.events if training else 0) if trigger.percent else trigger.limit
    since = f"since {training.data_end:%Y-%m-%d %H:%M}, the data of run {training.run}" if training else "in all"
    share = f" ({count / training.events:.1%} of its {training.events})" if training and training.events else ""
    return Observation(
        trigger=str(trigger),
        observed=f"{count} events",
        threshold=f"{enough:.0f} events" if training or not trigger.percent else "any event",
        fires=count >= max(enough, 1),
        why=f"{count} new events {since}{share}",
    )
