"""`rankline gc` on real folders and buckets: what goes is gone, what stays is whole, whenever it is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.promote.candidate_events import CandidateEvent, append_once
from components.summary.step import SUMMARY
from pipelines.retention.inventory import is_running
from pipelines.retention.policy import Keep, Plan
from pipelines.retention.sweep import clean, plan_sweep, sweep, sweep_after_run
from pipelines.runs.store import LocalRuns
from pipelines.schedules.firing import Firing
from pipelines.schedules.firings import Firings
from pipelines.schedules.store import ScheduleStore
from rankline.errors import IntegrityError, RegistryError, UsageError
from rankline.io import digest
from rankline.io.files import write_json
from rankline.model.bundle import open_bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.removal import delete_atomically, remove
from rankline.runtime import ledger
from rankline.runtime.step_cache import StepCache
from tests.cli.in_process import rankline
from tests.pipelines.retention.sweep_workspace import add_firing, add_model, add_run, aged, key, make
from tests.rankline.registry.test_model_registry import tiny_bundle

KEEP = Keep(runs=2, bundles=2, catalogues=1, days=0)


def quiet(line: str) -> None:
    """Nobody listens."""


def gone(plan: Plan) -> dict[str, list[str]]:
    matches: dict[str, list[str]] = {}
    for decision in plan.removals:
        matches.setdefault(decision.resource.kind, []).append(decision.resource.name)
    return matches


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_removed_resources_are_gone_and_retained_ones_work(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    first, second, before, champion, refused = make(workspace)
    plan = plan_sweep(workspace, KEEP)
    result = gone(plan)
    assert result["bundle"] == sorted([first, second, refused])
    assert [name[:8] for name in result["run"]] == ["20260101", "20260102"]
    assert (result["online"], result["fetched"], len(result["cache"])) == (["ranking_v0"], ["0123456789abcdef"], 2)
    assert result["checkpoint"] == ["featurize/0123456789abcdef"]
    assert result["leftover"] == [f"cache/featurize/.half.{'0' * 32}"]
    assert len(result["claim"]) == 3
    cleaned = sweep(workspace, plan, say=quiet)
    assert (len(cleaned.removed), cleaned.skipped) == (len(plan.removals), ())
    assert gone(plan_sweep(workspace, KEEP)) == {}
    models = ModelRegistry(workspace / "repository")
    assert inside(workspace / "repository" / "bundles") == sorted([before, champion])
    assert len(inside(workspace / "repository" / "evidence")) == 2
    assert models.champion() == champion
    store = StepCache(workspace / "cache" / "featurize")
    for number, there in ((1, False), (2, False), (3, True), (4, True)):
        retained = store.find(key(workspace, number))
        assert (retained is not None and not retained.find_damage(["features"])) is there
    # one can go back to the one before, and not to what has left
    models.append("rolled_back", before, who="t", why="t")
    assert models.champion() == before
    assert models.bundle(before).model_id == before
    with pytest.raises(RegistryError, match="not kept any more"):
        models.append("rolled_back", first, who="t", why="t")


def test_the_bytes_that_are_reported_are_the_bytes_that_come_free(tmp_path: Path) -> None:
    def taken() -> int:
        paths = [path for path in (tmp_path / "w").rglob("*") if path.is_file()]
        files = {(path.stat().st_ino): path.stat().st_size for path in paths}
        return sum(files.values())

    make(tmp_path / "w")
    keep = KEEP.model_copy(update={"bundles": 9})  # a model that leaves writes an event, and a claim a line
    shutil.rmtree(tmp_path / "w" / "schedules")
    (tmp_path / "w" / ".gc.lock").touch()
    before = taken()
    plan = plan_sweep(tmp_path / "w", keep)
    models = ModelRegistry(tmp_path / "w" / "repository")
    events = len(models.history())
    cleaned = sweep(tmp_path / "w", plan, say=quiet)
    assert [event.kind for event in models.history()[events:]] == ["removed"]
    written = (tmp_path / "w" / "repository" / "events" / f"{events + 1}.json").stat().st_size
    assert plan.freed() == cleaned.freed > 1000
    # the pointer says up to which event it was drawn, which may be a digit longer
    assert before - taken() == pytest.approx(cleaned.freed - written, abs=2)


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "w")
    before = digest.file_digests(tmp_path / "w")
    plan_sweep(tmp_path / "w", KEEP)
    assert digest.file_digests(tmp_path / "w") == before


# Killed at any moment -----------------------------------------------------------------------------------------

INSTANTS = ("os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree", "os.mkdir")


def _killed_at(workspace: Path, timestamp: int) -> None:
    """Sweep, and be killed with the given file operation not done yet."""
    left = [timestamp]

    def audit(event: str, _: object) -> None:
        if event in INSTANTS:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    clean(workspace, KEEP, say=quiet)


def sound(workspace: Path, ids: list[str], *, champion: str) -> None:
    """What must be true at every moment."""
    models = ModelRegistry(workspace / "repository", repair_cache=False)
    assert models.champion() == champion
    for model in ids:
        location = workspace / "repository" / "bundles" / model
        assert not location.exists() or open_bundle(location).model_id == model  # whole, or not there
    for model in ids[-3:-1]:
        assert models.bundle(model).model_id == model
    store = StepCache(workspace / "cache" / "featurize")
    for number in (1, 2, 3, 4):
        retained = store.find(key(workspace, number))
        assert (retained is None and number < 3) or (retained is not None and not retained.find_damage(["features"]))
    firings = Firings(workspace / "schedules" / "nightly")
    assert [firing.instant.day for firing in firings.all()] == [1, 2, 3]
    for firing in firings.all():
        assert not firings.create(firing)  # nothing can run twice


@pytest.mark.parametrize("every", [40, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_leaves_a_sound_workspace_and_goes_on_the_next_time(tmp_path: Path, every: int) -> None:
    ids = make(tmp_path / "made")
    context = multiprocessing.get_context("fork")
    killed = timestamp = 0
    while True:
        world = tmp_path / f"killed-at-{timestamp}"
        _copy(tmp_path / "made", world)
        child = context.Process(target=_killed_at, args=(world, timestamp))
        child.start()
        child.join(60)
        sound(world, ids, champion=ids[-2])
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1
        clean(world, KEEP, say=quiet)
        sound(world, ids, champion=ids[-2])
        assert inside(world / "repository" / "bundles") == sorted(ids[-3:-1])
        assert not list(world.rglob(".trash"))
        assert gone(plan_sweep(world, KEEP)) == {}
        shutil.rmtree(world)
        timestamp += every
    assert killed * every > 50


def _copy(source: Path, target: Path) -> None:
    """A copy with the names that share a file still sharing it."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


