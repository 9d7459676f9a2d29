"""What a run did, from its ledger: `summary.json` in the run's folder.

The exit handler writes it at the end of every run, however that ended. A cluster that retries a run goes on under the
same id and does not run the exit handler again: the first step that starts sets the summary aside, and the step that
ends the run writes the new one. So it does in a run that has no exit handler, as its steps are packed into few pods.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.errors import EXIT_STALE
from rankline.io.files import read_json_object, write_json
from rankline.runtime import ledger
from rankline.runtime.current_user import current_user
from rankline.runtime.outcomes import Outcome, has_verdict
from rankline.runtime.steps import DECIDING_STEPS, FLOWS, TRAINING_STEPS

TRIGGER = "trigger.json"  # what started the run
SUMMARY, EARLIER_SUMMARY = "summary.json", "summary.earlier.json"  # the second one is that of a run before its retry
RUN, CANCEL = "run.json", "cancel.json"  # the names of a run's recipe and flow; a request to end it
KILLED_MESSAGE = "it ended without an error message (killed, or out of memory?)"
INTERRUPTED_MESSAGE = "it was interrupted; the next run continues from the finished steps"


class Prices(FrozenModel):
    """The prices that a run's cost is computed from."""

    core_hour: float = Field(0.05, ge=0, description="Price of one core for an hour.")
    gpu_hour: float = Field(2.0, ge=0, description="Price of one GPU for an hour.")
    gpus: dict[str, int] = Field({}, description="Step -> number of GPUs it uses.")
    currency: str = Field("USD", description="Currency of the prices.")


@dataclass(frozen=True)
class KubeflowEnd:
    """How a run ended, as Kubeflow's exit handler gets it: without the failed step, and whether it was cancelled."""

    state: str = ""
    message: str = ""
    flow: str = "train"


def summarize(
    folder: Path,
    *,
    config: Prices,
    kubeflow_end: KubeflowEnd | None = None,
    cancelled: bool = False,
    interrupted: bool = False,
) -> dict[str, Any]:
    """Write the summary of the run in ``folder`` and return it.

    Args:
        kubeflow_end: how the run ended, as Kubeflow passes it to the exit handler.
        cancelled: a user cancelled the run: a step that was cut short has not failed. So does `cancel.json` say, unless
            a step has failed by itself.
        interrupted: the process that watched the run was interrupted; the next run continues it.
    """
    end = kubeflow_end or KubeflowEnd()
    summary = _summary(folder, config, end, cancelled=cancelled, interrupted=interrupted)
    summary["kubeflow_status"] = end.state
    write_json(folder / SUMMARY, summary)
    return summary


def note_cancelled(folder: Path, *, by: str = "", why: str = "") -> None:
    """Write down that a run was cancelled, by this user if nobody else did, and why if that was no user's wish.

    It is a request to end the run to the process that watches it.
    """
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(folder / CANCEL, {"at": at, "by": by or current_user(), **({"why": why} if why else {})})


def read_cancelled(folder: Path) -> dict[str, Any]:
    """What was written down of a cancellation; empty where the run was not cancelled."""
    return read_json_object(folder / CANCEL)


def why_started(folder: Path) -> str:
    """Why a schedule started a run by need; empty for every other run."""
    return str((read_json_object(folder / TRIGGER) or {}).get("why", ""))


def _summary(
    folder: Path,
    config: Prices,
    end: KubeflowEnd = KubeflowEnd(),
    *,
    cancelled: bool = False,
    interrupted: bool = False,
) -> dict[str, Any]:
    entries = ledger.read_entries(folder)
    steps = [_step_summary(entry, config) for entry in entries.values()]
    failed = next((entry for entry in entries.values() if entry.status in ("failed", "running")), None)
    verdict_entry = next((entries[step] for step in DECIDING_STEPS if step in entries), None)
    decision = verdict_entry.result if verdict_entry else {}
    outcome = _outcome(entries, failed, decision)
    was_cut_short = failed is None or failed.status == "running"
    cancelled = cancelled or (was_cut_short and (folder / CANCEL).is_file())
    was_cancelled = cancelled and not outcome.has_verdict
    unbegun = _unbegun_step(entries, failed, end) if not was_cancelled and not outcome.has_verdict else ""
    error = _error(failed, interrupted=interrupted)
    if was_cancelled:
        error = _cancelled_error(folder, failed)
    elif unbegun:
        outcome, error = Outcome.FAILED, _unbegun_error(unbegun, end)
    started = min((entry.started for entry in entries.values()), default=time.time())
    ended = max((entry.finished or time.time() for entry in entries.values()), default=started)
    return {
        "run": folder.name,
        **({"why": why} if (why := why_started(folder)) else {}),
        "outcome": (Outcome.CANCELLED if was_cancelled else outcome).value,
        "kubeflow_status": "",
        "verdict": decision.get("sentence", ""),
        "reasons": decision.get("failures", []),
        "error": error,
        "failed_step": unbegun or (failed.step if failed and not was_cancelled else ""),
        "model_id": decision.get("model_id", ""),
        "started": started,
        "seconds": round(max(ended - started, 0.0), 2),
        "work_s": round(sum(entry.work_s for entry in entries.values()), 2),
        "cost": round(sum(step["cost"] for step in steps), 4),
        "currency": config.currency,
        "prices": config.model_dump(),
        "steps": steps,
    }


