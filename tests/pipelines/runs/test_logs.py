"""The logs of runs: of this version, of earlier ones, and of runs that go on."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from pipelines.runs.logs import LogLine, read_kubeflow_log, read_logs

EARLIER = """
10:00:00.000 - INFO - Running pipeline: \x1b[95m'train'\x1b[0m
----
10:00:01.000 - INFO - Executing task \x1b[96m'look'\x1b[0m
10:00:01.100 - INFO - Streamed logs:

    [KFP Executor 2026-01-01 10:00:02,000 INFO]: Looking for component `look`
    no rows
10:00:03.000 - INFO - Task \x1b[96m'look'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
the end
"""


def ended() -> bool:
    return False


def test_a_run_of_an_earlier_version_is_shown_with_kubeflows_lines(tmp_path: Path) -> None:
    (tmp_path / "kubeflow.log").write_text(EARLIER)
    (tmp_path / "look.traceback.txt").write_text("Traceback\n")
    lines = list(read_logs(tmp_path, is_running=ended))
    of_step = [each.line for each in lines if each.step == "resolve_inputs"]
    assert of_step[0].endswith("Executing task 'look'")
    assert "no rows" in of_step
    assert of_step.count("Traceback") == 1
    assert lines[-1] == LogLine("", "the end")
    assert not any("\x1b" in each.line for each in lines)


def test_each_step_has_its_lines_and_then_its_stack_trace(tmp_path: Path) -> None:
    (tmp_path / "kubeflow.log").write_text(EARLIER)
    (tmp_path / "ingest.log").write_text("a\nb")
    (tmp_path / "validate.log").write_text("c\n")
    (tmp_path / "ingest.traceback.txt").write_text("Traceback\n")
    expected = [("ingest", "a"), ("ingest", "b"), ("ingest", "Traceback"), ("validate", "c")]
    assert [(each.step, each.line) for each in read_logs(tmp_path, is_running=ended)] == expected


def test_a_failure_that_no_step_explains_is_shown_with_kubeflows_lines(tmp_path: Path) -> None:
    (tmp_path / "ingest.log").write_text("a\n")
    (tmp_path / "kubeflow.log").write_text(EARLIER)
    (tmp_path / "summary.json").write_text(json.dumps({"outcome": "incomplete", "failed_step": "", "error": ""}))
    lines = list(read_logs(tmp_path, is_running=ended))
    assert lines[0] == LogLine("ingest", "a")
    assert lines[-1] == LogLine("", "the end")


def test_following_shows_whole_lines_as_they_come(tmp_path: Path) -> None:
    log, running = tmp_path / "ingest.log", threading.Event()
    running.set()
    lines: list[str] = []
    reader = threading.Thread(
        target=lambda: lines.extend(each.line for each in read_logs(tmp_path, is_running=running.is_set, poll_s=0.01))
    )
    reader.start()
    for text in ("a\nb", "c\n", "d"):
        with log.open("a") as stream:
            stream.write(text)
        time.sleep(0.05)
    running.clear()
    reader.join(timeout=10)
    assert lines == ["a", "bc", "d"]


def test_everything_is_kubeflows_log(tmp_path: Path) -> None:
    (tmp_path / "kubeflow.log").write_text("10:00:01.000 - INFO - Executing task 'ingest'\n    a\n")
    (tmp_path / "ingest.log").write_text("a\n")
    assert [each.line for each in read_kubeflow_log(tmp_path, is_running=ended) if each.step] == [
        "10:00:01.000 - INFO - Executing task 'ingest'", "a",
    ]  # fmt: skip