# In use ---------------------------------------------------------------------------------------------------------


def test_a_run_that_begins_after_the_plan_keeps_its_work(tmp_path: Path) -> None:
    make(tmp_path / "w")
    plan = plan_sweep(tmp_path / "w", KEEP)
    run = add_run(tmp_path / "w", 9, summary=False)  # written just now: it is under way
    cleaned = sweep(tmp_path / "w", plan, say=quiet)
    skipped = {decision.resource.kind: decision.why for decision in cleaned.skipped}
    in_use = ("cache", "checkpoint", "online", "fetched")
    assert skipped == dict.fromkeys(in_use, f"run {run.name} has started and may use it")
    for location in ("checkpoints/featurize/0123456789abcdef", "online/ranking_v0", "fetched/0123456789abcdef"):
        assert (tmp_path / "w" / location / "file").is_file()
    assert not {*in_use} & {*gone(plan_sweep(tmp_path / "w", KEEP))}
    assert run.is_dir()


@pytest.mark.parametrize(
    ("minutes", "watcher", "under_way"),
    [
        (30, None, True),  # of a pod
        (90, None, False),
        (30, {"host": "elsewhere", "pid": 1, "began": 0.0}, True),
        (90, {"host": "elsewhere", "pid": 1, "began": 0.0}, False),
        (30, {"host": socket.gethostname(), "pid": 2**22 + 1, "began": 0.0}, False),  # it was killed, and that is seen
    ],
)
def test_a_run_of_another_machine_counts_as_running_for_an_hour(
    tmp_path: Path, minutes: int, watcher: dict[str, Any] | None, under_way: bool
) -> None:
    run = add_run(tmp_path / "w", 1, summary=False)
    entry = ledger.Entry(step="finetune", status="running", started=time.time() - 60 * minutes, pid=2**22 + 1)
    ledger.write_entry(run, entry)
    if watcher:
        write_json(run / "watcher.json", watcher)
    aged(run, by=60.0 * minutes)
    assert is_running(run) is under_way


