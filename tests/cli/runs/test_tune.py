"""rankline tune: what it says beforehand and at its end."""

from __future__ import annotations

import json
from pathlib import Path

from cli.runs.tune import _end_lines, _run_command
from pipelines.recipes import named
from pipelines.tuning.report import History, TrialRecord
from pipelines.tuning.study import Tuning
from tests.cli.in_process import rankline


def test_a_plan_shows_the_ranges_and_tries_nothing(tmp_path: Path) -> None:
    done = rankline("tune", "smoke", "--plan", "--only", "distill", "-w", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "distill.dropout" in done.stdout
    assert "(now 0.3)" in done.stdout
    assert "finetune." not in done.stdout
    assert "tried so far: 0 trials" in done.stdout
    assert list(tmp_path.iterdir()) == []
    planned = json.loads(rankline("tune", "smoke", "--plan", "--json", "-w", str(tmp_path)).stdout)
    assert planned["own"]["distill.dropout"] == 0.3


def test_a_range_that_is_not_declared_is_wrong_usage(tmp_path: Path) -> None:
    done = rankline("tune", "smoke", "--plan", "--only", "export", "-w", str(tmp_path))
    assert done.returncode == 2
    assert "no range is declared for export" in done.stderr


def end_lines(tmp_path: Path, *values: float) -> str:
    tuning = Tuning.of(named("smoke"), tmp_path, ["distill.dropout"])
    trials = tuple(
        TrialRecord(number=n, state="complete", value=value, settings={"distill.dropout": 0.3 + n / 10})
        for n, value in enumerate(values)
    )
    history = History(recipe="smoke", metric="ndcg", own={"distill.dropout": 0.3}, trials=trials)
    command = _run_command("smoke", None, None, ["finetune.epochs=2"], tmp_path)
    return "\n".join(_end_lines(tuning, history, command))


def test_the_end_says_what_was_found_and_what_to_run_next(tmp_path: Path) -> None:
    better = end_lines(tmp_path, 0.1, 0.2)
    assert "trial 1 with ndcg 0.2000; the recipe's own settings reach 0.1000" in better
    assert (
        f"rankline run --recipe smoke -w {tmp_path} --set finetune.epochs=2 --set @{tmp_path}/tuning/smoke-" in better
    )
    assert "no trial is better" in end_lines(tmp_path, 0.2, 0.1)
    assert "give it more --minutes" in end_lines(tmp_path)
