"""The dry run of a map: ingest itself reads the first events of a source as the map says."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.feedback import check_feedback
from components.ingest.step import ingest
from rankline.errors import SourceError
from rankline.runtime.progress import Progress

MAX_EVENTS = 50_000
MAX_EXAMPLE_ROWS = 10_000


@dataclass(frozen=True)
class DryRun:
    """What ingest reads of the first events and of all other tables."""

    rows_read: dict[str, int]
    rows_kept: dict[str, int]
    rejected: dict[str, dict[str, int]]  # table -> reason -> rows
    examples: dict[tuple[str, str], str]  # (table, reason) -> the first row rejected for it
    event_time_span: tuple[str, str]
    max_rejected_share: float
    hint: str = ""  # what to try against what ingest would refuse
    refusal: str = ""  # why ingest would refuse the events that it can read
    feedback: dict[str, int] = field(default_factory=dict)  # events that are positives, negatives, neither
    rows_without_column: dict[str, int] = field(default_factory=dict)  # of files that have no such column
    empty_files: tuple[str, ...] = ()

    @property
    def tables_over_limit(self) -> list[str]:
        """The tables with so many rejected rows that ingest would stop."""
        if not self.hint:
            return []
        return [
            table
            for table, reasons in self.rejected.items()
            if sum(reasons.values()) > self.max_rejected_share * max(self.rows_read.get(table, 0), 1)
        ]


def dry_run(config: IngestConfig, *, events: int = MAX_EVENTS, progress: Progress = Progress()) -> DryRun:
    """Run ingest on the first events in a temporary folder.

    Raises:
        SourceError: no row of a table can be read with these settings, or a column does not exist.
    """
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        hint = ""
        try:
            ingest(raw, config=config, first_events=events, progress=progress)
        except SourceError as refusal:
            hint = refusal.hint.partition("; raise ingest.max_rejected_share")[0]
            try:
                config_of_all = config.model_copy(update={"max_rejected_share": 1.0})
                ingest(raw, config=config_of_all, first_events=events, progress=progress)
            except SourceError as error:
                if str(raw) not in error.where:
                    raise
                raise _all_rejected_error(error, config) from error
        summary: dict[str, Any] = json.loads((raw / "summary.json").read_text())
        rejected = pq.read_table(raw / "rejected.parquet")
        examples: dict[tuple[str, str], str] = {}
        for row in rejected.slice(0, MAX_EXAMPLE_ROWS).to_pylist():
            examples.setdefault((row["table"], row["reason"]), row["raw"])
    return DryRun(
        rows_read=summary["read"],
        rows_kept=summary["rows"],
        rejected=summary["rejected"],
        examples=examples,
        event_time_span=(summary["event_time"]["first"] or "", summary["event_time"]["last"] or ""),
        max_rejected_share=config.max_rejected_share,
        hint=hint,
        refusal=_refusal(summary, config) if summary["read"]["events"] < events else "",
        feedback={group: events for group, events in summary.get("feedback", {}).items() if isinstance(events, int)},
        rows_without_column=summary.get("rows_without_column", {}),
        empty_files=tuple(summary.get("empty_files", ())),
    )


def _refusal(summary: dict[str, Any], config: IngestConfig) -> str:
    """Why nothing can be learnt of a log that was read as a whole; empty if something can."""
    counts = summary.get("feedback", {})
    labels = {name: label for name, label in config.effective_labels().items() if name in counts.get("labels", {})}
    try:
        check_feedback(counts, labels, declared=bool(config.labels), where="")
    except SourceError as error:
        return f"{error.message}: {error.found}"
    return ""


def _all_rejected_error(error: SourceError, config: IngestConfig) -> SourceError:
    """The error for a table without a good row, with the user's own limit and without the temporary folder."""
    return SourceError(
        error.message,
        expected=f"at most {config.max_rejected_share:.1%} rejected (ingest.max_rejected_share)",
        found=error.found,
        where=error.where.partition(";")[0],
        hint=error.hint.partition("; raise ingest.max_rejected_share")[0],
    )
