"""The folder of a run in a workspace: the files in it, and what they say of the run.

<step>.json    the ledger (rankline/runtime/ledger.py)
summary.json   how the run ended
recipe.json    what it runs
run.json       the names of its recipe and its flow, as its steps got them; all that a run on a cluster has of them
trigger.json   what asked for it, unless that was a person at a terminal: a schedule, or a retry of another run
watcher.json   the process that watches it, which lives as long as the run does; the flow and the runner;
               who started the run, unless a schedule did
cancel.json    a request to end it, which the watching process carries out
kubeflow.log   what Kubeflow's runner and the steps print
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.recipe import Recipe
from rankline.errors import RanklineError, UsageError
from rankline.io.files import read_json_object
from rankline.io.storage import StorageConfig
from rankline.runtime import ledger
from rankline.runtime.outcomes import Outcome
from rankline.runtime.run_context import WATCHER as WATCHER
from rankline.runtime.run_summary import RUN, SUMMARY
from rankline.runtime.steps import FLOWS, TRAINING_STEPS, Flow

RECIPE, TRIGGER, LOG = "recipe.json", "trigger.json", "kubeflow.log"
RUN_ID_FORMAT = "%Y%m%d-%H%M%S"  # of the start of a run's id, UTC
_TIMED_ID = re.compile(r"[0-9]{8}-[0-9]{6}-")
MAX_STARTUP_S = 300.0  # the process of a step is at most this much older than the step's entry in the ledger
MAX_SILENCE_S = 30.0  # between two steps nothing is written for a few seconds
MAX_CLUSTER_SILENCE_S = 86_400.0  # a pod may wait for a node for hours


def new_run_folder(workspace: Path, name: str) -> Path:
    """Create the folder of a run that starts now; its name, the time and ``name``, is the run's id.

    Ids are in the order in which the runs started: where the clock was set back, they go on from the last run's.
    """
    timestamp = max(datetime.datetime.now(datetime.UTC).strftime(RUN_ID_FORMAT), _after_latest_run(workspace))
    for _ in range(100):
        folder = workspace / "runs" / f"{timestamp}-{name}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        next_one = datetime.datetime.strptime(timestamp, RUN_ID_FORMAT) + datetime.timedelta(seconds=1)
        timestamp = next_one.strftime(RUN_ID_FORMAT)
    raise RanklineError("no free name for a run", where=str(workspace / "runs"))


def _after_latest_run(workspace: Path) -> str:
    """The second after the latest run, where the clock is behind that; empty where it is not."""
    now, latest = datetime.datetime.now(datetime.UTC).replace(tzinfo=None), datetime.datetime.min
    for folder in (workspace / "runs").glob("*-*-*"):
        with contextlib.suppress(ValueError):
            latest = max(latest, datetime.datetime.strptime(folder.name[:15], RUN_ID_FORMAT))
    return (latest + datetime.timedelta(seconds=1)).strftime(RUN_ID_FORMAT) if latest > now else ""


def run_folders(workspace: Path) -> Sequence[Path]:
    """The folders of all runs of a flow, oldest first; a step that was run alone is not one of them."""
    folders = {path.parent for name in (RECIPE, RUN, SUMMARY) for path in (workspace / "runs").glob(f"*/{name}")}
    return sorted(folders, key=start_order)


def has_timed_id(folder: Path) -> bool:
    """Whether the id of a run begins with the time of its start; a cluster's ids do not."""
    return bool(_TIMED_ID.match(folder.name))


def start_order(folder: Path) -> str:
    """What puts the folders of runs in the order of their starts."""
    if has_timed_id(folder):
        return folder.name
    path = next((folder / name for name in (RECIPE, RUN, SUMMARY) if (folder / name).is_file()), folder)
    return time.strftime(RUN_ID_FORMAT, time.gmtime(path.stat().st_mtime)) + folder.name


def process_identity() -> dict[str, Any]:
    """What distinguishes this process from every other one, for watcher.json."""
    import psutil

    return {"pid": os.getpid(), "began": psutil.Process().create_time(), "host": socket.gethostname()}


def read_flow(folder: Path) -> Flow:
    """The flow that a run is of; of a run on a cluster in an earlier version, by the steps that it began."""
    began = {path.stem for path in folder.glob("*.json")}
    by_steps = next((name for name, steps in FLOWS.items() if began & {*steps} - {*TRAINING_STEPS}), "train")
    on_cluster = read_json_object(folder / RUN).get("flow", by_steps)
    flow: Flow = read_json_object(folder / WATCHER).get("flow", on_cluster)
    return flow


def read_recipe_name(folder: Path) -> str:
    """The name of the recipe of a run; empty where nothing says it."""
    return str(read_json_object(folder / RECIPE).get("name") or read_json_object(folder / RUN).get("recipe", ""))


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a run; None where there is none or it cannot be read."""
    summary = read_json_object(folder / SUMMARY)
    return summary if isinstance(summary.get("outcome"), str) else None


def read_repository(folder: Path, workspace: Path) -> str:
    """The model registry that the recipe of a run names; empty where it names none."""
    storage = read_json_object(folder / RECIPE).get("storage")
    urls = {name: storage.get(name) for name in ("workspace", "repository")} if isinstance(storage, dict) else {}
    named = StorageConfig(**{name: url for name, url in urls.items() if isinstance(url, str)})
    return named.resolved.repository.replace("{workspace}", str(workspace))


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        UsageError: it is missing, or of a version with other settings.
    """
    try:
        return TypeAdapter(Recipe).validate_python(json.loads((folder / RECIPE).read_text()))
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(
            f"the recipe of run {folder.name} cannot be read",
            expected=f"{RECIPE}, as this version of Rankline writes it",
            found=" ".join(str(error).split())[:200],
            where=str(folder / RECIPE),
            hint="start a new run of the recipe: `rankline run --recipe …`",
        ) from error


def last_activity(folder: Path) -> float:
    """When anything was last written into a run's folder, in unix seconds."""
    return max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)


def is_running(folder: Path) -> bool:
    """Whether a run of this machine is under way."""
    return not (folder / SUMMARY).is_file() and run_state(folder) is Outcome.RUNNING


def run_state(folder: Path) -> Outcome:
    """RUNNING or UNFINISHED: the outcome of a run without a summary.

    It is running while the process that watches it lives. Where that process cannot be seen (in a container, on
    another machine, or in a run of an earlier version), the process of the running step counts, or a file that was
    written within the last half minute, on a cluster within a day.
    """
    import psutil

    watcher = read_json_object(folder / WATCHER)
    if watcher.get("host") == socket.gethostname():
        try:
            process = psutil.Process(watcher["pid"])
            if process.status() == psutil.STATUS_ZOMBIE:
                return Outcome.UNFINISHED
            if abs(process.create_time() - watcher["began"]) < 1:
                return Outcome.RUNNING
        except psutil.NoSuchProcess:
            return Outcome.UNFINISHED
    for entry in ledger.read_entries(folder).values():
        if entry.status == "running" and entry.pid and psutil.pid_exists(entry.pid):
            process = psutil.Process(entry.pid)
            # the number may belong to another process: one in a container, or a later one
            startup_s = entry.started - process.create_time()
            if -1 < startup_s < MAX_STARTUP_S and process.status() != psutil.STATUS_ZOMBIE:
                return Outcome.RUNNING
    max_silence_s = MAX_CLUSTER_SILENCE_S if not watcher and (folder / RUN).is_file() else MAX_SILENCE_S
    recent = abs(time.time() - last_activity(folder)) < max_silence_s
    return Outcome.RUNNING if recent else Outcome.UNFINISHED
