"""The files of a workspace in a bucket, copied to the folder of a process and back."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError, StorageError, ValidationFailed
from rankline.io.files import write_json
from rankline.io.storage import StorageConfig, open_filesystem
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.ledger import read_entries
from rankline.runtime.progress import Progress
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "place") if request.param == "folder" else str(request.getfixturevalue("url"))


def files(folder: Path) -> dict[str, str]:
    """Name -> content of the visible files."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


@pytest.mark.integration
def test_what_one_machine_writes_another_reads(place: str, tmp_path: Path) -> None:
    here, there = BucketWorkspace(place, tmp_path / "here"), BucketWorkspace(place, tmp_path / "there")
    for name in ("runs/r1/ingest.json", "runs/r1/ingest.log", "runs/r1/artifacts/raw/x", "runs/r1/.reserve"):
        write_json(tmp_path / "here" / name, "first")
    here.upload("runs/r1", deep=False)
    there.download("runs", suffixes=(".json",))
    assert files(tmp_path / "there") == {"runs/r1/ingest.json": '"first"\n'}
    there.download("runs/r1/ingest.log")  # one file alone
    assert set(files(tmp_path / "there")) == {"runs/r1/ingest.json", "runs/r1/ingest.log"}
    write_json(tmp_path / "here" / "runs/r1/ingest.json", "other")  # of the same size
    write_json(tmp_path / "there" / "runs/r1/own.json", "own")
    (tmp_path / "here" / "runs/r1/ingest.log").unlink()
    here.upload("runs/r1", deep=False)
    # another process, later
    BucketWorkspace(place, tmp_path / "there").download("runs/r1")
    assert files(tmp_path / "there") == {"runs/r1/ingest.json": '"other"\n', "runs/r1/own.json": '"own"\n'}


def test_only_what_changed_is_copied(place: str, tmp_path: Path) -> None:
    here = BucketWorkspace(place, tmp_path / "here")
    write_json(tmp_path / "here" / "profiles" / "a.json", 1)
    here.upload("profiles")
    fs, root = open_filesystem(place)
    fs.pipe_file(f"{root}/profiles/a.json", b"2")
    here.upload("profiles")  # it has not changed here
    assert fs.cat_file(f"{root}/profiles/a.json") == b"2"
    there = BucketWorkspace(place, tmp_path / "there")
    there.download("profiles")
    copied = (tmp_path / "there" / "profiles" / "a.json").stat().st_ino
    BucketWorkspace(place, tmp_path / "there").download("profiles")
    assert (tmp_path / "there" / "profiles" / "a.json").stat().st_ino == copied
    there.upload("profiles")
    there.upload_missing("profiles")
    assert fs.cat_file(f"{root}/profiles/a.json") == b"2"


def test_a_run_is_seen_while_it_runs(place: str, tmp_path: Path) -> None:
    here, there = BucketWorkspace(place, tmp_path / "here"), BucketWorkspace(place, tmp_path / "there")
    write_json(tmp_path / "here" / "runs" / "r1" / "finetune.json", "running")
    with here.uploading("runs/r1", interval_s=0.1):
        there.download("runs")
        assert files(tmp_path / "there")["runs/r1/finetune.json"] == '"running"\n'
        (tmp_path / "here" / "runs" / "r1" / "finetune.progress").write_text("epoch 2")
        deadline = time.monotonic() + 20
        while "runs/r1/finetune.progress" not in files(tmp_path / "there"):
            assert time.monotonic() < deadline
            there.download("runs")


def test_an_attempt_in_another_pod_knows_how_the_last_one_failed(place: str, tmp_path: Path) -> None:
    attempts = []

    def refuse(*, config: FrozenModel, progress: Progress) -> None:
        attempts.append(1)
        os.write(1, b"looking at the data\n")  # beneath the capture of pytest
        raise ValidationFailed("there is no event", expected="some", found="none")

    for pod in ("first", "second"):
        run = RunContext(tmp_path / pod, "r1", StorageConfig(workspace=place))
        with pytest.raises(SystemExit, match="there is no event"):
            run_step(StepSpec("ingest", refuse, FrozenModel(), reuse=False), run)
    assert len(attempts) == 1
    BucketWorkspace(place, tmp_path / "reader").download("runs")
    folder = tmp_path / "reader" / "runs" / "r1"
    entry = read_entries(folder)["ingest"]
    assert (entry.status, entry.final, "there is no event" in entry.error) == ("failed", True, True)
    assert "looking at the data" in (folder / "ingest.log").read_text()


def test_of_runs_that_write_at_once_each_starts_from_the_other(place: str, tmp_path: Path) -> None:
    def count(machine: int) -> None:
        folder = tmp_path / str(machine)
        run = RunContext(folder, f"run-{machine}", StorageConfig(workspace=place))
        for _ in range(3):
            with run.writing("profiles", owner={"who": "validate", "run": run.run_id}):
                path = folder / "profiles" / "count.json"
                write_json(path, (json.loads(path.read_text()) if path.is_file() else 0) + 1)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(count, range(3)))
    fs, root = open_filesystem(place)
    assert json.loads(fs.cat_file(f"{root}/profiles/count.json")) == 9


def test_what_settings_name_below_the_workspace(tmp_path: Path) -> None:
    bucket = BucketWorkspace("s3://bucket/rankline", tmp_path)
    settings = {
        "source": f"{tmp_path}/material/shop",
        "tables": {"events": f"{tmp_path}/material/log/*.parquet", "items": "s3://other/items.parquet"},
        "columns": ["user", f"{tmp_path}-other/x"],
        "epochs": 3,
    }
    assert bucket.named_files(settings) == ["material/shop", "material/log"]


def test_a_name_that_leads_out_of_the_workspace_is_refused(url: str, tmp_path: Path) -> None:
    fs, root = open_filesystem(url)
    fs.pipe_file(f"{root}/runs/r1/a.json", b"1")
    bucket = BucketWorkspace(url, tmp_path / "here")
    with pytest.raises(IntegrityError, match="leads outside"):
        bucket._local_path("runs/../../a.json")


def test_a_bucket_that_is_not_there_is_named(url: str, tmp_path: Path) -> None:
    write_json(tmp_path / "material" / "a.json", 1)
    with pytest.raises(StorageError):
        BucketWorkspace("s3://no-such-bucket/rankline", tmp_path).upload("material")
