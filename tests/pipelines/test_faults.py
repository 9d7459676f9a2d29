"""Whatever happens to a run, the next one ends as if it had not: killed steps, full disks, odd clocks, odd places."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from components.finetune.step import finetune
from components.ingest.step import ingest
from pipelines.recipes import smoke as recipe
from pipelines.steps import CACHED_TRAINING_STEPS, STANDALONE_STEPS
from rankline.errors import TrainingError
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from rankline.runtime.progress import Progress
from tests.cli import in_process
from tests.cli.command import rankline, refused
from tests.conftest import SmokeRun
from tests.pipelines.hurt import Disk, disk, killing, set_back
from tests.pipelines.runs.watched import folders, reasons, served, steps, summary, until, watched

REUSABLE = CACHED_TRAINING_STEPS
MEASURED = ("servers", "report.html", "report.json", "files.json")  # of an evaluation: how fast it was, and when
slow = pytest.mark.slow


def unpromoted(smoke: SmokeRun, folder: Path) -> Path:
    """A finished workspace in which nobody has been promoted yet."""
    workspace = smoke.copy(folder)
    for name in ("repository", "online", "mlruns"):
        shutil.rmtree(workspace / name)
    (workspace / "mlflow.db").unlink()
    return workspace


def forget(workspace: Path, *names: str) -> None:
    """Take away what a workspace keeps of these steps' work."""
    for name in names:
        shutil.rmtree(workspace / "cache" / name, ignore_errors=True)


def created(run: Path) -> dict[str, dict[str, str]]:
    """Output -> (its files' digests), of every step of a run, except for measurements."""
    matches = {}
    for entry in ledger.read_entries(run).values():
        for name, path in entry.paths.items():
            if (entry.step, name) == ("validate", "report"):
                continue  # a page for people that says when it was made; no step reads it
            files = json.loads((Path(path) / "files.json").read_text())
            result = entry.step in ("evaluate", "decide")
            matches[f"{entry.step}/{name}"] = {
                file: sha256
                for file, sha256 in files.items()
                if not (result and (file.startswith(MEASURED) or file.startswith("verdict")))
            }
    return matches


def a_day_later(workspace: Path) -> None:
    """Let what was left half-written in the repository be as old as what is swept."""
    for partial in (workspace / "repository").rglob(".*"):
        os.utime(partial, (time.time() - 90_000, time.time() - 90_000))


