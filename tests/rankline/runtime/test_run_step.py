"""run_step reuses what has not changed, verifies its inputs, and turns an error into one message."""

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from rankline.contracts import FrozenModel
from rankline.errors import SourceError, ValidationFailed
from rankline.io.files import write_json
from rankline.runtime import ledger
from rankline.runtime.pod_output import read_pod_output
from rankline.runtime.progress import Progress
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step
from rankline.runtime.step_cache import key_changes


class Config(FrozenModel):
    factor: int = 2


TWICE = Config()


class Work:
    """A step that multiplies a number, and counts its executions."""

    def __init__(self) -> None:
        self.done = 0

    def step(self, *, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        self.done += 1
        output.mkdir(parents=True)
        value = int((raw / "number.txt").read_text()) * config.factor
        (output / "number.txt").write_text(str(value))
        return {"value": value}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "number.txt").write_text("21")
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    from rankline.io import digest

    (folder / "files.json").unlink(missing_ok=True)
    write_json(folder / "files.json", digest.file_digests(folder))


def do(work: Any, tmp_path: Path, raw: Path, run: str, config: Config | None = None, **more: Any) -> ledger.Entry:
    context = RunContext(tmp_path / "ws", run)
    outputs = {"output": context.folder / "out" / "output"}
    run_step(StepSpec("ingest", work, config or Config(), inputs={"raw": raw}, outputs=outputs, **more), context)
    return ledger.read_entries(context.folder)["ingest"]


def test_unchanged_work_is_reused_and_says_from_where(tmp_path: Path, raw: Path) -> None:
    work = Work()
    first, second = do(work.step, tmp_path, raw, "one"), do(work.step, tmp_path, raw, "two")
    assert work.done == 1
    assert (first.status, second.status) == ("done", "reused")
    assert "run one" in second.why
    assert second.result == {"value": 42}
    assert (Path(second.paths["output"]) / "number.txt").read_text() == "42"
    assert first.outputs == second.outputs


def test_the_reason_of_a_rerun_is_recorded(tmp_path: Path, raw: Path) -> None:
    work = Work()
    do(work.step, tmp_path, raw, "one")
    assert do(work.step, tmp_path, raw, "two", Config(factor=3)).why == "factor: 2 -> 3"
    (raw / "number.txt").write_text("5")
    seal(raw)
    assert do(work.step, tmp_path, raw, "three", Config(factor=3)).why == "its input raw changed"
    assert (
        do(work.step, tmp_path, raw, "four", Config(factor=3), lineage=lambda: {"source": "b"}).why == "source changed"
    )
    assert work.done == 4


def test_settings_that_differ_from_the_defaults_are_recorded_of_reused_work_too(tmp_path: Path, raw: Path) -> None:
    work = Work()
    assert do(work.step, tmp_path, raw, "one").settings == {}
    for run in ("two", "three"):
        assert do(work.step, tmp_path, raw, run, Config(factor=3)).settings == {"factor": 3}


def test_the_changed_one_of_nested_settings_is_named() -> None:
    key = {"inputs": {}, "lineage": {}, "libraries": {}, "code": ""}
    columns = {"title": "name", "labels": {"rating": "stars", "click": None}}
    changed = {"title": "", "labels": {"rating": "stars", "click": "clicked"}}
    before, now = ({**key, "config": {"rows": 1, "columns": each}} for each in (columns, changed))
    assert key_changes(before, now) == ["columns.title: name -> ''", "columns.labels.click: None -> clicked"]


def test_a_result_of_another_lineage_is_reused_only_with_ignore_lineage(tmp_path: Path, raw: Path) -> None:
    work = Work()
    do(work.step, tmp_path, raw, "one", lineage=lambda: {"champion": "a"})
    again = do(work.step, tmp_path, raw, "two", lineage=lambda: {"champion": "b"}, ignore_lineage=lambda: True)
    assert (work.done, again.status) == (1, "reused")
    assert do(work.step, tmp_path, raw, "three", lineage=lambda: {"champion": "b"}).why == "champion changed"
    other = do(
        work.step,
        tmp_path,
        raw,
        "four",
        Config(factor=3),
        lineage=lambda: {"champion": "b"},
        ignore_lineage=lambda: True,
    )
    assert (work.done, other.status) == (3, "done")