def test_a_model_that_comes_to_serve_after_the_plan_stays(tmp_path: Path) -> None:
    ids = make(tmp_path / "w")
    plan = plan_sweep(tmp_path / "w", KEEP)
    models = ModelRegistry(tmp_path / "w" / "repository")
    models.append("rolled_back", ids[0], who="t", why="somebody was faster")
    cleaned = sweep(tmp_path / "w", plan, say=quiet)
    assert {decision.resource.kind for decision in cleaned.skipped} == {"bundle", "evidence"}
    assert models.champion() == ids[0]
    assert models.bundle(ids[0]).model_id == ids[0]
    assert (tmp_path / "w" / "repository" / "bundles" / ids[3]).is_dir()


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "w")
    plan = plan_sweep(tmp_path / "w", KEEP)
    import fcntl

    with (tmp_path / "w" / ".gc.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another `rankline gc`"):
            sweep(tmp_path / "w", plan, say=quiet)


def test_links_out_of_the_workspace_are_left_alone(tmp_path: Path) -> None:
    make(tmp_path / "w")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(tmp_path / "w" / "cache", elsewhere)
    (tmp_path / "w" / "cache").symlink_to(elsewhere)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_text("mine")
    aged(mine)
    (tmp_path / "w" / "runs" / "20250101-000000-link").symlink_to(mine)
    (tmp_path / "w" / "runs" / "20260101-000000-smoke" / "link").symlink_to(mine)
    before = digest.file_digests(elsewhere)
    plan = plan_sweep(tmp_path / "w", KEEP)
    assert len(plan.ignored) == 2
    sweep(tmp_path / "w", plan, say=quiet)
    assert not (tmp_path / "w" / "runs" / "20260101-000000-smoke").exists()
    assert digest.file_digests(elsewhere) == before
    assert (mine / "precious").read_text() == "mine"
    assert (tmp_path / "w" / "runs" / "20250101-000000-link").is_symlink()


def test_a_folder_that_became_a_link_after_the_plan_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path / "w")
    plan = plan_sweep(tmp_path / "w", KEEP)
    shutil.move(tmp_path / "w" / "cache", tmp_path / "elsewhere")
    (tmp_path / "w" / "cache").symlink_to(tmp_path / "elsewhere")
    before = digest.file_digests(tmp_path / "elsewhere")
    cleaned = sweep(tmp_path / "w", plan, say=quiet)
    assert "a link is in its place" in {decision.why for decision in cleaned.skipped}
    assert digest.file_digests(tmp_path / "elsewhere") == before


# What is said afterwards ------------------------------------------------------------------------------------------


def test_a_model_that_left_is_still_reported(tmp_path: Path) -> None:
    ids = make(tmp_path / "w")
    clean(tmp_path / "w", KEEP, why="the disk was full", say=quiet)
    models = ModelRegistry(tmp_path / "w" / "repository")
    events = [event for event in models.history() if event.model_id == ids[0]]
    assert [event.kind for event in events] == ["registered", "evaluated", "promoted", "removed"]
    for ask in (models.bundle, models.manifest):
        with pytest.raises(RegistryError) as refusal:
            ask(ids[0])
        assert "removed at" in refusal.value.found
        assert "rankline gc" in refusal.value.found
        assert "the disk was full" in refusal.value.found


