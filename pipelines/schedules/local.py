"""The schedules of a workspace, as `rankline schedule` sees them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.recipes import named
from pipelines.schedules import cron as crons
from pipelines.schedules.backfill import Backfill, BackfillOptions, BackfillStatus
from pipelines.schedules.firing import Firing
from pipelines.schedules.model import Schedule, validate_schedule
from pipelines.schedules.protocol import FiringRecord, ScheduleChanges, ScheduleInfo, UnreadableSchedule
from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.triggers.held import Held, read_held
from pipelines.schedules.triggers.needs import check_command
from pipelines.schedules.triggers.observation import FOLDER, Check, read_check
from pipelines.schedules.worker import flow_runner
from rankline.errors import RanklineError, UsageError


class LocalSchedules:
    """The schedules of a workspace, see `Schedules`."""

    zone_note = ""
    unsupported: Sequence[str] = ()

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.store = ScheduleStore(workspace.resolve())

    def list(self) -> list[ScheduleInfo | UnreadableSchedule]:
        """Every schedule; those that cannot be read come last."""
        readable: list[ScheduleInfo | UnreadableSchedule] = []
        unreadable: list[ScheduleInfo | UnreadableSchedule] = []
        for name in self.store.names():
            try:
                readable.append(self.get(name))
            except RanklineError as error:
                unreadable.append(UnreadableSchedule(name, "unreadable", {"unreadable": str(error)}, str(error)))
        return [*readable, *unreadable]

    def get(self, name: str) -> ScheduleInfo:
        """One schedule."""
        return self._info(self.store.get(name))

    def create(self, name: str, changes: ScheduleChanges, *, now: datetime) -> ScheduleInfo:
        """Create a schedule whose runs start in the current folder."""
        values, notes = self._checked(changes, {"name": name, "directory": str(Path.cwd())}, current=None, now=now)
        return self._info(self.store.create(values, now=now), notes)

    def update(self, name: str, changes: ScheduleChanges, *, now: datetime) -> ScheduleInfo:
        """Change a schedule; its runs start in the current folder from now on."""
        current = self.store.get(name)
        values, notes = self._checked(changes, {"directory": str(Path.cwd())}, current=current, now=now)
        return self._info(self.store.update(name, values, now=now), notes)

    def set_paused(self, name: str, paused: bool, *, now: datetime) -> ScheduleInfo:
        """Stop starting runs, or start them again."""
        current = self.store.get(name)
        values, _ = self._checked(ScheduleChanges({"paused": paused}), {}, current=current, now=now)
        return self._info(self.store.update(name, values, now=now))

    def delete(self, name: str, *, now: datetime, end_runs: bool = False) -> ScheduleInfo:
        """Delete a schedule; its active runs go on, and its firings stay."""
        schedule = self.store.delete(name, now=now)
        return ScheduleInfo(
            schedule, revisions=schedule.revision, remaining=(f"its firings stay in {self.store.folder / name}",)
        )

    def earliest_start(self, schedule: Schedule, scheduled_at: datetime) -> datetime:
        """When the run of a fire time may start, after its jitter."""
        return schedule.earliest_start(scheduled_at)

    def firings(self, name: str, *, limit: int = 10) -> Sequence[FiringRecord]:
        """The latest firings; one that no process runs any more is `interrupted`."""
        firings = self.store.firings(name)
        records = []
        for firing in firings.all()[-limit:]:
            interrupted = firing.status == "running" and not firings.is_running(firing.instant)
            records.append(_record(firing, status="interrupted" if interrupted else firing.status))
        return records

    def skipped(self, name: str, *, limit: int = 10) -> Sequence[dict[str, Any]]:
        """The latest skipped fire times."""
        skipped: Sequence[dict[str, Any]] = self.store.firings(name).handled()["skipped"][-limit:]
        return skipped

    def check(self, name: str, *, now: datetime) -> Check:
        """Check the triggers of a schedule, in the folder in which its runs start."""
        schedule = self.store.get(name)
        done = subprocess.run(
            check_command(self.store.workspace, name, now),
            cwd=schedule.directory or None,
            capture_output=True,
            text=True,
        )
        result = read_check(self.store.folder / name / FOLDER)
        if done.returncode or result is None:
            raise RanklineError(f"the triggers of schedule {name!r} cannot be checked", found=done.stderr.strip())
        return result

    def last_check(self, name: str) -> Check | None:
        """What the triggers last observed, if they have not changed since."""
        schedule, result = self.store.get(name), read_check(self.store.folder / name / FOLDER)
        return result if result and schedule.when and result.revision == schedule.revision else None

    def held_back(self, name: str, *, limit: int = 10) -> Sequence[Held]:
        """The latest needs that started no run."""
        return read_held(self.store.folder / name / FOLDER)[-limit:]

    def backfill(
        self, name: str, options: BackfillOptions, *, now: datetime, say: Callable[[str], None]
    ) -> Sequence[tuple[FiringRecord, BackfillStatus]]:
        """Run past fire times to their end; interrupted, their runs end, too."""
        results = Backfill(self.store.workspace, name, options, now=now, say=say).run()
        return [(_record(each.firing, status=each.firing.status), each.status) for each in results]

    def _info(self, schedule: Schedule, notes: Sequence[str] = ()) -> ScheduleInfo:
        clock_note = self.store.clock_note(schedule.name, now=datetime.now(UTC))
        need_notes = self._need_notes(schedule)
        return ScheduleInfo(
            schedule,
            revisions=len(self.store.history(schedule.name)),
            notes=(*notes, *filter(None, (clock_note,)), *need_notes),
            started_by=f"`rankline scheduler -w {self.workspace}` starts its runs",
        )

    def _need_notes(self, schedule: Schedule) -> Sequence[str]:
        """Why it last fired by need, what was held back since, and what cannot be observed."""
        if not schedule.when:
            return []
        firings = [each for each in self.store.firings(schedule.name).all() if each.kind == "need"]
        held, check = self.held_back(schedule.name, limit=1), self.last_check(schedule.name)
        notes = [f"fired by need at {each.scheduled_at}: {each.why}" for each in firings[-1:]]
        last = firings[-1].scheduled_at if firings else ""
        notes += [f"held back at {each.last}: {each.why}" for each in held if each.last > last]
        problems = [each for each in check.observations if each.problem] if check else []
        return [*notes, *(f"{each.trigger} cannot be checked: {each.why}" for each in problems)]

    def _checked(
        self, changes: ScheduleChanges, fixed: dict[str, Any], *, current: Schedule | None, now: datetime
    ) -> tuple[dict[str, Any], Sequence[str]]:
        """The values to store, after checking the schedule that they make and its recipe; and notes for people."""
        if changes.experiment or changes.account:
            raise UsageError(
                "a workspace has neither experiments nor service accounts",
                expected="--host, or a kubeconfig's --context, for a cluster's schedule",
                found="--experiment" if changes.experiment else "--service-account",
            )
        values: dict[str, Any] = {**changes.values, **fixed}
        notes: Sequence[str] = ()
        if values.get("zone") == "":
            values["zone"] = "UTC"
        text = values.get("cron", current.cron if current else "")
        if text and ("cron" in values or "zone" in values):
            zone = values.get("zone", current.zone if current else "UTC")
            cron, notes = crons.parse(text, zone, seconds_first=changes.seconds_first)
            values |= {"cron": cron.text, "zone": cron.zone}
        schedule = validate_schedule((current.model_dump() if current else {}) | values)
        flow_runner(schedule.flow)
        # a mistyped setting is an error now, and not when the first run starts
        recipe = named(schedule.recipe, schedule.run_settings(now), source=schedule.source, map=schedule.map)
        _check_scratch_every(schedule, warm_start=recipe.finetune.warm_start)
        return values, notes


def _record(firing: Firing, *, status: str) -> FiringRecord:
    names = ("kind", "outcome", "exit_code", "run", "attempts", "revision", "error", "notified", "why")
    return FiringRecord(**firing.trigger | {name: getattr(firing, name) for name in names}, status=status)


def _check_scratch_every(schedule: Schedule, *, warm_start: bool) -> None:
    if schedule.scratch_every and schedule.flow != "train":
        raise UsageError(
            f"a schedule of the flow {schedule.flow} does not train",
            expected="--flow train together with --scratch-every",
            found=f"--flow {schedule.flow} and --scratch-every {schedule.scratch_every}",
            hint="leave one of them out, or add --scratch-every 0",
        )
    if schedule.scratch_every and not warm_start:
        raise UsageError(
            "every run of this schedule trains from scratch already",
            expected="finetune.warm_start=true together with --scratch-every",
            found="finetune.warm_start=false",
            hint="add --set finetune.warm_start=true, or --scratch-every 0",
        )
