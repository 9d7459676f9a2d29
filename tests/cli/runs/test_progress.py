"""What is shown while a run goes on, and its summary."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from cli.formats import format_duration
from cli.runs.progress import (
    Screen,
    progress_text,
    reason_lines,
    run_table,
    summary_lines,
    usual_durations,
)
from components.summary.config import SummaryConfig
from components.summary.step import summarize
from rankline.runtime import ledger
from rankline.runtime.progress import Progress
from rankline.runtime.steps import TRAINING_STEPS
from tests.cli.in_process import rankline


def entry(
    step: str, status: str, *, started_s_ago: float = 0, took_s: float | None = None, why: str = ""
) -> ledger.Entry:
    started = time.time() - started_s_ago
    finished = None if took_s is None else started + took_s
    return ledger.Entry.model_validate(
        {"step": step, "status": status, "started": started, "finished": finished, "why": why}
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An earlier run, and one that is training."""
    before, now = (tmp_path / "runs" / f"20260101-00000{n}-smoke" for n in (0, 1))
    ledger.write_entry(before, entry("ingest", "done", took_s=4.2))
    ledger.write_entry(before, entry("finetune", "done", took_s=75))
    ledger.write_entry(now, entry("ingest", "reused", started_s_ago=40, took_s=0.2, why="unchanged"))
    ledger.write_entry(now, entry("finetune", "running", started_s_ago=30, why="epochs: 4 -> 3"))
    progress = Progress(now / "finetune.progress", interval_s=0)
    progress.phase("training the teacher")
    progress._started = time.monotonic() - 10
    progress.update(30, 40, loss=1.23456)
    return tmp_path


def drawn(workspace: Path, *, width: int, ended: bool = False) -> list[str]:
    """The live table on a terminal of this width."""
    folder = workspace / "runs" / "20260101-000001-smoke"
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(run_table(folder, usual_durations(workspace, "smoke", before=folder), seconds=41, ended=ended))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def row(lines: list[str], step: str) -> str:
    return next(line for line in lines if f" {step}" in line)


class Process:
    """A runner's process, as far as the screen uses it."""

    ended = False

    def poll(self) -> int | None:
        return 1 if self.ended else None


def test_the_table_shows_each_step_elapsed_estimate_and_a_bar(workspace: Path) -> None:
    lines = drawn(workspace, width=120)
    assert lines[0] == "20260101-000001-smoke   41.0 s"
    assert lines[1].split() == ["step", "elapsed", "usual"]
    assert len(lines) == 2 + len(TRAINING_STEPS)
    assert row(lines, "ingest").split() == ["↺", "ingest", "0.2", "s", "4.2", "s", "unchanged"]
    bar = "█" * 15 + "░" * 5
    assert row(lines, "finetune").startswith("▶ finetune")
    assert row(lines, "finetune").endswith(
        f" 30.0 s    1:15  {bar} 75%, 3.3 s left, 3.0/s, loss 1.235, training the teacher"
    )
    assert row(lines, "promote") == "· promote"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_keeps_one_line_per_step(workspace: Path, width: int) -> None:
    lines = drawn(workspace, width=width)
    assert max(len(line) for line in lines) <= width
    assert len(lines) == 2 + len(TRAINING_STEPS)
    assert [line.split()[1] for line in lines[2:]] == list(TRAINING_STEPS)
    assert "30.0 s" in row(lines, "finetune")
    assert row(lines, "finetune").endswith("…")