def test_a_removed_model_can_be_registered_again(tmp_path: Path) -> None:
    ids = make(tmp_path / "w")
    clean(tmp_path / "w", KEEP, say=quiet)
    models = ModelRegistry(tmp_path / "w" / "repository")
    again = tiny_bundle(tmp_path / "again", weights=b"weights 1")
    assert again.model_id == ids[0]
    models.add(again.folder)
    draft = CandidateEvent("registered", again.model_id, "trained again")
    assert [event.kind for event in append_once(models, draft, run_id="")] == ["registered"]
    assert append_once(models, draft, run_id="") == []
    models.append("promoted", ids[0], who="t", why="t")
    assert models.champion() == ids[0]


def test_a_removed_model_cannot_serve_while_its_files_still_exist(tmp_path: Path) -> None:
    ids = make(tmp_path / "w")
    models = ModelRegistry(tmp_path / "w" / "repository")
    assert remove(models, ids[0], who="t", why="killed after this", skipped=lambda history: False) is not None
    assert models.bundle(ids[0]).model_id == ids[0]
    for kind in ("promoted", "rolled_back"):
        with pytest.raises(RegistryError, match="not kept any more"):
            models.append(kind, ids[0], who="t", why="t")  # type: ignore[arg-type]
    revision = models.bundle(ids[1]).revision
    remove(models, ids[1], who="t", why="old", skipped=lambda history: False, revision=revision)
    with pytest.raises(RegistryError, match=f"catalogue {revision} of model {ids[1]} is not kept any more"):
        models.append("catalogue_published", ids[1], who="t", why="t", digests={"catalogue": revision})
    models.append("rolled_back", ids[1], who="t", why="the model itself stays")
    assert models.champion() == ids[1]
    assert remove(models, ids[1], who="t", why="t", skipped=lambda history: True) is None


def test_a_damaged_history_stops_everything(tmp_path: Path) -> None:
    make(tmp_path / "w")
    (tmp_path / "w" / "repository" / "events" / "3.json").unlink()
    with pytest.raises(IntegrityError):
        plan_sweep(tmp_path / "w", KEEP)


# Claims -----------------------------------------------------------------------------------------------------------


def test_an_old_firing_becomes_a_line_and_still_keeps_its_time_from_running_again(tmp_path: Path) -> None:
    make(tmp_path / "w")
    failed = add_firing(tmp_path / "w", 4, exit_code=1)
    open_one = add_firing(tmp_path / "w", 5, exit_code=None, run="20260101-000000-smoke")
    firings = Firings(tmp_path / "w" / "schedules" / "nightly")
    firings.mark_handled(open_one.instant)
    before = firings.all()
    plan = plan_sweep(tmp_path / "w", KEEP)
    assert "20260101-000000-smoke" not in gone(plan)["run"]  # its claim goes on with it
    sweep(tmp_path / "w", plan, say=quiet)
    again = Firings(tmp_path / "w" / "schedules" / "nightly")
    assert again.all() == before
    assert [firing.instant.day for firing in again.unarchived()] == [4, 5]
    assert not any(again.create(firing) for firing in before)
    assert again.read(before[0].instant) == before[0]
    # what failed may be run again, and so may what a backfill is asked for once more
    again.write(before[0].replace(outcome="refused", exit_code=3))
    assert again.archive("20260101T030000Z") == ""
    assert Firings(tmp_path / "w" / "schedules" / "nightly").read(before[0].instant).outcome == "refused"
    assert again.read(failed.instant).failed


def test_a_line_that_a_kill_cut_short_costs_nothing(tmp_path: Path) -> None:
    make(tmp_path / "w")
    firings = Firings(tmp_path / "w" / "schedules" / "nightly")
    before = firings.all()
    (tmp_path / "w" / "schedules" / "nightly" / "ended.jsonl").write_text('{"schedule": "nigh')
    clean(tmp_path / "w", KEEP, say=quiet)
    assert firings.all() == before
    assert firings.unarchived() == []


# In a bucket ------------------------------------------------------------------------------------------------------


