"""Checks the triggers of a schedule: `python -m pipelines.schedules.triggers.check WORKSPACE NAME TIME`.

A check reads the source and may take minutes, and it imports the recipe, so it is a process of its own in the folder
of the schedule. It writes what it observed to `schedules/NAME/need/observed.json` and decides nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from pipelines.recipes import named
from pipelines.schedules.model import Schedule
from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.triggers.code import observe_code
from pipelines.schedules.triggers.features import observe_drift
from pipelines.schedules.triggers.observation import FOLDER, Check, Observation, write_check
from pipelines.schedules.triggers.requests import observe_webhook
from pipelines.schedules.triggers.served import observe_decay, observe_scores
from pipelines.schedules.triggers.spec import Kind, Trigger
from pipelines.schedules.triggers.subject import Subject
from pipelines.schedules.triggers.volume import observe_events
from rankline.errors import EXIT_FAILED, EXIT_OK, RanklineError
from rankline.io.files import first_line

OBSERVERS: Mapping[Kind, Callable[[Trigger, Subject], Observation]] = {
    "events": observe_events,
    "drift": observe_drift,
    "scores": observe_scores,
    "decay": observe_decay,
    "code": observe_code,
    "webhook": observe_webhook,
}


def check(store: ScheduleStore, schedule: Schedule, *, now: datetime) -> Check:
    """Observe every trigger of a schedule; one that cannot be observed says why and stops no other.

    Raises:
        UsageError: the recipe cannot be loaded.
    """
    recipe = named(schedule.recipe, schedule.settings, source=schedule.source, map=schedule.map)
    subject = Subject(schedule, recipe, store.workspace, store.folder / schedule.name / FOLDER, now)
    observations = tuple(_observe(trigger, subject) for trigger in schedule.triggers)
    result = Check(at=now.isoformat(), revision=schedule.revision, observations=observations)
    write_check(subject.folder, result)
    return result


def _observe(trigger: Trigger, subject: Subject) -> Observation:
    import duckdb

    try:
        return OBSERVERS[trigger.kind](trigger, subject)
    except (RanklineError, OSError, ValueError, duckdb.Error) as error:
        return Observation(trigger=str(trigger), observed="", why=first_line(error), problem=True)


def main() -> int:
    """Check the schedule that the command line names."""
    store = ScheduleStore(Path(sys.argv[1]))
    try:
        check(store, store.get(sys.argv[2]), now=datetime.fromisoformat(sys.argv[3]))
    except (RanklineError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
