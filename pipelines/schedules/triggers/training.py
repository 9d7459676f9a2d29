"""The last training of a schedule's recipe: what live data is compared with."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.runs import folder as runs
from rankline.io.files import read_json_object
from rankline.runtime import ledger, outcomes
from rankline.runtime.run_summary import why_started
from rankline.runtime.steps import Flow


@dataclass(frozen=True)
class Training:
    """A run that came to a verdict, and the events that it read."""

    run: str
    data_end: datetime  # every event before it counts as read
    events: int
    why: str = ""  # of a firing by need


def last_training(workspace: Path, *, recipe: str, flow: Flow) -> Training | None:
    """The newest run of a recipe and flow that came to a verdict; None where there is none.

    A model that was refused has learned from its data, too: the same need does not start another run.
    """
    for folder in reversed(runs.run_folders(workspace)):
        if runs.read_recipe_name(folder) != recipe or runs.read_flow(folder) != flow:
            continue
        summary, ingest = runs.read_summary(folder), ledger.read_entries(folder).get("ingest")
        if summary is None or ingest is None or not outcomes.has_verdict(summary["outcome"]):
            continue
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a run of another version
            last = datetime.fromisoformat(ingest.result["event_time"]["last"]) + timedelta(microseconds=1)
            end = read_json_object(folder / runs.RECIPE).get("ingest", {}).get("window_end")
            data_end = max(last, datetime.fromisoformat(end)) if end else last
            return Training(folder.name, data_end, int(ingest.result["rows"]["events"]), why_started(folder))
    return None
