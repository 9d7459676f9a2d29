"""A search for better settings: trials of a recipe, by Optuna, until the minutes are over.

    <workspace>/tuning/<recipe>-<digest>/journal.log    the trials, as Optuna keeps them
                                         history.json   the same to be read, and index.html with plots
                                         best.toml      the best settings, for `--set @best.toml`

The digest is of the recipe's other settings and of the ranges: another recipe is another study.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.overrides import change
from pipelines.recipe import Recipe, as_dict
from pipelines.tuning.ranges import Range, ranges_of, value_of
from pipelines.tuning.report import BEST, History, TrialRecord, write_report
from pipelines.tuning.trial import METRIC, TRIAL_STEPS, TrialFailed, TrialStopped, run_trial
from rankline.errors import UsageError
from rankline.io import digest

if TYPE_CHECKING:
    import optuna

JOURNAL, LOCK = "journal.log", ".lock"
STARTUP_TRIALS = 4  # of which none is pruned
SEED = 0
RUN_FOLDER, SECONDS, ERROR = "run", "seconds", "error"  # attributes of a trial


@dataclass(frozen=True)
class Tuning:
    """A recipe, and what of it is tuned."""

    recipe: Recipe
    workspace: Path
    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, recipe: Recipe, workspace: Path, only: Sequence[str] = ()) -> Tuning:
        """The tuning of a recipe by the declared ranges, or some of them.

        Raises:
            UsageError: ``only`` names no declared range.
        """
        return cls(recipe, workspace.resolve(), ranges_of(recipe, only))

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        sections = {name: values for name, values in as_dict(self.recipe).items() if name in TRIAL_STEPS}
        tuned = [each.model_dump() for each in self.ranges]
        return self.workspace / "tuning" / f"{self.recipe.name}-{digest.json_digest([sections, tuned])[:8]}"

    @property
    def own_values(self) -> dict[str, Any]:
        """The recipe's own values of the tuned settings: the first trial."""
        return {each.setting: value_of(self.recipe, each.setting) for each in self.ranges}

    def history(self) -> History:
        """What the study has tried so far."""
        if not (self.folder / JOURNAL).is_file():
            return History(recipe=self.recipe.name, metric=METRIC, own=self.own_values, trials=())
        return _history(self, _open(self))


@dataclass
class Limits:
    """When tuning ends: after some minutes, and perhaps after so many trials of this call."""

    minutes: float
    trials: int | None = None
    _began_s: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether the minutes are over."""
        return time.monotonic() - self._began_s >= 60 * self.minutes


def tune(tuning: Tuning, limits: Limits, *, say: Callable[[str], None]) -> History:
    """Try settings until the limits are reached; a study that was ended is continued, also within a trial.

    Raises:
        UsageError: Optuna is not installed, or another process works on this study.
        TrialFailed: the recipe's own settings fail.
    """
    _require_optuna()
    tuning.folder.mkdir(parents=True, exist_ok=True)
    with _locked(tuning.folder):
        study = _open(tuning)
        _continue(study, tuning)
        tried = 0
        while not limits.over and (limits.trials is None or tried < limits.trials):
            trial = study.ask()
            say(f"trial {trial.number}: {_describe(trial, tuning)}")
            say(f"  {_run(study, trial, tuning, limits)}")
            tried += 1
            write_report(tuning.folder, _history(tuning, study))
        history = _history(tuning, study)
        write_report(tuning.folder, history)
    return history


def _describe(trial: optuna.Trial, tuning: Tuning) -> str:
    values = {each.setting: each.suggest(trial) for each in tuning.ranges}
    if values == tuning.own_values:
        return "the recipe's own settings"
    return ", ".join(f"{name}={value:.4g}" for name, value in values.items())


def _run(study: optuna.Study, trial: optuna.Trial, tuning: Tuning, limits: Limits) -> str:
    """Run a trial and note how it ended; what to say of it."""
    from optuna.trial import TrialState

    began_s, pruned = time.monotonic(), False

    def stop(part: int, best: float | None) -> bool:
        nonlocal pruned
        if best is not None:
            for each in range(max(_reported(trial), 0) + 1, part + 1):
                trial.report(best, each)
                trial.set_user_attr("part", each)
            pruned = trial.should_prune()
        return pruned or limits.over

    settings = [f"{name}={value}" for name, value in trial.params.items()]
    try:
        value, folder = run_trial(change(tuning.recipe, settings), tuning.workspace, number=trial.number, stop=stop)
    except TrialStopped:
        study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        return "pruned: behind the other trials" if pruned else "the minutes are over; the next call continues it"
    except TrialFailed as failed:
        trial.set_user_attr(ERROR, str(failed))
        study.tell(trial, state=TrialState.FAIL)
        if trial.params == tuning.own_values:
            raise
        return f"failed: {failed}"
    seconds = time.monotonic() - began_s
    trial.set_user_attr(SECONDS, round(seconds, 1))
    trial.set_user_attr(RUN_FOLDER, folder.name)
    study.tell(trial, value)
    return f"{value:.4f} in {seconds:.0f} s; the best is {study.best_value:.4f} of trial {study.best_trial.number}"


def _reported(trial: optuna.Trial) -> int:
    return int(trial.user_attrs.get("part", 0))


def _continue(study: optuna.Study, tuning: Tuning) -> None:
    """Begin with the recipe's own settings; trials that were cut short come first."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    for each in trials:
        if each.state == TrialState.RUNNING:  # its process was killed
            study.tell(each.number, state=TrialState.FAIL)
    if not trials:
        study.enqueue_trial(tuning.own_values)
    over = [each.params for each in trials if each.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    for each in trials:
        was_cut_short = each.state in (TrialState.FAIL, TrialState.RUNNING) and ERROR not in each.user_attrs
        if was_cut_short and each.params and each.params not in over:
            study.enqueue_trial(each.params)
            over.append(each.params)


def _open(tuning: Tuning) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(tuning.folder / JOURNAL))),
        study_name=tuning.folder.name,
        sampler=optuna.samplers.TPESampler(seed=SEED, n_startup_trials=STARTUP_TRIALS, multivariate=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        direction="maximize",
        load_if_exists=True,
    )


def _history(tuning: Tuning, study: optuna.Study) -> History:
    records = [
        TrialRecord(
            number=each.number,
            state=each.state.name.lower(),
            value=each.value,
            settings=each.params,
            seconds=each.user_attrs.get(SECONDS),
            run=each.user_attrs.get(RUN_FOLDER, ""),
            error=each.user_attrs.get(ERROR, ""),
        )
        for each in study.get_trials(deepcopy=False)
        if each.state.name != "WAITING"
    ]
    return History(recipe=tuning.recipe.name, metric=METRIC, own=tuning.own_values, trials=tuple(records))


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "tuning needs Optuna",
            expected="the package optuna",
            found="none",
            hint="pip install -c constraints.lock 'rankline[tune]'",
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process works on a study: two would run the same trials again."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise UsageError(
            "another process tunes this recipe",
            expected="one process per study",
            found="a lock that is taken",
            where=str(folder),
            hint="wait for it, or name another workspace",
        ) from error


def best_file(tuning: Tuning) -> Path:
    """The file with the best settings."""
    return tuning.folder / BEST
