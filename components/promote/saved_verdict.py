"""The verdict of a run whose decide and promote share a pod, saved in the run's folder.

Such a pod that was ended within promote is made again, and begins with decide. The champion may be the candidate by
then, so a second verdict would be that there is nothing to do, and promote would stay unfinished for ever.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from components.promote.verdict_files import PAGE, VERDICT
from rankline.evaluation.report import RUN_MEASURES
from rankline.evidence.model_card import MODEL_CARD
from rankline.evidence.page import EVIDENCE_PAGE
from rankline.io.artifacts import write_digests
from rankline.io.files import write_bytes
from rankline.runtime import ledger

FILES = (VERDICT, RUN_MEASURES, EVIDENCE_PAGE, MODEL_CARD, PAGE)  # the last one marks a whole copy


def save_verdict(run_folder: Path, verdict: Path) -> None:
    """Copy the verdict of this run to its folder."""
    for name in FILES:
        if (verdict / name).is_file():
            write_bytes(run_folder / name, (verdict / name).read_bytes())


def restore_verdict(run_folder: Path, verdict: Path) -> bool:
    """Put the verdict to promote that an earlier attempt of this run came to in place; False where there is none."""
    entry = ledger.read_entries(run_folder).get("decide")
    decided = entry is not None and entry.status == "done" and entry.result.get("outcome") == "promote"
    if not decided or not (run_folder / PAGE).is_file():
        return False
    shutil.rmtree(verdict, ignore_errors=True)
    for name in FILES:
        if (run_folder / name).is_file():  # an earlier version saved two of them
            write_bytes(verdict / name, (run_folder / name).read_bytes())
    write_digests(verdict)
    return True