def ends_as_undisturbed(smoke: SmokeRun, workspace: Path) -> None:
    """Run again: the same files, the same model, one promotion of it, and every step's own entry is whole."""
    done = rankline("run", "--recipe", "smoke", "-w", workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    run = max(folders(workspace))
    assert created(run) == created(smoke.workspace / "runs" / smoke.summary["run"])
    assert set(steps(workspace).values()) <= {"done", "reused"}
    models = ModelRegistry(workspace / "repository")
    assert models.champion() == smoke.summary["model_id"] == summary(workspace)["model_id"]
    assert [event.kind for event in models.history()] == ["registered", "evaluated", "promoted"]
    assert not list((workspace / "repository").rglob(".*")), "half-written files"
    assert not list((workspace / "cache").glob("*/.*")), "half-kept work"
    assert not list((workspace / "runs").glob("*/.reserve"))


# -- kill -9 ---------------------------------------------------------------------------------------------------


@slow  # two whole runs each; the default run has test_run.py's finetune
@pytest.mark.parametrize("step", REUSABLE)
def test_a_step_killed_in_the_middle_of_its_work(smoke: SmokeRun, tmp_path: Path, step: str) -> None:
    workspace = unpromoted(smoke, tmp_path / "ws")
    forget(workspace, step)
    usual = next(each["work_s"] for each in smoke.summary["steps"] if each["step"] == step)
    with watched(workspace) as run:
        until(lambda: (run.folder / f"{step}.progress").is_file())  # its own work has begun
        time.sleep(usual / 8)  # it was measured beside others
        os.kill(run.reached(step).pid, signal.SIGKILL)
        code, _, err = run.ended()
        assert code == 1
        assert err.startswith(f"{step} stopped: it ended without an error message")
        run.nothing_is_left()
    assert steps(workspace)[step] == "killed"
    ends_as_undisturbed(smoke, workspace)


# what is done by then; the pattern is of the file that is about to get its name
INSTANTS = {
    "kept work": ("export", r"os.rename:cache/export/[0-9a-f]{64}$", []),
    "the bundle in the repository": ("decide", r"os.rename:repository/bundles/[0-9a-f]+$", []),
    "the evidence": ("decide", r"os.rename:repository/evidence/[0-9a-f]+$", []),
    "the first event": ("decide", r"os.link:events/1.json$", []),
    "the second event": ("decide", r"os.link:events/2.json$", ["registered"]),
    "the online store": ("promote", r"os.rename:watermark.json$", ["registered", "evaluated"]),
    "the promotion": ("promote", r"os.link:events/3.json$", ["registered", "evaluated"]),
    "the pointer": ("promote", r"os.rename:/champion.json$", ["registered", "evaluated", "promoted"]),
    "the mirror": ("promote", r"open:\.mlflow\.lock$", ["registered", "evaluated", "promoted"]),
}


@slow
@pytest.mark.parametrize("timestamp", INSTANTS)
def test_a_step_killed_just_before(smoke: SmokeRun, tmp_path: Path, timestamp: str) -> None:
    step, when, history = INSTANTS[timestamp]
    workspace = unpromoted(smoke, tmp_path / "ws")
    if step in REUSABLE:
        forget(workspace, step)
    message = refused("run", "--recipe", "smoke", "-w", workspace, **killing(tmp_path / "hurt", when))
    assert message.startswith(f"{step} stopped: it ended without an error message")
    models = ModelRegistry(workspace / "repository")
    assert [event.kind for event in models.history()] == history
    a_day_later(workspace)
    # never half-promoted: who serves is what the events say, whatever the pointer had come to
    assert models.champion() == (smoke.summary["model_id"] if "promoted" in history else "")
    again = rankline("run", "--recipe", "smoke", "-w", workspace)
    assert again.returncode == 0, again.stderr
    assert not list((workspace / "repository").rglob(".*")), "half-written files"
    assert [event.kind for event in models.history()] == ["registered", "evaluated", "promoted"]
    assert models.champion() == smoke.summary["model_id"]
    assert models.bundle(models.champion()).model_id == smoke.summary["model_id"]
    if "promoted" not in history:
        assert created(max(folders(workspace))) == created(smoke.workspace / "runs" / smoke.summary["run"])
        assert list((workspace / "online").glob("*/watermark.json"))


@slow
@pytest.mark.parametrize("step", ["resolve_inputs", "finetune", "evaluate", "promote"])
def test_a_runner_killed_while_a_step_works(smoke: SmokeRun, tmp_path: Path, step: str) -> None:
    workspace = unpromoted(smoke, tmp_path / "ws")
    forget(workspace, step)
    with watched(workspace) as run:
        runner = run.runner()
        until(lambda: run.reached(step))
        runner.kill()
        code, _, err = run.ended()
        assert code == 1
        assert "the next run continues from the finished steps" in err
        run.nothing_is_left()
    ends_as_undisturbed(smoke, workspace)


# -- a full disk -----------------------------------------------------------------------------------------------


def at_entry(smoke: SmokeRun, workspace: Path, out: Path, step: str) -> list[object]:
    """The command that runs a step alone on the artifacts of the smoke run."""
    spec = STANDALONE_STEPS[step]
    artifacts = {name: smoke.artifact(*source) for name, source in spec.inputs.items()}
    artifacts |= {name: out / name for name in spec.outputs}
    paths = [part for name, path in artifacts.items() for part in (f"--{name}", path)]
    return ["step", step, "--recipe", "smoke", "-w", workspace, *paths]


@pytest.mark.integration
@pytest.mark.parametrize("step", [pytest.param(s, marks=() if s == "ingest" else slow) for s in REUSABLE])
def test_a_disk_that_is_full_while_a_step_writes(smoke: SmokeRun, tmp_path: Path, step: str) -> None:
    with disk(tmp_path / "disk", megabytes=64) as small:
        workspace = unpromoted(smoke, small.folder / "ws")
        forget(workspace, step)
        out = small.folder / "out"
        command = at_entry(smoke, workspace, out, step)
        small.fill(leave=ledger.RESERVE_BYTES + 20_000)
        message = refused(*command, TMPDIR=str(small.folder))
        reports_full_disk(message, small)
        assert not list(out.glob("*/files.json")), "a half-written artifact can be seen"
        assert not list((workspace / "cache" / step).glob("*/entry.json"))
        entry = ledger.read_entries(max(folders(workspace)))[step]
        assert entry.status == "failed"
        assert entry.error.splitlines()[0] == message.splitlines()[0]
        small.free_space()
        done = rankline(*command, TMPDIR=str(small.folder))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{step} done in ")
        for name in STANDALONE_STEPS[step].outputs:
            if step != "evaluate" and (step, name) != ("validate", "report"):  # those say when they were made
                before = smoke.artifact(step, name) / "files.json"
                assert (out / name / "files.json").read_text() == before.read_text()


def reports_full_disk(message: str, small: Disk) -> None:
    assert " free" in message, message
    assert f"where: {small.folder}" in message
    assert "try: free some space" in message
    assert len(message.splitlines()) <= 6


@slow
@pytest.mark.parametrize("step", ["decide", "promote"])
def test_a_disk_that_is_full_while_the_repository_is_written(smoke: SmokeRun, tmp_path: Path, step: str) -> None:
    with disk(tmp_path / "disk", megabytes=64) as small:
        workspace = unpromoted(smoke, small.folder / "ws")
        if step == "promote":
            done = rankline(*at_entry(smoke, workspace, tmp_path / "before", "decide"))
            assert done.returncode == 0, done.stderr
        models = ModelRegistry(workspace / "repository")
        before = models.history()
        command = at_entry(smoke, workspace, small.folder / "out", step)
        small.fill(leave=ledger.RESERVE_BYTES + 20_000)
        message = refused(*command)
        reports_full_disk(message, small)
        assert models.history() == before
        assert models.champion() == ""
        assert not list((workspace / "repository").glob("bundles/.*"))
        small.free_space()
        done = rankline(*command)
        assert done.returncode == 0, done.stderr
        assert len(models.history()) == len(before) + (2 if step == "decide" else 1)


@slow
def test_a_disk_that_is_full_before_a_run_begins(smoke: SmokeRun, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", megabytes=64) as small:
        workspace = smoke.copy(small.folder / "ws")
        small.fill(leave=0)
        message = refused("run", "--recipe", "smoke", "-w", workspace)
        assert "the disk is full" in message
        reports_full_disk(message, small)
        small.free_space()
        assert rankline("run", "--recipe", "smoke", "-w", workspace).returncode == 0
        assert summary(workspace)["outcome"] == "already serving"


@pytest.mark.integration
def test_a_workspace_that_may_only_be_read(smoke: SmokeRun, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", megabytes=64) as small:
        workspace = smoke.copy(small.folder / "ws")
        small.read_only()
        message = refused("run", "--recipe", "smoke", "-w", workspace)
        assert message.startswith("the file system refused: Read-only file system")
        assert f"where: {workspace}" in message
        assert "try: another --workspace" in message
        # and who only reads is served
        assert smoke.summary["model_id"] in rankline("champion", "-w", workspace).stdout


def test_a_source_on_a_disk_that_may_only_be_read(smoke: SmokeRun, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", megabytes=8) as small:
        shutil.copytree(smoke.workspace / "material" / "smoke", small.folder / "shop")
        small.read_only()
        with pytest.raises(OSError, match="Read-only"):
            (small.folder / "shop" / "x").touch()
        config = recipe().ingest.model_copy(update={"source": str(small.folder / "shop")})
        assert ingest(tmp_path / "raw", config=config)["rows"]["events"] > 0


# -- a loss that is no number ----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_a_real_training(smoke: SmokeRun, tmp_path: Path) -> None:
    config = recipe().finetune.model_copy(update={"learning_rate": 1e30})
    features, teacher, checkpoints = smoke.artifact("featurize", "features"), tmp_path / "teacher", tmp_path / "kept"
    with pytest.raises(TrainingError, match=r"(?s)the loss of finetune is not.*nan in epoch.*finetune.learning_rate"):
        finetune(features, teacher, config=config, progress=Progress(), checkpoints=checkpoints)
    assert not list(checkpoints.rglob("*.pt"))
    assert not list(teacher.glob("weights*"))
    assert not (teacher / "teacher.json").exists()


# -- two at once -----------------------------------------------------------------------------------------------


@slow  # the default run has test_failures.py's two runs, of different work
def test_two_runs_of_the_same_work_in_one_workspace(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = unpromoted(smoke, tmp_path / "ws")
    forget(workspace, "ingest")
    with watched(workspace) as one:
        first = one.folder
        with watched(workspace) as two:
            second = two.folder
            codes = [run.ended()[0] for run in (one, two)]
    assert codes == [0, 0]
    assert created(first) == created(second) == created(smoke.workspace / "runs" / smoke.summary["run"])
    outcomes = [json.loads((folder / "summary.json").read_text())["outcome"] for folder in (first, second)]
    assert set(outcomes) <= {"promoted", "already serving"}
    assert "promoted" in outcomes
    models = ModelRegistry(workspace / "repository")
    assert [event.kind for event in models.history()].count("promoted") == 1
    assert models.champion() == smoke.summary["model_id"]
    assert not list((workspace / "cache").glob("*/.*"))


# -- clocks ----------------------------------------------------------------------------------------------------


@slow  # two runs
def test_a_clock_that_was_set_back_between_two_runs(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    before = max(folders(workspace))
    before = before.rename(before.with_name("21260101-000000-smoke"))  # as a clock a century ahead would have named it
    done = rankline("run", "--recipe", "smoke", "-w", workspace)
    assert done.returncode == 0, done.stderr
    (after,) = folders(workspace) - {before}
    assert after.name > before.name  # the last run is still the last one
    result = summary(workspace)
    assert result["outcome"] == "already serving"
    assert [steps(workspace)[step] for step in REUSABLE] == ["reused"] * len(REUSABLE)
    assert all(step["seconds"] >= 0 for step in result["steps"])
    assert rankline("runs", "list", "-w", workspace).stdout.splitlines()[-1].startswith(after.name)
    assert f"run {after.name} took" in rankline("runs", "show", "-w", workspace).stdout


def test_a_clock_that_is_set_back_while_a_step_works(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    forget(workspace, "ingest")
    started = time.time()
    environment = set_back(tmp_path / "hurt", "os.rename:ingest.progress")
    done = rankline(*at_entry(smoke, workspace, tmp_path / "out", "ingest"), **environment)
    assert done.returncode == 0, done.stderr
    entry = ledger.read_entries(max(folders(workspace)))["ingest"]
    assert entry.started > started - 1
    assert (max(folders(workspace)) / "ingest.json").stat().st_mtime > started  # the disk's clock is the kernel's
    assert entry.finished is not None
    assert 0 < entry.work_s <= entry.finished - entry.started < time.time() - started
    created, before = tmp_path / "out" / "raw" / "files.json", smoke.artifact("ingest", "raw") / "files.json"
    assert created.read_text() == before.read_text()
    assert (tmp_path / "hurt" / "clock").read_text() == "-1d"


def test_the_history_goes_by_numbers_whatever_the_times_say(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    models = ModelRegistry(workspace / "repository")
    event = models.history()[-1]
    # a rollback to the same model by a machine whose clock is years behind
    path = workspace / "repository" / "events" / f"{event.n + 1}.json"
    later = event.model_copy(update={"n": event.n + 1, "kind": "rolled_back", "at": "2001-01-01T00:00:00.000+00:00"})
    path.write_text(later.model_dump_json())
    champion_record = ModelRegistry(workspace / "repository").champion_record()
    assert champion_record is not None
    assert (champion_record.event, champion_record.at) == (event.n + 1, later.at)


# -- what is damaged -------------------------------------------------------------------------------------------


@slow  # tests/rankline/runtime/test_run_step.py has each kind alone
def test_files_of_a_workspace_that_were_damaged(smoke: SmokeRun, tmp_path: Path) -> None:
    """One of each at once: kept work, what the cache calls its latest, progress, ledger, and the pointer."""
    workspace = smoke.copy(tmp_path / "ws")
    run = max(folders(workspace))
    for step, content in {"ingest": "null", "validate": '{"name": 5}', "featurize": "[]"}.items():
        (workspace / "cache" / step / "latest.json").write_text(content)
    entry = next((workspace / "cache" / "ingest").glob("*/entry.json"))
    entry.write_text(entry.read_text().replace('"result"', '"resalt"'))
    next((workspace / "cache" / "validate").glob("*/clean/events.parquet")).unlink()
    (run / "finetune.json").write_bytes(b"\xff{")
    (run / "finetune.progress").write_text('{"done": "much"}')
    champion_record = json.loads((workspace / "repository" / "champion.json").read_text())
    (workspace / "repository" / "champion.json").write_text(json.dumps({**champion_record, "model_id": "0" * 16}))
    done = rankline("run", "--recipe", "smoke", "-w", workspace)
    assert done.returncode == 0, done.stderr
    assert summary(workspace)["outcome"] == "already serving"
    assert [steps(workspace)[step] for step in REUSABLE] == ["done", "done"] + ["reused"] * 5
    assert reasons(workspace)["validate"].startswith("the cache entry was damaged")
    assert json.loads((workspace / "repository" / "champion.json").read_text()) == champion_record


@slow
def test_the_ledger_of_a_running_step_is_damaged(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    forget(workspace, "ingest")
    with watched(workspace) as run:
        run.reached("validate")
        (run.folder / "ingest.json").write_text('{"step": ')
        code, _, err = run.ended()
        assert code == 1
        assert err.startswith("ingest stopped: its ledger entry cannot be read")
        assert "try: run again" in err


@pytest.mark.integration
def test_an_event_that_is_damaged(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    event = workspace / "repository" / "events" / "2.json"
    content = event.read_bytes()
    event.write_text("{")
    (workspace / "repository" / "champion.json").unlink()
    message = in_process.refused("run", "--recipe", "smoke", "-w", workspace)
    assert message.startswith("resolve_inputs stopped: the history of the model registry is damaged")
    assert str(event) in message
    assert "try: restore the file" in message
    event.write_bytes(content)
    assert smoke.summary["model_id"] in in_process.rankline("champion", "-w", workspace).stdout


# -- odd places ------------------------------------------------------------------------------------------------

ODD = 'it\'s a "größere" Ablage; $ & 50%'


@slow
def test_a_path_with_spaces_quotes_and_umlauts(tmp_path: Path) -> None:
    workspace = tmp_path / ODD / "w s"
    done = rankline("run", "--recipe", "smoke", "-w", workspace, "--json", timeout_s=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "promoted"


@slow
def test_a_workspace_moved_to_a_path_with_spaces_quotes_and_umlauts(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = unpromoted(smoke, tmp_path / ODD / "w s")
    ends_as_undisturbed(smoke, workspace)
    promoted = next(step for step in summary(workspace)["steps"] if step["step"] == "promote")["result"]
    assert promoted["mlflow"].get("version") == 1, promoted["mlflow"]


# -- users without a history, items without words ---------------------------------------------------------------


@slow  # a whole run
def test_users_without_a_history_and_items_without_words_are_served(smoke: SmokeRun, tmp_path: Path) -> None:
    source = shutil.copytree(smoke.workspace / "material" / "smoke", tmp_path / "shop")
    head, *items = (source / "shop.item").read_text().splitlines()
    mute = [item.split("\t")[0] for item in items[:6]]
    rows = [f"{id_}\t\t\t" for id_ in mute]
    (source / "shop.item").write_text("\n".join([head, *rows, *items[6:]]) + "\n")
    with (source / "shop.user").open("a") as users:
        users.write("".join(f"silent{n}\n" for n in range(9)))
    workspace = tmp_path / "ws"
    done = rankline("run", "--recipe", "smoke", f"--set=ingest.source={source}", "-w", workspace, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["outcome"] == "promoted"
    with served(workspace) as url:
        answer = json.loads(rankline("ask", "silent3", "--url", url, "-k", 60, "--json").stdout)
    assert set(mute) < {item["item_id"] for item in answer["items"]}


# -- what runs again -------------------------------------------------------------------------------------------

# a changed setting -> the steps that must run again; where their output is the same, the next ones are reused
RERUN_STEPS = {
    "ingest.max_rejected_share=0.5": ["ingest"],
    "validate.max_age_days=9999999": ["validate"],
    "featurize.check_rows=7": ["featurize"],
    "featurize.negatives=3": ["featurize", "finetune", "distill", "export", "evaluate"],
    "finetune.learning_rate=0.003": ["finetune", "distill", "export", "evaluate"],
    "distill.soft_weight=0.3": ["distill", "export", "evaluate"],
    "export.parity_samples=9": ["export", "evaluate"],  # the manifest tells the samples
    "evaluate.latency_samples=30": ["evaluate"],
    "decide.min_requests=2": [],
    "promote.lock_timeout_s=99": [],
    "summary.core_hour=9": [],
    "cluster.train.memory=9Gi": [],
}


@slow  # test_runner.py runs one setting by default, and test_plan.py plans all of them
@pytest.mark.parametrize("setting", RERUN_STEPS)
def test_one_setting_makes_only_what_it_touches_run_again(smoke: SmokeRun, tmp_path: Path, setting: str) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    done = rankline("run", "--recipe", "smoke", "-w", workspace, "--set", setting)
    assert done.returncode in (0, 3), done.stderr
    again = [step for step in REUSABLE if steps(workspace)[step] == "done"]
    assert again == RERUN_STEPS[setting], reasons(workspace)
    if again:
        assert setting.partition("=")[0].split(".")[1] in reasons(workspace)[again[0]]


# -- the page --------------------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "faults.md").read_text()
    named = set(re.findall(r"\btest_[a-z0-9_]+(?=`)", page))
    written = "\n".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert [name for name in sorted(named) if f"def {name}(" not in written] == []
    late = set(re.findall(r"@(?:pytest\.mark\.)?slow\b.*\n(?:@.*\n)*def (test_\w+)", written))
    assert set(re.findall(r"\b(test_[a-z0-9_]+)`\*", page)) == named & late