def test_a_damaged_cache_entry_is_replaced(tmp_path: Path, raw: Path) -> None:
    work = Work()
    do(work.step, tmp_path, raw, "one")
    entry_file = next((tmp_path / "ws" / "cache" / "ingest").glob("*/output/number.txt"))
    entry_file.write_text("4")
    entry = do(work.step, tmp_path, raw, "two")
    assert (work.done, entry.status) == (2, "done")
    assert "damaged" in entry.why
    assert do(work.step, tmp_path, raw, "three").status == "reused"


def test_a_malformed_cache_entry_is_replaced(tmp_path: Path, raw: Path) -> None:
    work = Work()
    do(work.step, tmp_path, raw, "one")
    next((tmp_path / "ws" / "cache" / "ingest").glob("*/entry.json")).write_text('{"key": ')
    assert do(work.step, tmp_path, raw, "two").status == "done"
    assert work.done == 2


def test_an_input_with_a_flipped_byte_is_refused(tmp_path: Path, raw: Path) -> None:
    (raw / "number.txt").write_text("22")
    with pytest.raises(SystemExit) as stop:
        do(Work().step, tmp_path, raw, "one")
    assert "does not match its digest" in str(stop.value.code)
    assert "number.txt" in str(stop.value.code)
    assert ledger.read_entries(tmp_path / "ws" / "runs" / "one")["ingest"].status == "failed"


def test_an_unsealed_input_is_refused(tmp_path: Path, raw: Path) -> None:
    (raw / "files.json").unlink()
    with pytest.raises(SystemExit, match="not complete"):
        do(Work().step, tmp_path, raw, "one")


def test_leftovers_of_a_killed_attempt_are_deleted(tmp_path: Path, raw: Path) -> None:
    left = tmp_path / "ws" / "runs" / "one" / "out" / "output"
    left.mkdir(parents=True)
    (left / "half.parquet").write_text("PAR")
    entry = do(Work().step, tmp_path, raw, "one")
    assert sorted(p.name for p in Path(entry.paths["output"]).iterdir()) == ["files.json", "number.txt"]