def test_without_a_terminal_it_is_one_line_per_event(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = workspace / "runs" / "20260101-000001-smoke"
    run = SimpleNamespace(folder=folder, process=Process())
    with Screen(workspace, "smoke") as screen:
        screen(run)
        screen(run)
        first = capsys.readouterr().out.splitlines()
        assert len(first) == 2
        assert first[0].startswith("↺ ingest")
        assert first[1].startswith("▶ finetune")
        assert "usually 1:15" in first[1]
        screen.printed_at -= 20
        screen(run)
        printed = capsys.readouterr().out
        assert "loss 1.235" in printed
        assert "\r" not in printed
        run.process.ended = True
        screen(run)
        assert capsys.readouterr().out.startswith("✘ finetune")


def test_a_step_that_was_killed_is_not_shown_as_running(workspace: Path) -> None:
    assert row(drawn(workspace, width=120), "finetune").startswith("▶")
    killed = row(drawn(workspace, width=120, ended=True), "finetune")
    assert killed.startswith("✘")
    assert killed.endswith("epochs: 4 -> 3")


def test_a_ledger_of_another_version_does_not_stop_the_screen(workspace: Path) -> None:
    old = workspace / "runs" / "20250101-000000-smoke"
    old.mkdir()
    (old / "ingest.json").write_text('{"step": "ingest", "state": "over"}')
    assert any("1:15" in line for line in drawn(workspace, width=100))


def test_a_phase_without_a_bar(tmp_path: Path) -> None:
    Progress(tmp_path / "export.progress").phase("writing the graphs")
    assert progress_text(tmp_path, "export") == "writing the graphs"
    assert progress_text(tmp_path, "nothing") == ""


@pytest.mark.parametrize(("seconds", "expected"), [(0.04, "0.0 s"), (8.34, "8.3 s"), (59.97, "1:00"), (72, "1:12")])
def test_durations(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


def test_the_summary_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    done = entry("evaluate", "done", took_s=90, why="bundle changed")
    done.work_s, done.import_s, done.core_s, done.peak_memory_bytes = 80, 4, 3600, 512 * 2**20
    ledger.write_entry(tmp_path, done)
    decided = entry("decide", "done", took_s=1)
    decided.result = {"outcome": "refused", "sentence": "Refused: 1 check.", "failures": ["floor ndcg@10"]}
    ledger.write_entry(tmp_path, decided)
    printed = summarize(tmp_path, config=SummaryConfig(core_hour=2))
    lines = "\n".join(summary_lines(printed)).splitlines()
    assert lines[0].split() == ["step", "wall", "import", "memory", "why"]
    assert lines[1].split() == ["evaluate", "done", "1:30", "4.0", "s", "512", "MB", "bundle", "changed"]
    assert lines[0].index("wall") == lines[1].index("1:30")
    assert lines[-2] == "refused: Refused: 1 check."
    assert "2.0000 USD" in lines[-1]
    assert json.loads((tmp_path / "summary.json").read_text()) == printed
    monkeypatch.setenv("COLUMNS", "50")
    assert summary_lines(printed)[1] == lines[1][:49] + "…"


def test_insufficient_data_is_not_called_not_met() -> None:
    steps = [{"step": "evaluate", "result": {}}, {"step": "decide", "result": {"insufficient": ["loss budget"]}}]
    lines = reason_lines({"steps": steps, "reasons": ["loss budget", "latency"]})
    assert lines == ["insufficient data: loss budget", "not met: latency"]


def test_a_champion_promoted_past_the_gates_is_shown_with_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    result = {"outcome": "refused", "warning": "champion 0123 was promoted past the gates by ann (event 3): why"}
    decided = entry("decide", "done", started_s_ago=9, took_s=1).model_copy(update={"result": result})
    ledger.write_entry(folder, decided)
    summarize(folder, config=SummaryConfig())
    assert f"warning: {result['warning']}" in rankline("runs", "show", "r1", "-w", tmp_path).stdout
    ledger.write_entry(folder, decided.model_copy(update={"result": {"outcome": "refused"}}))
    summarize(folder, config=SummaryConfig())
    assert "warning" not in rankline("runs", "show", "r1", "-w", tmp_path).stdout


def test_the_summary_says_what_training_started_from() -> None:
    step = {"step": "finetune", "status": "done", "seconds": 1.0, "import_s": 0.0, "peak_memory_mb": 1, "why": "new"}
    printed = {
        "seconds": 1.0,
        "work_s": 1.0,
        "outcome": "promoted",
        "verdict": "",
        "run": "r",
        "cost": 0,
        "currency": "USD",
    }
    warm = {"began_from": "0123", "began_why": "", "items_found_again": "9 of 10"}
    assert "finetune started from the weights of model 0123, 9 of 10 items found again" in summary_lines(
        {**printed, "steps": [{**step, "result": warm}]}
    )
    partly = {**warm, "teachers_from_scratch": "2 of 3"}
    assert any(
        "2 of 3 teachers from scratch" in line
        for line in summary_lines({**printed, "steps": [{**step, "result": partly}]})
    )
    scratch = {"began_from": "scratch", "began_why": "there is no champion yet"}
    lines = summary_lines({**printed, "steps": [{**step, "result": scratch}]})
    assert "finetune started from scratch: there is no champion yet" in lines
    assert not any("started" in line for line in summary_lines({**printed, "steps": [{**step, "result": {}}]}))