def in_bucket(url: str, tmp_path: Path) -> None:
    models = ModelRegistry(url)
    (tmp_path / "w").mkdir()
    ids = [add_model(models, tmp_path, number).model_id for number in (1, 2, 3)]
    models.append("anchored", ids[-1], who="t", why="so that the first one may go")
    refused = add_model(models, tmp_path, 4, promoted=False).model_id
    plan = plan_sweep(tmp_path / "w", KEEP, repository=url)
    assert gone(plan)["bundle"] == sorted([ids[0], refused])
    assert len(gone(plan)["evidence"]) == 2 or plan.keep.days == 0
    # one that a kill left without its manifest is none, and goes with what is left of it
    models.fs.rm_file(models._path(f"bundles/{refused}/manifest.json"))
    sweep(tmp_path / "w", plan, repository=url, say=quiet)
    again = ModelRegistry(url)
    assert again.champion() == ids[2]
    for retained in ids[1:]:
        assert again.bundle(retained, into=tmp_path / "fetched").model_id == retained
    left = [path for path in again.fs.find(again._path("bundles")) if ids[0] in path or refused in path]
    assert left == []
    with pytest.raises(RegistryError, match="not kept any more"):
        again.bundle(ids[0], into=tmp_path / "fetched")
    plan = plan_sweep(tmp_path / "w", KEEP, repository=url)
    assert "bundle" not in gone(plan)
    # made again, it is there again
    models.add(tmp_path / "made-1")
    models.append("registered", ids[0], who="t", why="t")
    models.append("promoted", ids[0], who="t", why="t")
    assert ModelRegistry(url).champion() == ids[0]


def test_a_repository_in_memory(tmp_path: Path) -> None:
    in_bucket(f"memory://{uuid.uuid4().hex}/repository", tmp_path)


@pytest.mark.integration
def test_a_repository_in_a_real_bucket(url: str, tmp_path: Path) -> None:
    in_bucket(url, tmp_path)


def test_time_passes(tmp_path: Path) -> None:
    """What is young today goes when its days are over: the plan is of a moment."""
    make(tmp_path / "w")
    keep = KEEP.model_copy(update={"days": 3.0})
    assert "bundle" not in gone(plan_sweep(tmp_path / "w", keep))
    assert len(gone(plan_sweep(tmp_path / "w", keep, now=time.time() + 4 * 86_400))["bundle"]) == 3


# After a schedule's runs ------------------------------------------------------------------------------------------


def scheduled(workspace: Path, **keeps: dict[str, float] | None) -> ScheduleStore:
    """Schedules by their names, and what each says of keeping."""
    store = ScheduleStore(workspace)
    for name, keep in keeps.items():
        values = {"name": name, "recipe": "smoke", "cron": "0 0 3 * * *", "keep": keep}
        store.create(values, now=datetime(2026, 1, 10, tzinfo=UTC))
    return store


def test_a_schedule_that_says_what_to_keep_cleans_after_its_runs(tmp_path: Path) -> None:
    make(tmp_path / "w")
    lines: list[str] = []
    sweep_after_run(scheduled(tmp_path / "w", hourly=KEEP.model_dump()), "hourly", say=lines.append)
    assert gone(plan_sweep(tmp_path / "w", KEEP)) == {}
    assert lines[-1].startswith("removed 17 items")
    history = ModelRegistry(tmp_path / "w" / "repository").history()
    assert history[-1].why.startswith("schedule hourly: ")


def test_one_that_says_nothing_removes_nothing_and_the_largest_wins(tmp_path: Path) -> None:
    make(tmp_path / "w")
    store = scheduled(tmp_path / "w", silent=None)
    before = digest.file_digests(tmp_path / "w")
    sweep_after_run(store, "silent", say=quiet)
    assert digest.file_digests(tmp_path / "w") == before
    generous = {**KEEP.model_dump(), "bundles": 4, "runs": 3}
    sweep_after_run(scheduled(tmp_path / "w", hourly=KEEP.model_dump(), weekly=generous), "hourly", say=quiet)
    assert len(inside(tmp_path / "w" / "repository" / "bundles")) == 4
    assert len(inside(tmp_path / "w" / "runs")) == 3


def test_a_failed_clean_up_does_not_fail_the_run(tmp_path: Path) -> None:
    make(tmp_path / "w")
    (tmp_path / "w" / "repository" / "events" / "3.json").unlink()
    lines: list[str] = []
    sweep_after_run(scheduled(tmp_path / "w", hourly=KEEP.model_dump()), "hourly", say=lines.append)
    assert "cleaning after the run stopped" in lines[0]


