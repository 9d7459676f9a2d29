"""What a trigger observed, and the files in which a schedule stores its checks: `schedules/NAME/need/`."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from rankline.contracts import FrozenModel
from rankline.io.files import write_json

OBSERVED = "observed.json"
FOLDER = "need"
MAX_CHECK_TIME = timedelta(hours=2)  # a check that takes longer is ended


class Observation(FrozenModel):
    """What one trigger observed."""

    trigger: str
    observed: str  # for people, with its unit; empty where nothing could be observed
    threshold: str = ""
    fires: bool = False
    why: str  # why it fires, or why it does not
    problem: bool = False  # it could not be observed


class Check(FrozenModel):
    """One check of a schedule's triggers."""

    at: str
    revision: int
    observations: tuple[Observation, ...] = ()

    @property
    def instant(self) -> datetime:
        """When the triggers were checked."""
        return datetime.fromisoformat(self.at)

    @property
    def why(self) -> str:
        """Why it fires; empty where it does not."""
        return "; ".join(f"{each.trigger}: {each.why}" for each in self.observations if each.fires)


def write_check(folder: Path, check: Check) -> None:
    """Store the latest check."""
    write_json(folder / OBSERVED, check.model_dump())


def read_check(folder: Path) -> Check | None:
    """The latest check; None where there is none, or none that this version can read."""
    try:
        check = Check.model_validate_json((folder / OBSERVED).read_bytes())
        return check if check.instant.tzinfo else None
    except (OSError, ValidationError, ValueError):
        return None