def begin(folder: Path, names: Mapping[str, str]) -> None:
    """Note that a step of the run starts: a summary that is there already is of the run before its retry.

    ``names`` are those of its recipe and its flow, which nothing else in the folder of a run on a cluster has.
    """
    if (folder / SUMMARY).is_file():
        os.replace(folder / SUMMARY, folder / EARLIER_SUMMARY)
        (folder / CANCEL).unlink(missing_ok=True)
    note_names(folder, names)


def note_names(folder: Path, names: Mapping[str, str]) -> None:
    """Write down the names of a run's recipe and flow, where no step has done so."""
    if names and not (folder / RUN).is_file():
        write_json(folder / RUN, dict(names))


def begin_without_exit_handler(folder: Path, prices: Prices) -> None:
    """Leave the summary of a run to the step that will end it, as that of a retried one is."""
    write_json(folder / EARLIER_SUMMARY, {"prices": prices.model_dump()})


def complete_retried(folder: Path) -> dict[str, Any] | None:
    """Write the summary of a run that the exit handler leaves out, where a step has just ended it, and return it."""
    earlier = read_json_object(folder / EARLIER_SUMMARY)
    if not earlier:
        return None
    summary = _summary(folder, Prices(**earlier.get("prices", {})))
    if not summary["failed_step"] and not has_verdict(summary["outcome"]):
        return None
    write_json(folder / SUMMARY, summary)
    return summary


def _unbegun_step(entries: dict[str, ledger.Entry], failed: ledger.Entry | None, end: KubeflowEnd) -> str:
    """The step that a run failed at before the step could write its entry; empty where it ended otherwise."""
    if failed is not None or end.state in ("", "SUCCEEDED"):
        return ""
    return next((step for step in FLOWS.get(end.flow, TRAINING_STEPS) if step not in entries), "")


def _unbegun_error(step: str, end: KubeflowEnd) -> str:
    reason = " ".join(end.message.split())
    return f"{step} did not begin: its pod was not placed, could not start, or ended at once" + (
        f"; Kubeflow says: {reason}" if reason else ""
    )


def _cancelled_error(folder: Path, failed: ledger.Entry | None) -> str:
    if why := read_cancelled(folder).get("why"):
        return f"it was cancelled: {why}"
    return f"it was cancelled while {failed.step} ran" if failed else "it was cancelled"


def _error(failed: ledger.Entry | None, *, interrupted: bool) -> str:
    if failed is not None and failed.error:
        return failed.error
    if interrupted:
        return INTERRUPTED_MESSAGE
    return KILLED_MESSAGE if failed is not None else ""


def _outcome(entries: dict[str, ledger.Entry], failed: ledger.Entry | None, decision: dict[str, Any]) -> Outcome:
    if failed is not None:
        return Outcome.STALE if failed.exit_code == EXIT_STALE else Outcome.FAILED
    if "materialize" in entries:
        return Outcome.MATERIALIZED
    outcome = Outcome.of_verdict(decision.get("outcome", ""))
    return Outcome.FAILED if outcome.step and outcome.step not in entries else outcome


def step_cost(entry: ledger.Entry, prices: Prices) -> float:
    """The price of what a step used."""
    return (entry.core_s * prices.core_hour + _gpu_s(entry, prices) * prices.gpu_hour) / 3600


def _gpu_s(entry: ledger.Entry, prices: Prices) -> float:
    return prices.gpus.get(entry.step, 0) * entry.work_s


def _step_summary(entry: ledger.Entry, config: Prices) -> dict[str, Any]:
    return {
        "step": entry.step,
        "status": "killed" if entry.status == "running" else entry.status,
        "why": entry.why,
        "seconds": round(entry.seconds, 2),
        "work_s": round(entry.work_s, 2),
        "import_s": round(entry.import_s, 2),
        "peak_memory_mb": round(entry.peak_memory_bytes / 2**20),
        "core_s": round(entry.core_s, 2),
        "gpu_s": round(_gpu_s(entry, config), 2),
        "cost": round(step_cost(entry, config), 6),
        "result": entry.result,
        "paths": entry.paths,
    }