def test_a_fault_of_the_clean_up_is_reported_and_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w")

    def faulty(*_: object, **__: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr("pipelines.retention.sweep.plan_sweep", faulty)
    lines: list[str] = []
    sweep_after_run(scheduled(tmp_path / "w", hourly=KEEP.model_dump()), "hourly", say=lines.append)
    assert "cleaning after the run stopped" in lines[0]
    assert "a fault of ours" in lines[0]

    def full(line: str) -> None:
        raise OSError(28, "No space left on device")

    sweep_after_run(ScheduleStore(tmp_path / "w"), "hourly", say=full)


def test_partial_files_of_killed_processes_are_leftovers(tmp_path: Path) -> None:
    make(tmp_path / "w")
    partial = "0" * 32
    ours = (
        f"checkpoints/finetune/{'a' * 16}/.new.pt.{partial}", f"checkpoints/finetune/{'a' * 16}/partial.1",
        f"online/ranking_v1/.online.db.{partial}", f"online/ranking_v1/.online.db.{partial}-journal",
    )  # fmt: skip
    others = (f"checkpoints/llama/step-100/.w.pt.{partial}", "online/ranking_v1/.online.db.copy")
    for name in (*ours, *others):
        (tmp_path / "w" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "w" / name).write_text(name)
    aged(tmp_path / "w")
    assert set(ours) <= set(gone(plan_sweep(tmp_path / "w", KEEP))["leftover"])
    assert not set(others) & set(gone(plan_sweep(tmp_path / "w", KEEP))["leftover"])


# What is not Rankline's -------------------------------------------------------------------------------------------

FOREIGN = (
    "checkpoints/llama/step-100/w.pt", "cache/hub/model/w.bin", "cache/hub/.model.lock/w.bin",
    "fetched/thing/w.bin", "online/shop/page.html", "runs/exp1/events.out", "runs/20250101-000000-exp/events.out",
    "cache/hub/.trash/mine", "checkpoints/llama/step-100/partial.1", "repository/bundles/mine/w.bin",
)  # fmt: skip


def foreign(folder: Path, *, but: str = "") -> None:
    for name in FOREIGN:
        if not but or not name.startswith(but):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)


def test_a_folder_that_rankline_has_not_made_is_refused(tmp_path: Path) -> None:
    foreign(tmp_path / "w", but="repository/")
    aged(tmp_path / "w")
    before = digest.file_digests(tmp_path / "w")
    with pytest.raises(UsageError, match="no workspace of Rankline"):
        clean(tmp_path / "w", KEEP, say=quiet)
    # with a repository named only that is swept
    add_model(ModelRegistry(tmp_path / "models"), tmp_path, 1)
    plan = plan_sweep(tmp_path / "w", KEEP, repository=str(tmp_path / "models"))
    assert "nothing in it shows" in plan.ignored[0]
    sweep(tmp_path / "w", plan, repository=str(tmp_path / "models"), say=quiet)
    (tmp_path / "w" / ".gc.lock").unlink()
    assert digest.file_digests(tmp_path / "w") == before


def test_files_with_unknown_names_are_left_alone(tmp_path: Path) -> None:
    make(tmp_path / "w")
    foreign(tmp_path / "w")
    aged(tmp_path / "w")
    plan = plan_sweep(tmp_path / "w", KEEP)
    assert len([line for line in plan.ignored if "does not look like" in line]) == 7
    cleaned = sweep(tmp_path / "w", plan, say=quiet)
    assert (len(cleaned.removed), cleaned.skipped) == (17, ())
    assert [name for name in FOREIGN if not (tmp_path / "w" / name).is_file()] == []


# Which repository -------------------------------------------------------------------------------------------------


def test_a_repository_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "w")
    (tmp_path / "empty").mkdir()
    for named in ("typo", "empty"):
        with pytest.raises(UsageError, match="no model registry here"):
            clean(tmp_path / "w", KEEP, repository=str(tmp_path / named), say=quiet)
    assert len(inside(tmp_path / "w" / "runs")) == 4


