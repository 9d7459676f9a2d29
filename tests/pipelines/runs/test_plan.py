"""What a plan foretells is what happens; and where that cannot be known beforehand, the plan says so."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.runs.plan_output import plan_table, print_plan
from pipelines.assets.synthetic_shop import write_shop
from pipelines.recipes import change, named
from pipelines.runs.plan import Plan, PlannedStep, plan
from rankline.errors import SourceError, UsageError
from rankline.io.artifacts import write_digests
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.step_cache import StepCache
from rankline.runtime.steps import TRAINING_STEPS
from tests.cli import in_process
from tests.cli.command import rankline
from tests.conftest import SmokeRun
from tests.pipelines.runs.watched import flip, folders, reasons, steps
from tests.pipelines.test_faults import RERUN_STEPS, REUSABLE, unpromoted
from tests.serving.tiny_bundle import make_bundle, publish

ROOT = Path(__file__).resolve().parents[3]
CODE = ("rankline", "components", "pipelines", "feature_repo", "serving", "cli")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def unchanged(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace that only plans look at."""
    return smoke.copy(tmp_path_factory.mktemp("plan") / "ws")


def planned(workspace: Path, *settings: str) -> dict[str, PlannedStep]:
    """Step -> what the plan says of it."""
    return {step.step: step for step in plan(named("smoke", settings), workspace).steps}


def states(result: dict[str, PlannedStep]) -> dict[str, str]:
    return {step: each.state for step, each in result.items()}


def comes_true(result: dict[str, PlannedStep], status: dict[str, str], why: dict[str, str]) -> None:
    """Hold a plan against what a run did: what was said for certain, and what hung on something."""
    for step, each in result.items():
        was = status.get(step, "absent")
        if each.state == "reused":
            assert (was, why[step]) == ("reused", each.why), step
        elif each.state == "runs":
            assert was == "done", step
            if not each.because:  # all that its reason is made of was known
                assert why[step] == each.why, step
        elif each.state == "skipped":
            assert was == "absent", step
        elif each.unless:
            # where nothing before it did anything, nothing can have come out otherwise
            done = [maker for maker in each.unless if status[maker] == "done"]
            assert was == "reused" if not done else was in ("done", "reused"), step


def ran_as_planned(
    workspace: Path, *settings: str, **environment: str
) -> tuple[dict[str, PlannedStep], dict[str, str]]:
    """Plan, run, compare: (what was planned, step -> status)."""
    options = [f"--set={each}" for each in settings]
    requested = rankline("run", "--recipe", "smoke", "-w", workspace, "--plan", "--json", *options, **environment)
    assert requested.returncode == 0, requested.stderr
    result = {step.step: step for step in Plan.model_validate_json(requested.stdout).steps}
    done = rankline("run", "--recipe", "smoke", "-w", workspace, *options, timeout_s=1800, **environment)
    assert done.returncode in (0, 3), done.stderr
    comes_true(result, steps(workspace), reasons(workspace))
    return result, steps(workspace)


# What happens. The default run holds plans against the runs of test_run.py and test_history.py; here are more kinds.


@slow
def test_nothing_changed_happens_as_planned(smoke: SmokeRun, tmp_path: Path) -> None:
    result, status = ran_as_planned(smoke.copy(tmp_path / "ws"))
    assert states(result) == {
        "resolve_inputs": "runs", **dict.fromkeys(REUSABLE, "reused"), "decide": "runs", "promote": "skipped"
    }  # fmt: skip
    assert status == {"resolve_inputs": "done", **dict.fromkeys(REUSABLE, "reused"), "decide": "done"}
    assert result["promote"].why == f"model {smoke.summary['model_id']} already serves"


