"""A search on the smallest recipe: real trials, pruned, ended and continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines.assets import packaged
from pipelines.recipes import named
from pipelines.tuning import study
from pipelines.tuning.study import LOCK, Limits, Tuning, tune
from pipelines.tuning.trial import TRIAL_STEPS, TrialFailed
from rankline.errors import UsageError
from rankline.runtime import ledger

TINY = ["finetune.epochs=1", "finetune.evaluate_every=1", "distill.epochs=2", "distill.evaluate_every=1",
        "distill.scorer_epochs=1"]  # fmt: skip


def quietly(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    workspace = tmp_path_factory.mktemp("tuned")
    packaged.fetch("smoke", workspace, say=quietly)
    return Tuning.of(named("smoke", TINY), workspace, ["distill"])


@pytest.mark.integration
def test_a_search_begins_with_the_own_settings_and_goes_on_where_it_was(tuning: Tuning) -> None:
    first = tune(tuning, Limits(minutes=10, trials=1), say=quietly)
    assert [(each.state, each.settings) for each in first.trials] == [("complete", tuning.own_values)]
    second = tune(tuning, Limits(minutes=10, trials=1), say=quietly)
    assert [each.number for each in second.trials] == [0, 1]
    assert second.trials[0] == first.trials[0]
    assert second.trials[1].settings != tuning.own_values
    entries = ledger.read_entries(tuning.workspace / "runs" / second.trials[1].run)
    assert {name: entry.status for name, entry in entries.items()} == {
        **dict.fromkeys(TRIAL_STEPS[:-1], "reused"),
        "distill": "done",
    }
    assert json.loads((tuning.folder / "history.json").read_text())["best"] in (0, 1)
    assert tuning.history() == second


@pytest.mark.integration
def test_a_trial_that_the_minutes_end_is_the_next_ones_first(tuning: Tuning) -> None:
    before = len(tuning.history().trials)
    ended = tune(tuning, Limits(minutes=0.03), say=quietly)
    assert [each.state for each in ended.trials[before:]] == ["fail"]
    continued = tune(tuning, Limits(minutes=10, trials=1), say=quietly)
    assert continued.trials[-1].state in ("complete", "pruned")
    assert continued.trials[-1].settings == ended.trials[-1].settings


@pytest.mark.integration
def test_settings_that_fail_are_reported_with_the_steps_message(tmp_path: Path) -> None:
    packaged.fetch("smoke", tmp_path, say=quietly)
    failing = Tuning.of(named("smoke", [*TINY, "featurize.min_requests=100000"]), tmp_path, ["distill"])
    with pytest.raises(TrialFailed, match="featurize stopped: the data is too small"):
        tune(failing, Limits(minutes=10), say=quietly)


def test_two_processes_do_not_share_a_study(tmp_path: Path) -> None:
    tuning = Tuning.of(named("smoke"), tmp_path)
    tuning.folder.mkdir(parents=True)
    with FileLock(tuning.folder / LOCK), pytest.raises(UsageError, match="another process"):
        tune(tuning, Limits(minutes=1), say=quietly)


def test_a_trial_behind_the_others_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps are left out here: what counts is what they report while they run."""
    tuning = Tuning.of(named("smoke"), tmp_path, ["distill"])

    def run_trial(recipe: object, workspace: Path, *, number: int, stop: object) -> tuple[float, Path]:
        for part in range(1, 21):
            if stop(part, 0.0 if number == 6 else 0.5):  # type: ignore[operator]
                raise study.TrialStopped
        return 0.5, tmp_path

    monkeypatch.setattr(study, "run_trial", run_trial)
    searched = tune(tuning, Limits(minutes=5, trials=8), say=quietly)
    assert [each.state for each in searched.trials] == ["complete"] * 6 + ["pruned", "complete"]
    assert searched.best is not None
    assert searched.best.number == 0