def test_the_champion_is_known_despite_a_wrong_repository(tmp_path: Path) -> None:
    """By the workspace's own, by what the runs were told, and by what the schedules say."""
    ids = make(tmp_path / "w", models=4, runs=6)
    add_model(ModelRegistry(tmp_path / "other"), tmp_path, 9)
    maker = tmp_path / "w" / "runs" / "20260104-000000-smoke"
    write_json(maker / SUMMARY, {"outcome": "promoted", "model_id": ids[3]})
    keep = KEEP.model_copy(update={"runs": 1})

    def going() -> list[str]:
        return [name[:8] for name in gone(plan_sweep(tmp_path / "w", keep, repository=str(tmp_path / "other")))["run"]]

    without_its_maker = ["20260101", "20260102", "20260103", "20260105"]
    assert going() == without_its_maker
    (tmp_path / "w" / "repository").rename(tmp_path / "models")
    with pytest.raises(UsageError, match=f"model {ids[3]} came to serve by run {maker.name}"):
        going()
    result = {"name": "smoke", "storage": {"repository": str(tmp_path / "models")}}
    write_json(tmp_path / "w" / "runs" / "20260101-000000-smoke" / "recipe.json", result)
    assert going() == without_its_maker
    write_json(tmp_path / "w" / "runs" / "20260101-000000-smoke" / "recipe.json", {"name": "smoke"})
    values = {"name": "daily", "recipe": "smoke", "cron": "0 0 3 * * *",
              "settings": [f"storage.repository={tmp_path / 'models'}"]}  # fmt: skip
    ScheduleStore(tmp_path / "w").create(values, now=datetime(2026, 1, 10, tzinfo=UTC))
    assert going() == without_its_maker
    # a workspace in a bucket has its registry there
    (tmp_path / "models").rename(tmp_path / "repository")
    with pytest.raises(UsageError, match=f"model {ids[3]} came to serve by run {maker.name}"):
        going()
    result = {"name": "smoke", "storage": {"workspace": str(tmp_path)}}
    write_json(tmp_path / "w" / "runs" / "20260101-000000-smoke" / "recipe.json", result)
    assert going() == without_its_maker


# What cannot be read ----------------------------------------------------------------------------------------------


def test_a_firing_that_cannot_be_read_is_reported_left_alone_and_never_run_again(tmp_path: Path) -> None:
    make(tmp_path / "w")
    firings = Firings(tmp_path / "w" / "schedules" / "nightly")
    odd, broken, sound_one = [firing.instant for firing in firings.all()]
    result = json.loads(firings.path(odd).read_text())
    firings.path(odd).write_text(json.dumps({**result, "of_another_version": 1}))
    firings.path(broken).write_text('{"schedule": "nigh')
    assert [firing.outcome for firing in firings.all()] == ["unreadable", "unreadable", "promoted"]
    assert "of_another_version" in firings.all()[0].error
    assert not any(firing.failed for firing in firings.all())  # a backfill would run it again
    assert firings.archive(firings.path(odd).stem) != ""
    before = digest.file_digests(tmp_path / "w" / "schedules")
    plan = plan_sweep(tmp_path / "w", KEEP)
    assert len([line for line in plan.ignored if "cannot be read" in line]) == 2
    sweep(tmp_path / "w", plan, say=quiet)
    assert digest.file_digests(tmp_path / "w" / "schedules") == before
    assert not firings.create(reported_as(firings, odd))
    assert firings.read(sound_one) is not None


def reported_as(firings: Firings, timestamp: datetime) -> Firing:
    matches = firings.read(timestamp)
    assert matches is not None
    return matches


