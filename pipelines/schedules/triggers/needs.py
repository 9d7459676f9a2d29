"""The scheduler's part of firings by need: it starts checks when they are due and hands out what they observed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.schedules.model import Schedule
from pipelines.schedules.store import ScheduleStore
from pipelines.schedules.triggers.held import record_held
from pipelines.schedules.triggers.observation import (
    FOLDER,
    MAX_CHECK_TIME,
    Check,
    Observation,
    read_check,
    write_check,
)
from pipelines.schedules.triggers.requests import describe, mark_served, waiting_requests
from rankline.schedules.data_window import parse_span

CheckCommand = Callable[[Path, str, datetime], Sequence[str]]
MAX_CHECKS = 2  # processes at once: each reads a source
RETRY = timedelta(seconds=10)  # a request that is held back is tried again


def check_command(workspace: Path, name: str, now: datetime) -> list[str]:
    """The command line that checks a schedule's triggers (check.py)."""
    return [sys.executable, "-P", "-m", "pipelines.schedules.triggers.check", str(workspace), name, now.isoformat()]


@dataclass(frozen=True)
class Need:
    """Why a run is needed, since when, and the requests that it serves."""

    instant: datetime
    why: str
    triggers: tuple[str, ...]
    requests: tuple[Path, ...] = ()


@dataclass
class _Process:
    popen: subprocess.Popen[bytes]
    schedule: Schedule
    started_at: datetime


@dataclass
class Needs:
    """The checks of a workspace's schedules."""

    store: ScheduleStore
    say: Callable[[str], None]
    command: CheckCommand = check_command
    _processes: dict[str, _Process] = field(default_factory=dict)
    _decided: dict[str, str] = field(default_factory=dict)  # schedule -> the check that was decided on
    _retry_at: dict[str, datetime] = field(default_factory=dict)
    _held: dict[str, tuple[tuple[Path, ...], str]] = field(default_factory=dict)
    _problems: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._processes)

    def folder(self, name: str) -> Path:
        """Where a schedule stores its checks."""
        return self.store.folder / name / FOLDER

    def next(self, schedule: Schedule, now: datetime) -> Need | None:
        """What a schedule needs now; begins a check where one is due and ends those that are over."""
        self._collect(schedule.name, now)
        check = read_check(self.folder(schedule.name))
        if self._is_due(schedule, check, now) and schedule.name not in self._processes:
            if len(self._processes) < MAX_CHECKS:
                self._begin(schedule, now)
            return self._requested(schedule, now)
        return self._requested(schedule, now) or self._observed(schedule, check)

    def hold(self, schedule: Schedule, need: Need, why: str, *, now: datetime) -> None:
        """Record that a need starts no run now; a request goes on waiting."""
        if need.requests:
            self._retry_at[schedule.name] = now + RETRY
            if self._held.get(schedule.name) == (need.requests, why):
                return
            self._held[schedule.name] = (need.requests, why)
        else:
            self._decided[schedule.name] = need.instant.isoformat()
        entry = record_held(self.folder(schedule.name), need.triggers, need.why, why, now=now)
        if entry.count == 1:
            self.say(f"{schedule.name}: held back ({need.why}): {why}")

    def serve(self, schedule: Schedule, need: Need, *, now: datetime) -> None:
        """Note that a need has a firing."""
        if need.requests:
            mark_served(list(need.requests), now=now)
        else:
            self._decided[schedule.name] = need.instant.isoformat()

    def stop(self) -> None:
        """End the checks that are under way; the next scheduler begins them again."""
        for process in self._processes.values():
            _kill(process.popen)
        self._processes.clear()

    def _is_due(self, schedule: Schedule, check: Check | None, now: datetime) -> bool:
        if check is None or check.revision != schedule.revision or check.instant > now:
            return True
        return now >= check.instant + parse_span(schedule.check_every).elapsed

    def _begin(self, schedule: Schedule, now: datetime) -> None:
        folder = self.folder(schedule.name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / "check.log").open("wb") as log:
                popen = subprocess.Popen(
                    self.command(self.store.workspace, schedule.name, now),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=schedule.directory or None,
                )
        except OSError as error:
            self._note_problem(schedule, f"it cannot be started: {error.strerror}: {error.filename}", now)
            return
        self._processes[schedule.name] = _Process(popen, schedule, now)

    def _collect(self, name: str, now: datetime) -> None:
        process = self._processes.get(name)
        if process is None:
            return
        if process.popen.poll() is None:
            if now - process.started_at < MAX_CHECK_TIME:
                return
            _kill(process.popen)
        del self._processes[name]
        if process.popen.returncode:
            log = self.folder(name) / "check.log"
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            self._note_problem(process.schedule, "; ".join(map(str.strip, lines[-4:])) or "it was ended", now)
            return
        check = read_check(self.folder(name))
        self._report({each.trigger: each.why for each in check.observations if each.problem} if check else {}, name)

    def _note_problem(self, schedule: Schedule, why: str, now: datetime) -> None:
        observations = [
            Observation(trigger=each, observed="", why=f"the check failed: {why}", problem=True)
            for each in schedule.when
        ]
        write_check(
            self.folder(schedule.name),
            Check(at=now.isoformat(), revision=schedule.revision, observations=tuple(observations)),
        )
        self._report({"check": why}, schedule.name)

    def _report(self, problems: dict[str, str], name: str) -> None:
        """Report what cannot be observed, once."""
        text = "; ".join(f"{trigger}: {why}" for trigger, why in problems.items())
        if text and self._problems.get(name) != text:
            self.say(f"{name}: cannot be checked: {text}")
        self._problems[name] = text

    def _observed(self, schedule: Schedule, check: Check | None) -> Need | None:
        """The need that the latest check observed, once."""
        if check is None or not check.why or check.revision != schedule.revision:
            return None
        instant = check.instant.replace(microsecond=0)
        if self._decided.get(schedule.name) == instant.isoformat():
            return None
        return Need(instant, check.why, tuple(each.trigger for each in check.observations if each.fires))

    def _requested(self, schedule: Schedule, now: datetime) -> Need | None:
        """The need that requests have left; those of triggers that the schedule no longer has are not served."""
        requests = [each for each in waiting_requests(self.folder(schedule.name)) if each[1].trigger in schedule.when]
        retry_at = self._retry_at.get(schedule.name)
        if not requests or (retry_at and now < retry_at <= now + RETRY):
            return None
        triggers = tuple(dict.fromkeys(request.trigger for _, request in requests))
        return Need(now.replace(microsecond=0), describe(requests), triggers, tuple(path for path, _ in requests))


def _kill(popen: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()