def test_a_known_error_is_one_message(tmp_path: Path, raw: Path) -> None:
    def step(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        raise SourceError("no rows", expected="rows", found="none", where="x.inter", hint="fetch them")

    with pytest.raises(SystemExit) as stop:
        do(step, tmp_path, raw, "one")
    assert str(stop.value.code).splitlines() == [
        "no rows", "  expected: rows", "  found: none", "  where: x.inter", "  try: fetch them",
    ]  # fmt: skip


def test_an_unexpected_error_leaves_its_stack_trace_in_a_file(tmp_path: Path, raw: Path) -> None:
    def step(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        return {"value": 1 // 0}

    with pytest.raises(SystemExit) as stop:
        do(step, tmp_path, raw, "one")
    assert "ZeroDivisionError" in str(stop.value.code)
    assert "Traceback" not in str(stop.value.code)
    trace = tmp_path / "ws" / "runs" / "one" / "ingest.traceback.txt"
    assert "1 // 0" in trace.read_text()


def test_a_step_killed_half_way_is_picked_up(tmp_path: Path, raw: Path) -> None:
    """kill -9 while writing: a partial output is never taken for a finished one."""
    script = tmp_path / "killed.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            from pathlib import Path
            sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
            from tests.rankline.runtime.test_run_step import Config, do

            def step(*, raw, output, config, progress):
                output.mkdir(parents=True)
                (output / "number.txt").write_text("4")
                os.kill(os.getpid(), signal.SIGKILL)

            do(step, Path({str(tmp_path)!r}), Path({str(raw)!r}), "one")
            """
        )
    )
    killed = subprocess.run([sys.executable, str(script)], env={**os.environ}, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert ledger.read_entries(tmp_path / "ws" / "runs" / "one")["ingest"].status == "running"
    work = Work()
    assert do(work.step, tmp_path, raw, "two").status == "done"
    assert work.done == 1
    # a pod that was lost begins again in the same run
    killed_at = ledger.read_entries(tmp_path / "ws" / "runs" / "one")["ingest"].started
    again = do(Work().step, tmp_path, raw, "one")
    assert (again.attempts, again.first_started) == (2, killed_at)
    first = time.strftime("%H:%M:%S", time.gmtime(killed_at))
    assert again.why.endswith(f"; begun again: its process had been killed (attempt 2, the first at {first} UTC)")
    third = do(Work().step, tmp_path, raw, "one")
    assert (third.attempts, third.first_started) == (3, killed_at)
    assert "begun again: it had ended (attempt 3" in third.why


def test_in_a_pod_a_step_prints_where_its_lines_begin_and_how_it_ended(
    tmp_path: Path, raw: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        print("epoch 1")
        raise SourceError("there is no data", hint="look for it")

    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    with pytest.raises(SystemExit):
        do(noisy, tmp_path, raw, "one")
    printed = read_pod_output(capfd.readouterr().out.splitlines())
    assert printed.lines == ["epoch 1", "there is no data", "  try: look for it"]
    assert (printed.result["step"], printed.result["status"]) == ("ingest", "failed")
    assert "rankline-" not in (tmp_path / "ws" / "runs" / "one" / "ingest.log").read_text()


def test_two_runs_may_finish_the_same_work_at_once(tmp_path: Path, raw: Path) -> None:
    work = Work()

    def overtaken(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        do(work.step, tmp_path, raw, "two")
        return work.step(raw=raw, output=output, config=config, progress=progress)

    assert do(overtaken, tmp_path, raw, "one").status == "done"
    third = do(work.step, tmp_path, raw, "three")
    assert (third.status, third.why) == ("reused", "unchanged since run two")
    assert not list((tmp_path / "ws" / "cache" / "ingest").glob(".*"))


def test_a_workspace_that_was_moved_keeps_what_it_holds(tmp_path: Path, raw: Path) -> None:
    class Placed(FrozenModel):
        factor: int = 2
        source: str = ""

    def run_in(workspace: Path, run: str) -> None:
        context = RunContext(workspace, run)
        config = Placed(source=f"{workspace}/material/shop")
        outputs = {"output": context.folder / "output"}
        run_step(StepSpec("ingest", work.step, config, inputs={"raw": raw}, outputs=outputs), context)

    work = Work()
    run_in(tmp_path / "ws", "one")
    (tmp_path / "ws").rename(tmp_path / "moved")
    run_in(tmp_path / "moved", "two")
    assert work.done == 1


def test_without_reuse_it_always_runs(tmp_path: Path, raw: Path) -> None:
    work = Work()
    for run in ("one", "two"):
        assert do(work.step, tmp_path, raw, run, reuse=False).why == "it always runs"
    assert work.done == 2


def test_the_ledger_has_what_the_summary_needs(tmp_path: Path, raw: Path) -> None:
    entry = do(Work().step, tmp_path, raw, "one", preload=("json",))
    assert entry.finished is not None
    assert entry.finished >= entry.started
    assert entry.peak_memory_bytes > 1_000_000
    assert entry.core_s > 0
    assert set(entry.inputs) == {"raw"}
    written = json.loads((tmp_path / "ws" / "runs" / "one" / "ingest.json").read_text())
    assert written["status"] == "done"


def test_a_final_error_is_not_worked_on_again_in_the_same_run(tmp_path: Path, raw: Path) -> None:
    """Kubeflow retries a failed task: bad data is refused again without the work."""
    done = []

    def step(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        done.append(config)
        if config.factor == 2:
            raise ValidationFailed("three rows have no label", hint="fill them")
        raise SourceError("the database does not answer")

    for _ in range(3):
        with pytest.raises(SystemExit) as stop:
            do(step, tmp_path, raw, "one")
        assert str(stop.value.code) == "three rows have no label\n  try: fill them"
    assert len(done) == 1
    with pytest.raises(SystemExit):
        do(step, tmp_path, raw, "two")  # another run tries again
    assert len(done) == 2
    (raw / "number.txt").write_text("5")
    seal(raw)
    with pytest.raises(SystemExit):
        do(step, tmp_path, raw, "one")  # and so does a run with other data
    assert len(done) == 3
    for _ in range(2):
        with pytest.raises(SystemExit):
            do(step, tmp_path, raw, "one", Config(factor=3))  # an error that is not final is retried
    assert len(done) == 5


def test_a_clock_that_is_set_back_shows_no_negative_time(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(hours))

    def step(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        progress.phase("counting")
        for each in range(1, 4):
            progress.update(each, 3)
        return Work().step(raw=raw, output=output, config=config, progress=progress)

    entry = do(step, tmp_path, raw, "one", preload=("json",))
    assert entry.finished is not None
    assert 0 <= entry.seconds < 60
    assert 0 <= entry.work_s < 60
    assert 0 <= entry.import_s < 60
    progress_now = json.loads((tmp_path / "ws" / "runs" / "one" / "ingest.progress").read_text())
    assert (progress_now["done"], progress_now["remaining_s"]) == (3, 0)
    assert 0 < progress_now["rate"] < 1e9


def test_a_full_disk_is_one_message_and_partial_outputs_are_removed(tmp_path: Path, raw: Path) -> None:
    """Here a limit on the size of files."""

    def step(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        output.mkdir(parents=True)
        (output / "large.bin").write_bytes(bytes(2_000_000))
        return {}

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(SystemExit) as stop:
            do(step, tmp_path, raw, "one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines = str(stop.value.code).splitlines()
    assert lines[0] == "the disk is full"
    assert "File too large" in lines[2]
    assert " MB free" in lines[2]
    assert lines[3].startswith(f"  where: {tmp_path}")
    assert lines[4].startswith("  try: free some space")
    run = tmp_path / "ws" / "runs" / "one"
    assert not (run / "out" / "output").exists()
    assert not (run / ledger.RESERVE_FILE).exists()
    assert ledger.read_entries(run)["ingest"].error == stop.value.code
    assert do(step, tmp_path, raw, "one").status == "done"


@pytest.mark.parametrize("where", ["cache", "runs"])
def test_a_full_disk_while_caching_or_restoring_loses_nothing(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    work = Work()
    if where == "runs":
        do(work.step, tmp_path, raw, "one")

    def full(source: Any, target: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(SystemExit, match="the disk is full"):
            do(work.step, tmp_path, raw, "two")
    assert not list((tmp_path / "ws" / "cache" / "ingest").glob(".*"))
    after = do(work.step, tmp_path, raw, "three")
    # an entry survives: a full disk does not make it damaged
    assert (after.status, work.done) == (("reused", 1) if where == "runs" else ("done", 2))


def test_a_file_system_without_hard_links_holds_copies(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    work = Work()
    do(work.step, tmp_path, raw, "one")
    again = do(work.step, tmp_path, raw, "two")
    assert (again.status, work.done) == ("reused", 1)
    assert (Path(again.paths["output"]) / "number.txt").stat().st_nlink == 1


@pytest.mark.parametrize(
    ("wrong", "right"), [("", "{"), ("42", "43"), ('"result"', '"resalt"'), ('"run"', '"ran"'), (None, "null")]
)
def test_a_changed_word_of_an_entry_is_detected(tmp_path: Path, raw: Path, wrong: str | None, right: str) -> None:
    work = Work()
    do(work.step, tmp_path, raw, "one")
    path = next((tmp_path / "ws" / "cache" / "ingest").glob("*/entry.json"))
    path.write_text(right if wrong is None else path.read_text().replace(wrong, right, 1))
    (path.parents[1] / "latest.json").write_text("5")
    entry = do(work.step, tmp_path, raw, "two")
    assert (entry.status, entry.result, work.done) == ("done", {"value": 42}, 2)
    assert do(work.step, tmp_path, raw, "three").status == "reused"


def test_partial_entries_of_killed_runs_are_removed_after_a_day(tmp_path: Path, raw: Path) -> None:
    store = tmp_path / "ws" / "cache" / "ingest"
    old, new = store / ".a.b", store / ".c.d"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 90_000,) * 2)
    do(Work().step, tmp_path, raw, "one")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_missing_permission_is_one_message(tmp_path: Path, raw: Path) -> None:
    def step(*, raw: Path, output: Path, config: Config, progress: Progress) -> dict[str, Any]:
        raise PermissionError(errno.EACCES, "Permission denied", "/its/folder/a.parquet")

    with pytest.raises(SystemExit) as stop:
        do(step, tmp_path, raw, "one")
    assert str(stop.value.code).splitlines() == [
        "a file may not be read or written", "  expected: permission for the user that runs ingest",
        "  found: Permission denied", "  where: /its/folder/a.parquet",
        "  try: grant the permission, or use a --workspace on another disk",
    ]  # fmt: skip
