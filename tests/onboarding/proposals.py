"""A source of a few rows, what is proposed for it, and what ingest reads with the proposal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onboarding.inference.dry_run import DryRun, dry_run
from onboarding.inference.proposal import Proposal, propose
from onboarding.inference.render import render_map
from onboarding.survey.survey import survey
from pipelines.recipes import interactions

Cell = Callable[[int], object]


@dataclass(frozen=True)
class Tried:
    """A proposal, and the dry run of its map."""

    proposal: Proposal
    result: DryRun

    @property
    def settings(self) -> dict[str, str]:
        """Column -> the setting that it is proposed for."""
        return {each.column: each.setting for role in self.proposal.column_mappings.values() for each in role}

    @property
    def rejected(self) -> dict[str, int]:
        """The events that ingest rejects, by reason."""
        return self.result.rejected.get("events", {})


def csv(rows: int = 40, delimiter: str = ",", **columns: Cell) -> str:
    """A CSV text with these columns, each a function of the row."""
    lines = [delimiter.join(str(cell(n)) for cell in columns.values()) for n in range(rows)]
    return "\n".join([delimiter.join(columns), *lines]) + "\n"


def log(rows: int = 40, **columns: Cell) -> str:
    """A log of users, items and seconds, and some more columns; a column may be given anew."""
    common: dict[str, Cell] = {
        "user_id": lambda n: f"u{n % 8}",
        "item_id": lambda n: f"i{n % 5}",
        "timestamp": lambda n: 1_680_000_000 + 60 * n,
    }
    return csv(rows, **(common | columns))


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """The files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def proposed(folder: Path, files: Mapping[str, str | bytes], **answers: object) -> Proposal:
    """The proposal for a source of these files."""
    return propose(survey(str(write(folder / "source", files))), name="mine", time_zone="UTC", **answers)  # type: ignore[arg-type]


def tried(folder: Path, files: Mapping[str, str | bytes], **answers: object) -> Tried:
    """The proposal for a source of these files, and the dry run of its map."""
    proposal = proposed(folder, files, **answers)
    (folder / "mine.toml").write_text(render_map(proposal))
    return Tried(proposal, dry_run(interactions(proposal.survey.source, str(folder / "mine.toml")).ingest))