@pytest.mark.parametrize("text", ["{", "[]", '{"until": 5, "skipped": []}', '{"until": "soon", "skipped": []}'])
def test_a_list_of_what_was_handled_that_cannot_be_read_is_reported(tmp_path: Path, text: str) -> None:
    make(tmp_path / "w")
    firings = Firings(tmp_path / "w" / "schedules" / "nightly")
    until = firings.handled()["until"]
    (tmp_path / "w" / "schedules" / "nightly" / "handled.json").write_text(text)
    assert firings.handled()["until"] == until  # the newest claim's
    assert "handled.json cannot be read" in firings.handled()["skipped"][0]["why"]
    plan = plan_sweep(tmp_path / "w", KEEP)
    assert "claim" not in gone(plan)
    assert any("handled.json" in line for line in plan.ignored)
    firings.mark_handled(firings.all()[-1].instant)
    assert "cannot be read" in Firings(firings.folder.parent).handled()["skipped"][0]["why"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"outcome": null}'])
def test_a_run_whose_summary_cannot_be_read_is_reported_and_stays(tmp_path: Path, text: str) -> None:
    make(tmp_path / "w")
    run = tmp_path / "w" / "runs" / "20260101-000000-smoke"
    (run / SUMMARY).write_text(text)
    assert [line.outcome for line in LocalRuns(tmp_path / "w").list()] == ["unreadable", *["promoted"] * 3]
    assert LocalRuns(tmp_path / "w").show(run.name)["outcome"] == "unreadable"
    plan = plan_sweep(tmp_path / "w", KEEP)
    assert run.name not in gone(plan)["run"]
    assert f"{run / SUMMARY} cannot be read" in plan.ignored
    assert len(gone(plan)["cache"]) == 1  # what it stands on stays, too


# Two at once in one repository ------------------------------------------------------------------------------------


def test_two_that_remove_side_by_side_remove_everything(tmp_path: Path) -> None:
    names = [tmp_path / "shared" / f"{number:03}" for number in range(300)]
    for name in names:
        (name / "in").mkdir(parents=True)
        (name / "in" / "file").write_text("x")
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_delete, args=(names[part::2],)) for part in (0, 1)]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert [each.exitcode for each in both] == [0, 0]
    assert inside(tmp_path / "shared") == []


def _delete(paths: list[Path]) -> None:
    for path in paths:
        delete_atomically(path)


def test_a_trash_folder_that_another_process_removes_is_recreated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thing").mkdir()
    rename = os.rename
    taken: list[Path] = []

    def overtaken(source: Path, target: Path) -> None:
        if not taken:
            taken.append(target)
            Path(target).parent.rmdir()
        rename(source, target)

    monkeypatch.setattr("rankline.registry.removal.os.rename", overtaken)
    delete_atomically(tmp_path / "thing")
    assert (len(taken), inside(tmp_path)) == (1, [])


def test_a_failed_removal_does_not_count_as_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "w")
    plan = plan_sweep(tmp_path / "w", KEEP)
    monkeypatch.setattr("rankline.registry.removal.shutil.rmtree", lambda path, ignore_errors: None)
    cleaned = sweep(tmp_path / "w", plan, say=quiet)
    assert {decision.resource.kind for decision in cleaned.removed} == {"claim"}
    assert "some of it could not be removed" in {decision.why for decision in cleaned.skipped}.pop()


def test_a_schedule_with_a_firing_that_cannot_be_read_is_shown(tmp_path: Path) -> None:
    make(tmp_path / "w")
    store = scheduled(tmp_path / "w", nightly=None)
    firings = store.firings("nightly")
    first = firings.all()[0].instant
    firings.path(first).write_text(json.dumps({"of_another_version": 1}))
    (tmp_path / "w" / "schedules" / "nightly" / "handled.json").write_text("{")
    shown = rankline("schedule", "show", "nightly", "-w", tmp_path / "w")
    assert (shown.returncode, "unreadable" in shown.stdout, "handled.json cannot be read" in shown.stdout) == (
        0, True, True,
    )  # fmt: skip
    result = json.loads(rankline("schedule", "show", "nightly", "--json", "-w", tmp_path / "w").stdout)
    assert [run["outcome"] for run in result["runs"]] == ["unreadable", "promoted", "promoted"]
    dry = rankline("gc", "--dry-run", "-w", tmp_path / "w")
    assert (dry.returncode, dry.stdout.count("cannot be read")) == (0, 2)
    listed = rankline("runs", "list", "-w", tmp_path / "w")
    assert listed.returncode == 0