@slow
def test_a_damaged_copy_and_a_setting_that_changes_no_byte(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    flip(next((workspace / "cache" / "ingest").glob("*/raw/events.parquet")))
    result, status = ran_as_planned(workspace, "featurize.check_rows=7")
    assert {step for step in result if result[step].state == "runs"} == {
        "resolve_inputs",
        "ingest",
        "featurize",
        "decide",
    }
    assert result["ingest"].why.startswith("the cache entry was damaged (events.parquet")
    assert result["featurize"].why == "check_rows: 500 -> 7; its input clean may change"
    assert result["featurize"].because == ("ingest",)
    assert {step: result[step].unless for step in result if result[step].unless} == {
        "validate": ("ingest",),
        "finetune": ("featurize",),
        "distill": ("featurize", "finetune"),
        "export": ("featurize", "distill"),
        "evaluate": ("export", "featurize", "finetune", "distill"),
    }
    assert result["export"].because == ("ingest", "featurize")
    assert "featurize: check_rows: 500 -> 7" in result["export"].why
    # both came out the same, so nothing else ran
    assert [step for step in REUSABLE if status[step] == "done"] == ["ingest", "featurize"]


@slow
@pytest.mark.parametrize("setting", RERUN_STEPS)
def test_one_setting_happens_as_planned(smoke: SmokeRun, tmp_path: Path, setting: str) -> None:
    ran_as_planned(smoke.copy(tmp_path / "ws"), setting)


@slow
def test_a_first_run_happens_as_planned(tmp_path: Path) -> None:
    result, _ = ran_as_planned(tmp_path / "ws")
    assert {result[step].state for step in REUSABLE} == {"runs"}


@slow
def test_new_data_happens_as_planned(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    write_shop(workspace / "material" / "smoke", users=110)
    result, status = ran_as_planned(workspace)
    assert result["ingest"].why == "source changed"
    assert status["validate"] == "done"
    ran_as_planned(workspace)
    write_shop(workspace / "material" / "smoke")  # the old data: what was made of it is still kept
    _, status = ran_as_planned(workspace)
    assert status["ingest"] == "reused"


@slow
def test_another_window_happens_as_planned(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    _, status = ran_as_planned(workspace, "ingest.window_end=2023-12-12")
    assert status["featurize"] == "done"
    ran_as_planned(workspace)


@slow
def test_a_warm_start_happens_as_planned_and_a_repeated_run_is_reused(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace, warm = smoke.copy(tmp_path / "ws"), "finetune.warm_start=true"
    result, _ = ran_as_planned(workspace, warm)  # of the champion's own data: from scratch, as that began
    assert "warm_start: False -> True" in result["finetune"].why
    write_shop(workspace / "material" / "smoke", users=110)
    _, status = ran_as_planned(workspace, warm, "decide.mode=review")
    assert status["finetune"] == "done"
    _, status = ran_as_planned(workspace, warm, "decide.mode=review")
    assert status["finetune"] == "reused"


@slow
@pytest.mark.parametrize("component", ["evaluate", "featurize"])
def test_changed_code_happens_as_planned(smoke: SmokeRun, tmp_path: Path, component: str) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    result, _ = ran_as_planned(workspace, PYTHONPATH=str(changed(tmp_path / "house", component)))
    assert result[component].why == "code changed"


@slow
def test_a_champion_that_changed_happens_as_planned(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    dethroned(workspace, tmp_path)
    result, _ = ran_as_planned(workspace, "evaluate.primary=ndcg@5")
    assert result["evaluate"].state == "runs"
    ran_as_planned(workspace)


@slow
def test_nobody_serving_happens_as_planned(smoke: SmokeRun, tmp_path: Path) -> None:
    result, status = ran_as_planned(unpromoted(smoke, tmp_path / "ws"))
    assert (result["promote"].provided, status["promote"]) == ("the gates are met", "done")


@slow
def test_another_recipe_in_the_workspace_happens_as_planned(smoke: SmokeRun, tmp_path: Path) -> None:
    result, _ = ran_as_planned(smoke.copy(tmp_path / "ws"), "name=mine", "evaluate.latency_samples=25")
    assert result["export"].state == "reused"


# Plans without a run.


def test_nothing_changed(unchanged: Path, smoke: SmokeRun) -> None:
    result = planned(unchanged)
    assert {result[step].state for step in REUSABLE} == {"reused"}
    assert {result[step].why for step in REUSABLE} == {f"unchanged since run {smoke.summary['run']}"}
    assert result["promote"].why == f"model {smoke.summary['model_id']} already serves"


@pytest.mark.parametrize("setting", RERUN_STEPS)
def test_one_setting_in_each_section(unchanged: Path, setting: str) -> None:
    """Against the table that tests/pipelines/test_faults.py holds against real runs."""
    result = planned(unchanged, setting)
    run = RERUN_STEPS[setting]
    assert {step for step in REUSABLE if result[step].state == "runs"} == set(run[:1])
    assert {step for step in REUSABLE if result[step].state == "reused"}.isdisjoint(run)
    if run:
        assert result[run[0]].why.startswith(f"{setting.partition('=')[0].split('.')[1]}: ")
        after = REUSABLE[REUSABLE.index(run[0]) + 1 :]
        assert {result[step].state for step in after} <= {"unsure"}
        assert all(run[0] in result[step].because for step in after)


def test_a_cache_entry_for_only_some_outcomes_is_planned_as_unsure(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    setting = "validate.max_age_days=9999999"
    assert planned(workspace, setting)["evaluate"].unless == ("export", "featurize", "finetune", "distill")
    store = StepCache(workspace / "cache" / "export")
    retained = store.latest()
    assert retained is not None
    # another bundle was made once, and never evaluated
    another = shutil.copytree(retained.folder / "bundle", tmp_path / "another")
    flip(another / "scorer.onnx")
    write_digests(another)
    key = {**retained.key, "inputs": {**retained.key["inputs"], "student": "0" * 64}}
    with store.adding(key, {"bundle": another}, {}, "another"):
        pass
    result = planned(workspace, setting)
    assert (result["evaluate"].state, result["evaluate"].unless) == ("unsure", ())
    assert result["export"].unless == ("featurize", "distill")
    assert any(
        "depends on the output of validate" in line for line in drawn(plan(named("smoke", [setting]), workspace))
    )


def test_a_first_run(tmp_path: Path) -> None:
    result = plan(named("smoke"), tmp_path / "ws")
    assert result.fetches == ("smoke",)
    assert states({step.step: step for step in result.steps}) == {
        **dict.fromkeys(TRAINING_STEPS, "runs"),
        "promote": "unsure",
    }
    assert {step.why for step in result.steps if step.step in REUSABLE} == {"it has not run in this workspace before"}
    assert result.total.without == TRAINING_STEPS
    assert not (tmp_path / "ws").exists()
    assert drawn(result)[-1] == "the duration is unknown: there is no earlier run"


def test_asset_that_went_away_is_fetched_again_and_may_be_the_same(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    shutil.rmtree(workspace / "material")
    result = planned(workspace)
    assert (result["ingest"].state, result["ingest"].unless) == ("unsure", ("smoke",))
    assert result["validate"].unless == ("ingest",)


def test_new_data(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    write_shop(workspace / "material" / "smoke", users=110)
    result = planned(workspace)
    assert (result["ingest"].state, result["ingest"].why) == ("runs", "source changed")
    assert (result["featurize"].unless, result["featurize"].why) == (("validate",), "ingest: source changed")


def test_another_window(unchanged: Path) -> None:
    result = planned(unchanged, "ingest.window_end=2023-12-12")
    why = "new data window (window_end: None -> 2023-12-12T00:00:00+00:00)"
    assert (result["ingest"].state, result["ingest"].why) == ("runs", why)
    assert (result["featurize"].state, result["featurize"].why) == ("unsure", f"ingest: {why}")


def changed(root: Path, component: str) -> Path:
    """A copy of the code with a constant added to one component; a comment alone would change nothing."""
    for name in CODE:
        shutil.copytree(ROOT / name, root / name)
    with (root / "components" / component / "step.py").open("a") as source:
        source.write("ADDED = 1\n")
    return root


@pytest.mark.integration
def test_code_of_one_component(unchanged: Path, tmp_path: Path) -> None:
    done = rankline(
        "run", "--recipe", "smoke", "-w", unchanged, "--plan", "--json", PYTHONPATH=str(changed(tmp_path, "finetune"))
    )
    result = {step["step"]: step for step in json.loads(done.stdout)["steps"]}
    assert {result[step]["state"] for step in ("ingest", "validate", "featurize")} == {"reused"}
    assert (result["finetune"]["state"], result["finetune"]["why"]) == ("runs", "code changed")
    assert {result[step]["state"] for step in ("distill", "export", "evaluate")} == {"unsure"}
    assert result["distill"]["why"] == "finetune: code changed"


def dethroned(workspace: Path, folder: Path) -> str:
    """Another model of the same catalogue is made champion; its id."""
    bundle = make_bundle(folder / "other", seed=5)
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    (bundle.folder / "manifest.json").write_text(json.dumps({**manifest, "catalogue": "smoke"}))
    publish(workspace / "repository", bundle)
    return bundle.model_id


def test_a_champion_that_changed(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    champion = dethroned(workspace, tmp_path)
    result = plan(named("smoke"), workspace)
    steps = {step.step: step for step in result.steps}
    assert result.champion == champion
    assert (steps["evaluate"].state, steps["evaluate"].why) == ("runs", "champion changed")
    assert {steps[step].state for step in REUSABLE[:-1]} == {"reused"}
    assert (steps["promote"].state, steps["promote"].provided) == ("unsure", "the gates are met")
    # whatever bundle export makes, no evaluation beside this champion is kept
    assert planned(workspace, "export.parity_samples=9")["evaluate"].state == "runs"


def test_nobody_serving(smoke: SmokeRun, tmp_path: Path) -> None:
    result = planned(unpromoted(smoke, tmp_path / "ws"))
    assert {result[step].state for step in REUSABLE} == {"reused"}
    assert (result["promote"].state, result["promote"].provided) == ("unsure", "the gates are met")
    assert planned(tmp_path / "ws", "decide.mode=review")["promote"].state == "skipped"


def test_another_recipe_in_the_workspace(unchanged: Path) -> None:
    mine = change(named("smoke"), ["name=mine", "evaluate.latency_samples=25"])
    result = plan(mine, unchanged)
    assert [step.step for step in result.steps if step.state == "runs"] == ["resolve_inputs", "evaluate", "decide"]
    assert result.total.without  # no run of this recipe: the times of another one are not taken for its own
    with pytest.raises(UsageError, match="rank another catalogue"):
        plan(change(mine, ["export.catalogue=mine"]), unchanged)


def test_a_damaged_cache_entry_is_planned_to_run(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    flip(next((workspace / "cache" / "finetune").glob("*/teacher/weights.safetensors")))
    result = planned(workspace, "featurize.check_rows=7")
    assert result["finetune"].state == "runs"
    assert result["distill"].state == "unsure"
    assert planned(workspace)["finetune"].why.startswith("the cache entry was damaged (weights.safetensors")


def test_data_seen_before_another_is_compared_with_that_other(smoke: SmokeRun, tmp_path: Path) -> None:
    """Another run's profile came between: validate runs even where ingest comes out the same."""
    workspace = smoke.copy(tmp_path / "ws")
    assert planned(workspace, "ingest.max_rejected_share=0.5")["validate"].state == "unsure"
    retained = workspace / "profiles" / "smoke.json"
    profile = json.loads(retained.read_text())
    retained.rename(workspace / "profiles" / "smoke.before.json")
    retained.write_text(json.dumps({**profile, "data_digest": "another"}))
    result = planned(workspace, "ingest.max_rejected_share=0.5")["validate"]
    assert (result.state, result.why) == ("runs", "its input raw may change")
    assert planned(workspace)["validate"].why == "previous profile changed"


def test_work_on_a_remote_cache(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace, remote = smoke.copy(tmp_path / "ws"), tmp_path / "shelf"
    for entry in (workspace / "cache").glob("*/*/entry.json"):
        step, key = entry.parent.parent.name, entry.parent.name
        target = remote / step / key
        shutil.copytree(entry.parent, target / "files")
        (target / "entry.json").write_text(json.dumps({**json.loads(entry.read_text()), "folder": "files"}))
    shutil.rmtree(workspace / "cache")
    assert {planned(workspace)[step].state for step in REUSABLE} == {"runs"}
    result = planned(workspace, f"storage.artifacts={remote}")
    assert {result[step].state for step in REUSABLE} == {"reused"}
    assert result["ingest"].why.endswith(f", kept at {remote}")
    assert not (workspace / "cache").exists()


def test_a_run_that_would_not_begin_is_refused_as_the_run_is(unchanged: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the source does not exist"):
        plan(named("smoke", [f"ingest.source={tmp_path / 'nowhere'}"]), unchanged)


# Times.


def test_times_are_of_earlier_runs_and_say_which(unchanged: Path, smoke: SmokeRun) -> None:
    result = plan(named("smoke", ["finetune.learning_rate=0.003"]), unchanged)
    of = {step.step: step for step in result.steps}
    took = {step["step"]: step["seconds"] for step in smoke.summary["steps"]}
    assert of["finetune"].run_s == pytest.approx(took["finetune"], abs=0.02)
    assert of["finetune"].run_from == smoke.summary["run"]
    assert of["distill"].most_s == pytest.approx(took["distill"], abs=0.02)
    assert of["ingest"].most_s is not None
    assert of["ingest"].most_s <= took["ingest"]
    assert result.total.least_s < result.total.most_s
    assert result.total.most_s >= took["finetune"] + took["distill"] + took["export"] + took["evaluate"]
    assert result.total.without == ()
    assert result.total.around_from == smoke.summary["run"]


def test_a_recipe_whose_name_begins_like_anothers_has_times_of_its_own(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    run = max(folders(workspace))
    run.rename(run.with_name(f"{run.name}-large"))
    assert plan(named("smoke"), workspace).total.without == TRAINING_STEPS[:-1]


# What it leaves alone, how it looks, how fast it is.


def digests(folder: Path) -> dict[str, str]:
    """Every file and folder below, with what it holds and when it was written."""
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mtime_ns} "
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


def test_it_writes_nothing(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    flip(next((workspace / "cache" / "export").glob("*/bundle/manifest.json")))
    (workspace / "repository" / "champion.json").unlink()  # a run would write it again
    before = digests(workspace)
    done = in_process.rankline("run", "--recipe", "smoke", "-w", workspace, "--plan")
    assert done.returncode == 0, done.stderr
    assert "the cache entry was damaged" in done.stdout
    assert digests(workspace) == before


@pytest.mark.integration
def test_it_imports_nothing_heavy(unchanged: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from pipelines.runs.plan import plan; from pipelines.recipes import named\n"
        "plan(named('smoke'), Path(sys.argv[1]))\n"
        "print({'torch', 'kfp', 'pandas', 'transformers', 'feast', 'duckdb'} & {m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(unchanged)], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "set()", done.stderr


def drawn(result: Plan, *, width: int = 250) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False, highlight=False)
    console.print(plan_table(result))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_table(unchanged: Path, smoke: SmokeRun) -> None:
    lines = drawn(plan(named("smoke", ["finetune.learning_rate=0.003"]), unchanged))
    row = {line.split()[1]: line for line in lines if line[0] in "↺▶?·"}
    assert list(row) == list(TRAINING_STEPS)
    assert " ".join(row["ingest"].split()[:3]) == "↺ ingest reused"
    assert row["ingest"].endswith(f"unchanged since run {smoke.summary['run']}")
    assert row["finetune"].endswith("learning_rate: 0.002 -> 0.003")
    assert "runs unless finetune comes out the same" in row["distill"]
    assert "runs if the gates are met and it is another model than the champion" in row["promote"]
    assert any(line.startswith("about ") for line in lines)
    assert any(line.startswith(f"times are from run {smoke.summary['run']}: resolve_inputs, ") for line in lines)
    narrow = drawn(plan(named("smoke"), unchanged), width=60)
    assert max(len(line) for line in narrow) <= 60
    narrow = drawn(plan(named("smoke", ["finetune.learning_rate=0.003"]), unchanged), width=80)
    assert "0.003" in " ".join(narrow), "what does not fit goes on below"
    assert not any("…" in line for line in narrow)


def test_in_a_pipe_no_reason_is_cut(unchanged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = plan(named("smoke", ["finetune.learning_rate=0.003"]), unchanged)
    long = "for a reason that goes on and on, " * 20
    steps = (result.steps[0].model_copy(update={"why": long.strip()}), *result.steps[1:])
    print_plan(result.model_copy(update={"steps": steps}))
    assert any(line.endswith(long.strip()) for line in capsys.readouterr().out.splitlines())


def test_a_step_decided_on_the_cluster_is_drawn_so(unchanged: Path) -> None:
    result = plan(named("smoke"), unchanged)
    step = PlannedStep(step=result.steps[0].step, state="unsure", why="decided on the cluster when the step starts")
    lines = drawn(result.model_copy(update={"steps": (step, *result.steps[1:])}))
    assert any("decided on the cluster" in line for line in lines)
    assert not any("depends on the output of" in line for line in lines)


def test_a_plan_is_json(unchanged: Path) -> None:
    result: dict[str, Any] = json.loads(plan(named("smoke", ["featurize.check_rows=7"]), unchanged).model_dump_json())
    assert set(result) == {"recipe", "workspace", "champion", "fetches", "steps", "total"}
    assert result["steps"][4]["unless"] == ["featurize"]
    assert result["champion"] == ModelRegistry(unchanged / "repository").champion()
