"""How fresh the online features are, by their watermarks, the run ledgers and the champion."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from components.promote.store_lock import lock_holder
from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.features import watermark
from rankline.io.files import read_json_object
from rankline.registry.model_registry import ModelRegistry

_DURATION = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Freshness(FrozenModel):
    """One feature service that is online, or that the champion needs online; times are ISO, UTC."""

    service: str
    champion_reads: bool
    owner: str = ""  # who materialized it last: a promotion, a schedule, a user
    run: str = ""
    writer: str = ""  # who materializes it now
    watermark: str = ""  # it includes everything known until then; empty where it is not online
    at: str = ""  # when it was materialized
    lag_s: float | None = None  # from the watermark to now; None without events
    age_s: float | None = None  # from `at` to now
    behind_data_s: float | None = None  # from the watermark to the newest event that any run has ingested
    took_s: float | None = None
    damaged: str = ""  # why the watermark cannot be read
    entities: dict[str, int] = Field(default={})

    @property
    def rows(self) -> int:
        """The entities of all its views."""
        return sum(self.entities.values())

    def exceeds(self, *, lag: float | None = None, age: float | None = None) -> list[str]:
        """A sentence for each limit that it exceeds, and for not being online at all."""
        if self.damaged:
            return [f"{self.service} has a watermark that cannot be read: {self.damaged}"]
        if not self.watermark:
            return [f"{self.service} is not online, and the champion reads it"]
        violations = []
        if lag is not None and self.lag_s is not None and self.lag_s > lag:
            violations.append(f"{self.service} is {self.lag_s:.0f} s behind now, more than {lag:.0f} s")
        if age is not None and (self.age_s is None or self.age_s > age):
            when = "at an unknown time" if self.age_s is None else f"{self.age_s:.0f} s ago"
            violations.append(f"{self.service} was last brought online {when}, more than {age:.0f} s")
        return violations


def freshness(workspace: Path, *, now: datetime, repository: str = "") -> list[Freshness]:
    """Every feature service of a workspace, the champion's first.

    Raises:
        RepositoryError: the model registry cannot be read.
    """
    models = ModelRegistry(repository or str(workspace / "repository"), repair_cache=False)
    champion = models.champion()
    reads = models.manifest(champion).features.service if champion else ""
    names = {path.parent.name for path in (workspace / "online").glob(f"*/{watermark.FILE}")} | (
        {reads} if reads else set()
    )
    newest = newest_data(workspace)
    services = [
        _service_freshness(workspace / "online" / name, reads=name == reads, newest=newest, now=now) for name in names
    ]
    return sorted(services, key=lambda each: (not each.champion_reads, each.service))


def _service_freshness(folder: Path, *, reads: bool, newest: datetime | None, now: datetime) -> Freshness:
    missing = Freshness(service=folder.name, champion_reads=reads, writer=lock_holder(folder))
    try:
        payload = json.loads((folder / watermark.FILE).read_text())
        return _from_watermark(folder, payload, reads=reads, newest=newest, now=now)
    except OSError:
        return missing
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # another program's file, or a partial one
        first = str(error).splitlines()[0] if str(error) else ""
        return missing.model_copy(update={"damaged": f"{type(error).__name__}: {first}"})


def _from_watermark(
    folder: Path, payload: dict[str, Any], *, reads: bool, newest: datetime | None, now: datetime
) -> Freshness:
    """The freshness that a watermark describes."""
    until = datetime.fromisoformat(payload["until"])
    owner = payload.get("owner") or {}
    eventless = until.timestamp() == 0  # without events no feature ages
    return Freshness(
        service=folder.name,
        champion_reads=reads,
        owner=owner.get("who", ""),
        run=owner.get("run", ""),
        writer=lock_holder(folder),
        watermark=until.astimezone(UTC).isoformat(),
        at=payload.get("at", ""),
        lag_s=None if eventless else round((now - until).total_seconds(), 1),
        age_s=round((now - datetime.fromisoformat(payload["at"])).total_seconds(), 1) if payload.get("at") else None,
        behind_data_s=round((newest - until).total_seconds(), 1) if newest and not eventless else None,
        took_s=payload.get("took_s"),
        entities=payload.get("entities", {}),
    )


def newest_data(workspace: Path) -> datetime | None:
    """The time of the newest event that any run of this workspace has ingested; None where no ledger tells."""
    return max(_newest_event_times(workspace), default=None)


def _newest_event_times(workspace: Path) -> Iterator[datetime]:
    for path in (workspace / "runs").glob("*/ingest.json"):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the run is under way, or of another version
            yield datetime.fromisoformat(read_json_object(path)["result"]["event_time"]["last"])


def parse_duration_s(text: str) -> float:
    """The seconds of a duration such as 90s, 30m, 2h, 1d.

    Raises:
        UsageError: it is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is not a duration", expected="a number and a unit: 90s, 30m, 2h, 1d", found=text)
    return float(int(match[1]) * _SECONDS[match[2]])
