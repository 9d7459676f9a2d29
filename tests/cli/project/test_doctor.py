"""`rankline doctor`: a healthy workspace passes, and each check is seen to fail."""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.project.checks import gpu, libraries, machine, model_registry, stores, workspace
from cli.project.checks.model import Check, CheckContext, Finding
from cli.project.checks.run import run_checks
from pipelines.recipes import named
from pipelines.schedules.store import ScheduleStore
from rankline.io import storage
from rankline.io.files import write_json
from tests.cli.command import rankline
from tests.cli.in_process import refused
from tests.conftest import SmokeRun
from tests.servers.postgres import DATABASE, Postgres
from tests.servers.redis import Redis
from tests.servers.s3 import Bucket


def context(folder: Path, *settings: str, recipe: str = "smoke", port: int = 0) -> CheckContext:
    return CheckContext(folder, named(recipe, settings), port)


def findings_of(check: Check, context: CheckContext) -> dict[str, Finding]:
    """The findings of a check by their names; those that are not ok have to say what to do."""
    findings = {each.check: each for each in check(context)}
    assert all(each.hint for each in findings.values() if each.status != "ok"), findings
    return findings


@pytest.fixture
def copy(smoke: SmokeRun, tmp_path: Path) -> Path:
    return smoke.copy(tmp_path / "workspace")


@pytest.mark.integration
def test_a_healthy_workspace_passes(smoke: SmokeRun) -> None:
    done = CliRunner().invoke(app, ["doctor", "-r", "smoke", "-w", str(smoke.workspace), "--port", "0", "--json"])
    payload = json.loads(done.stdout)
    assert done.exit_code == 0, done.stdout
    assert [each for each in payload["findings"] if each["status"] == "fail"] == []
    checked = {each["check"] for each in payload["findings"]}
    assert {"processor", "memory", "disk", "file system", "clock", "port", "python", "lock", "torch"} <= checked
    assert {"history", "champion.json", "champion", "features ranking_v1", "MLflow", "runs", "cache"} <= checked
    assert {each["subject"] for each in payload["findings"]} == {"machine", "libraries", "gpu", "stores", "workspace"}


def test_it_changes_nothing(copy: Path) -> None:
    def files() -> dict[str, tuple[int, float]]:
        return {
            str(path.relative_to(copy)): (path.stat().st_size, path.stat().st_mtime)
            for path in copy.rglob("*")
            if path.is_file()
        }

    before = files()
    for subject in (machine, stores, workspace):
        for check in subject.CHECKS:
            list(check(context(copy)))
    assert files() == before


def test_a_workspace_need_not_exist_yet(tmp_path: Path) -> None:
    place = str(tmp_path / "new" / "one")
    done = CliRunner().invoke(app, ["doctor", "-r", "smoke", "-w", place, "--port", "0"])
    assert done.exit_code == 0, done.stdout
    assert f"none yet at {tmp_path / 'new' / 'one'}" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("0 failing")
    assert not (tmp_path / "new").exists()


def test_a_workspace_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = findings_of(workspace.workspace, context(tmp_path / "file"))["workspace"]
    assert (finding.status, finding.found) == ("fail", f"{tmp_path / 'file'} is a file, not a folder")


# -- machine -----------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A small file system that is full."""
    folder = tmp_path / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        with pytest.raises(OSError, match="No space"):
            (folder / "fill").write_bytes(b"x" * 1_000_000)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(full: Path) -> None:
    assert findings_of(machine.disk, context(full))["disk"].status == "fail"
    finding = findings_of(machine.file_system, context(full))["file system"]
    assert (finding.status, finding.found) == ("fail", f"a file cannot be written in {full}: No space left on device")
    assert [path.name for path in full.iterdir()] == ["fill"]


def test_little_disk_space_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMORY_WANTED", "DISK_WANTED"):
        monkeypatch.setattr(machine, name, 1e18)
    assert findings_of(machine.memory, context(tmp_path))["memory"].status == "warn"
    assert findings_of(machine.disk, context(tmp_path))["disk"].status == "warn"
    monkeypatch.setattr(machine, "MEMORY_LEAST", 1e18)
    assert findings_of(machine.memory, context(tmp_path))["memory"].status == "fail"


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    finding = findings_of(machine.file_system, context(tmp_path))["file system"]
    assert (finding.status, "hard links" in finding.hint) == ("fail", True)
    assert list(tmp_path.iterdir()) == []


def test_a_processor_without_the_instructions_the_recipe_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_flags", lambda: {"sse4_2"})
    finding = findings_of(machine.processor, context(tmp_path))["processor"]
    assert finding.status == "ok"
    assert "no VNNI" in finding.found
    finding = findings_of(machine.processor, context(tmp_path, "finetune.precision=bf16"))["processor"]
    assert (finding.status, finding.hint) == ("warn", "set finetune.precision=fp32 or auto")


def test_files_and_events_from_the_future(copy: Path) -> None:
    assert findings_of(machine.clock, context(copy))["clock"].status == "ok"
    event = json.loads((copy / "repository" / "events" / "3.json").read_text())
    write_json(copy / "repository" / "events" / "4.json", {**event, "n": 4, "at": "2999-01-01T00:00:00+00:00"})
    finding = findings_of(machine.clock, context(copy))["clock"]
    assert finding.status == "fail"
    assert "event 4 of the model registry" in finding.found
    (copy / "repository" / "events" / "4.json").unlink()
    late = next(copy.glob("runs/*/summary.json"))
    os.utime(late, (time.time() + 7200,) * 2)
    assert "summary.json by 7" in findings_of(machine.clock, context(copy))["clock"].found


def test_a_schedule_whose_fire_times_were_handled_ahead_of_the_clock(tmp_path: Path) -> None:
    store, now = ScheduleStore(tmp_path), datetime.now(UTC)
    for name in ("good", "ahead"):
        store.create({"name": name, "recipe": "smoke", "cron": "0 0 3 * * *"}, now=now)
    assert findings_of(workspace.schedules, context(tmp_path)) == {}
    store.firings("ahead").mark_handled(now + timedelta(days=3650))
    (finding,) = findings_of(workspace.schedules, context(tmp_path)).values()
    assert (finding.check, finding.status) == ("schedule ahead", "warn")
    assert "count as handled" in finding.found


def test_a_clock_that_disagrees_with_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert findings_of(machine.file_system, context(tmp_path))["clock"].status == "fail"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        finding = findings_of(machine.port, context(tmp_path, port=number))["port"]
        assert finding.status == "warn"
        assert "is not available" in finding.found
    assert findings_of(machine.port, context(tmp_path, port=number))["port"].status == "ok"


def test_a_port_where_our_own_server_answers(tmp_path: Path) -> None:
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"features": {"state": "ready"}}')

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        finding = findings_of(machine.port, context(tmp_path, port=server.server_port))["port"]
        server.shutdown()
    assert (finding.status, "a Rankline server answers there" in finding.found) == ("ok", True)


# -- libraries ---------------------------------------------------------------------------------------------


def pretend(folder: Path, name: str, version: str, *lines: str) -> None:
    """Put the record of an installed library into a folder."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
    (info / "METADATA").write_text("\n".join(metadata) + "\n")


EXTRAS = [f"Provides-Extra: {extra}" for extra in ("data", "serve", "dev")]


def test_a_library_of_the_wrong_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "onnx", "0.0.1")
    monkeypatch.syspath_prepend(tmp_path)
    findings = findings_of(libraries.requirements, context(tmp_path))
    assert findings["rankline"].status == findings["rankline[data]"].status == "ok"
    assert findings["rankline[train]"].status == "fail"
    assert findings["rankline[train]"].found.startswith("onnx 0.0.1 (required: ==1.")
    assert "onnx 0.0.1 (locked: 1." in findings_of(libraries.lock, context(tmp_path))["lock"].found


@pytest.mark.integration
def test_doctor_ends_with_one_when_something_fails(tmp_path: Path) -> None:
    pretend(tmp_path / "path", "onnxruntime", "1.31.1")
    path = os.pathsep.join([str(tmp_path / "path"), os.environ.get("PYTHONPATH", "")])
    done = rankline("doctor", "-r", "smoke", "-w", tmp_path / "w", "--json", PYTHONPATH=path)
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["status"] == "fail"
    (wrong,) = (each for each in result["findings"] if each["status"] == "fail")
    assert wrong["check"] == "onnxruntime"
    assert "share one folder" in wrong["found"]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in wrong["hint"]


def test_the_imported_onnxruntime_is_not_the_recorded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "onnxruntime_gpu", "1.0.0")
    monkeypatch.syspath_prepend(tmp_path)
    finding = findings_of(libraries.onnxruntime, context(tmp_path))["onnxruntime"]
    assert finding.status == "fail"
    assert "1.0.0 is recorded" in finding.found


def test_a_wrong_python_and_libraries_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = (
        "numpy",
        "no-such-base",
        "no-such-one; extra == 'data'",
        "numpy; extra == 'data'",
        "gone; extra == 'serve'",
    )
    pretend(tmp_path, "rankline", "9", "Requires-Python: <3", *EXTRAS, *(f"Requires-Dist: {each}" for each in needs))
    monkeypatch.syspath_prepend(tmp_path)
    assert findings_of(libraries.python, context(tmp_path))["python"].status == "fail"
    findings = findings_of(libraries.requirements, context(tmp_path))
    assert (findings["rankline"].status, findings["rankline"].found) == ("fail", "not installed: no-such-base")
    assert (findings["rankline[data]"].status, findings["rankline[data]"].found) == (
        "warn",
        "not installed: no-such-one",
    )
    assert findings["rankline[serve]"].found == "not installed: its steps cannot run here"


# -- GPU ---------------------------------------------------------------------------------------------------


def no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")


def test_a_gpu_that_is_asked_for_and_not_there(tmp_path: Path) -> None:
    no_gpu()
    finding = findings_of(gpu.gpu, context(tmp_path, "distill.device=cuda"))["torch"]
    assert finding.status == "fail"
    assert "distill ask for cuda" in finding.found


def test_a_gpu_that_only_the_driver_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu()
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: Big One (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    findings = findings_of(gpu.gpu, context(tmp_path))
    assert {each.status for each in findings.values()} == {"warn"}
    assert "the driver has GPU 0: Big One" in findings["torch"].found
    assert "runs on CPUExecutionProvider" in findings["onnxruntime's device"].found


# -- stores ------------------------------------------------------------------------------------------------


def test_a_history_with_a_missing_event(copy: Path) -> None:
    (copy / "repository" / "events" / "2.json").unlink()
    finding = findings_of(stores.repository, context(copy))["history"]
    assert finding.status == "fail"
    assert "events/2.json" in finding.found


@pytest.mark.parametrize("content", [None, "{", '{"model_id": "another", "event": 3}'])
def test_a_champion_file_that_disagrees_with_the_events(copy: Path, content: str | None) -> None:
    path = copy / "repository" / "champion.json"
    path.unlink()
    if content:
        path.write_text(content)
    findings = findings_of(stores.repository, context(copy))
    assert findings["champion.json"].status == "warn"
    assert findings["champion"].status == "ok"
    assert CliRunner().invoke(app, ["champion", "-w", str(copy)]).exit_code == 0  # what the hint says
    assert findings_of(stores.repository, context(copy))["champion.json"].status == "ok"


def test_a_champion_that_is_gone_or_damaged(copy: Path, smoke: SmokeRun) -> None:
    bundle = copy / "repository" / "bundles" / smoke.summary["model_id"]
    weights = bundle / "scorer.onnx"
    whole = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    finding = findings_of(stores.repository, context(copy))["champion"]
    assert finding.status == "fail"
    assert "scorer.onnx does not match its digest" in finding.found
    shutil.rmtree(bundle)
    finding = findings_of(stores.repository, context(copy))["champion"]
    assert finding.status == "fail"
    assert "is not in the registry" in finding.found


def test_a_recipe_of_another_catalogue(smoke: SmokeRun) -> None:
    finding = findings_of(stores.repository, context(smoke.workspace, recipe="movielens"))["catalogue"]
    assert (finding.status, finding.found) == ("warn", "the workspace ranks 'smoke', recipe movielens 'movielens'")


def test_a_repository_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()  # without a folder of events nothing can be put into it
    finding = findings_of(stores.repository, context(tmp_path))["repository writable"]
    assert (finding.status, finding.found) == ("fail", f"{tmp_path}/repository/events: no such bucket or folder")


def test_a_repository_that_the_recipe_keeps_elsewhere(copy: Path, smoke: SmokeRun, tmp_path: Path) -> None:
    shutil.move(copy / "repository", tmp_path / "shared")
    asked = f"storage.repository={tmp_path / 'shared'}"
    findings = findings_of(stores.repository, context(copy, asked))
    assert findings["history"].found.startswith(f"{tmp_path / 'shared'}: ")
    assert findings["champion"].found.startswith(smoke.summary["model_id"])
    assert {each.status for each in findings.values()} == {"ok"}
    assert findings_of(stores.repository, context(copy))["model registry"].found.startswith("none yet")
    findings = findings_of(stores.repository, context(copy, f"{asked}-gone"))
    assert findings["model registry"].found == f"none yet at {tmp_path / 'shared'}-gone; the first run creates it"


@pytest.mark.integration
def test_a_repository_in_a_bucket(
    copy: Path, smoke: SmokeRun, bucket: Bucket, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store, place = s3fs.S3FileSystem(endpoint_url=bucket.environment()["AWS_ENDPOINT_URL"]), f"{url}/models"
    examined = context(copy, f"storage.repository={place}", f"storage.artifacts={url}/work")
    findings = findings_of(stores.repository, examined)
    assert findings["history"].found == f"{place}: no event yet"
    assert {each.status for each in findings.values()} == {"ok"}
    store.put(f"{copy}/repository/", f"{place}/", recursive=True)
    before = store.find(url, detail=True)
    findings = findings_of(stores.repository, examined)
    assert {name: each.status for name, each in findings.items()} == {
        "history": "ok", "champion.json": "ok", "champion": "ok", "repository writable": "ok",
    }  # fmt: skip
    assert findings["champion"].found.startswith(smoke.summary["model_id"])
    assert findings["repository writable"].found == "events can be added, each once"
    assert findings_of(machine.clock, examined)["clock"].status == "ok"
    assert list(findings_of(stores.servers, examined)) == ["storage.artifacts"]  # the repository has its own check
    sizes = {name: (each["size"], each["ETag"]) for name, each in before.items()}
    assert sizes == {name: (each["size"], each["ETag"]) for name, each in store.find(url, detail=True).items()}
    store.pipe(f"{place}/champion.json", b'{"model_id": "another"}')
    weights = f"{place}/bundles/{smoke.summary['model_id']}/scorer.onnx"
    store.pipe(weights, store.cat(weights)[:-1] + b"?")
    findings = findings_of(stores.repository, examined)
    assert (findings["champion.json"].status, findings["champion"].status) == ("warn", "fail")
    assert "scorer.onnx does not match its digest" in findings["champion"].found
    store.rm(f"{place}/events/2.json")
    assert "events/2.json" in findings_of(stores.repository, examined)["history"].found
    gone = findings_of(stores.repository, context(copy, "storage.repository=s3://no-such-bucket/models"))
    assert gone["repository writable"].status == "fail"
    assert "no such bucket" in gone["repository writable"].found
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    assert findings_of(stores.repository, examined)["history"].status == "fail"


class Unconditional:
    """A store that ignores the condition of a write."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def pipe_file(self, path: str, content: bytes, mode: str = "overwrite") -> None:
        self.inner.pipe_file(path, content)


def test_a_bucket_that_replaces_an_existing_file(copy: Path) -> None:
    """A store that ignores the condition of a write. No real one was available to test with."""
    from rankline.registry.model_registry import ModelRegistry

    models = ModelRegistry(f"memory://{copy}/models")
    assert model_registry._writable(models).status == "ok"
    models.fs = Unconditional(models.fs)
    finding = model_registry._writable(models)
    assert (finding.status, "could both promote" in finding.hint) == ("fail", True)
    assert models.fs.find(models.root) == []


def test_a_bucket_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="no client for S3 here: `pip install 's3fs'`")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    finding = findings_of(stores.repository, context(tmp_path, "storage.repository=s3://shop/models"))
    assert (list(finding), finding["history"].status) == (["history"], "fail")


def test_a_feature_store_that_is_broken(copy: Path) -> None:
    online = copy / "online" / "ranking_v1"
    check = lambda: findings_of(stores.feast, context(copy))  # noqa: E731
    assert check()["features ranking_v1"].status == "ok"
    (online / "watermark.json").unlink()
    assert check()["features ranking_v1"].status == "warn"
    (online / "online.db").write_bytes(b"not a database at all" * 100)
    finding = check()["features ranking_v1"]
    assert (finding.status, "the online store does not answer" in finding.found) == ("fail", True)
    (online / "registry.db").write_bytes(b"not a registry")
    finding = check()["features ranking_v1"]
    assert (finding.status, "the registry cannot be read" in finding.found) == ("fail", True)


def test_a_feature_store_without_the_service(copy: Path) -> None:
    (copy / "online" / "ranking_v1").rename(copy / "online" / "ranking_v0")
    finding = findings_of(stores.feast, context(copy))["features ranking_v0"]
    assert (finding.status, finding.found) == ("fail", "the registry has no service ranking_v0")


def test_a_registry_that_is_missing_is_not_created(
    copy: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    check = lambda: findings_of(stores.feast, context(copy))["features ranking_v1"]  # noqa: E731
    assert check().status == "ok"
    registry = copy / "online" / "ranking_v1" / "registry.db"
    registry.unlink()
    assert (check().status, "there is no registry.db" in check().found) == ("fail", True)
    assert not registry.exists()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.integration
def test_an_mlflow_that_does_not_answer(copy: Path) -> None:
    finding = findings_of(stores.mlflow, context(copy, "promote.tracking_uri=http://127.0.0.1:1"))["MLflow"]
    assert finding.status == "warn"
    (copy / "mlflow.db").write_bytes(b"not a database at all" * 100)
    finding = findings_of(stores.mlflow, context(copy))["MLflow"]
    assert finding.status == "warn"
    assert "file is not a database" in finding.found


def test_the_tables_of_mlflow_are_not_created(
    postgres: Postgres, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for address in (postgres.sqlalchemy_url, f"sqlite:///{tmp_path}/none.db"):
        examined = context(tmp_path, f"promote.tracking_uri={address}")
        finding = findings_of(stores.mlflow, examined)["MLflow"]
        assert (finding.status, "the first promotion creates" in finding.found) == ("ok", True)
    assert tables_of(postgres) == []
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_database_with_the_tables_of_another_mlflow(copy: Path) -> None:
    assert findings_of(stores.mlflow, context(copy))["MLflow"].status == "ok"
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as db, db:
        db.execute("UPDATE alembic_version SET version_num = 'older'")
        db.execute("DROP TABLE webhooks")  # MLflow's client would migrate it, since a table is missing
    finding = findings_of(stores.mlflow, context(copy, f"promote.tracking_uri=sqlite:///{copy}/mlflow.db"))["MLflow"]
    assert (finding.status, "revision older" in finding.found) == ("warn", True)
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'webhooks'").fetchall() == []


def tables_of(postgres: Postgres) -> list[str]:
    import sqlalchemy

    return sqlalchemy.inspect(sqlalchemy.create_engine(postgres.sqlalchemy_url)).get_table_names()


def test_the_tables_of_a_feature_registry_are_not_created(copy: Path, postgres: Postgres) -> None:
    import yaml

    from feature_repo.backends import registry
    from rankline.io.storage import FeatureStoreConfig

    path = copy / "online" / "ranking_v1" / "feature_store.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["registry"] = registry(FeatureStoreConfig(registry="postgres", postgres=postgres.address))
    path.unlink()
    path.write_text(yaml.safe_dump(settings))
    finding = findings_of(stores.feast, context(copy))["features ranking_v1"]
    assert (finding.status, "missing tables" in finding.found) == ("fail", True)
    assert tables_of(postgres) == []


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("postgresql+psycopg://me@127.0.0.1:1/events", "Postgres"),
        ("redis://127.0.0.1:1/0", "Redis"),
        ("http://127.0.0.1:1", "server"),
        ("nosuch://x", ""),
    ],
)
def test_a_server_that_the_recipe_names(tmp_path: Path, address: str, kind: str) -> None:
    findings = findings_of(stores.servers, context(tmp_path, f"ingest.source={address}"))
    assert list(findings) == (["ingest.source"] if kind else [])
    if kind:
        assert findings["ingest.source"].status == "fail"
        assert findings["ingest.source"].found.startswith(f"{kind} {stores.redacted(address)}")


def test_a_redis_that_answers_and_one_that_refuses_the_password(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = "storage.features.redis"
    examined = context(tmp_path, "storage.features.online=redis", f"{setting}=127.0.0.1:{redis.port},db=0")
    finding = findings_of(stores.servers, examined)[setting]
    assert finding.found.startswith(f"Redis redis://127.0.0.1:{redis.port}: version ")
    monkeypatch.setenv("REDIS_PASSWORD", "wrong")
    finding = findings_of(stores.servers, examined)[setting]
    assert (finding.status, "wrong" in finding.found) == ("fail", False)
    assert "AuthenticationError" in finding.found


def test_passwords_are_masked() -> None:
    assert stores.redacted("redis://:secret@127.0.0.1:1/0") == "redis://:…@127.0.0.1:1/0"


def test_a_postgres_that_answers_and_a_database_that_is_not_there(postgres: Postgres, tmp_path: Path) -> None:
    there = f"ingest.source={postgres.sqlalchemy_url}"
    finding = findings_of(stores.servers, context(tmp_path, there))["ingest.source"]
    assert finding.status == "ok"
    assert ": version " in finding.found
    gone = findings_of(stores.servers, context(tmp_path, there + "_gone"))["ingest.source"]
    assert gone.status == "fail"
    assert f'database "{DATABASE}_gone" does not exist' in gone.found


def test_the_probe_of_a_bucket_is_removed() -> None:
    import fsspec

    assert stores._shared_bucket("memory://untouched") == "writable, each file once"
    assert stores._written_bucket("memory://untouched") == "writable"
    assert fsspec.filesystem("memory").find("/untouched") == []
    with pytest.raises(OSError, match=r"denied|Not a directory|No such"):
        stores._written_bucket("file:///dev/null/models")


@pytest.mark.parametrize("setting", ["storage.artifacts", "storage.checkpoints", "storage.workspace"])
def test_a_bucket_of_several_runs_that_replaces_an_existing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """A store that ignores the condition of a write. No real one was available to test with."""
    import fsspec

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(storage, "open_filesystem", lambda url: (Unconditional(memory), "/shop/work"))
    finding = findings_of(stores.servers, context(tmp_path, f"{setting}=s3://shop/work"))[setting]
    assert (finding.status, "second write replaces" in finding.found) == ("fail", True)
    assert memory.find("/shop") == []


def test_a_bucket_that_is_only_read_is_not_written_to(url: str, tmp_path: Path) -> None:
    from rankline.io.storage import open_filesystem

    fs, root = open_filesystem(url)
    fs.pipe_file(f"{root}/log/events.csv", b"a")
    before = fs.info(f"{root}/log/events.csv")

    def source(address: str) -> Finding:
        return findings_of(stores.servers, context(tmp_path, f"ingest.source={address}"))["ingest.source"]

    assert source(f"{url}/log").found.endswith(": readable")
    assert source(f"{url}/log/*.csv").status == "ok"
    assert source(f"{url}/none").status == "fail"
    assert [fs.info(path) for path in fs.find(f"{root}/log")] == [before]
    shared = context(tmp_path, f"storage.artifacts={url}/work", f"storage.checkpoints={url}/checkpoints")
    assert {each.found.rpartition(": ")[2] for each in findings_of(stores.servers, shared).values()} == {
        "writable, each file once"
    }


# -- workspace ---------------------------------------------------------------------------------------------


def test_unfinished_runs(copy: Path) -> None:
    assert findings_of(workspace.runs, context(copy))["runs"].found == "1, none unfinished"
    killed = copy / "runs" / "20200101-000000-smoke"
    write_json(killed / "recipe.json", {})
    finding = findings_of(workspace.runs, context(copy))["runs"]
    assert (finding.status, finding.found) == ("ok", "2, 1 running")
    os.utime(killed / "recipe.json", (0, 0))
    finding = findings_of(workspace.runs, context(copy))["runs"]
    assert (finding.status, finding.found) == ("warn", f"1 of 2 unfinished: {killed.name}")
    write_json(killed / "summary.json", {})
    (killed / "summary.json").write_text("{")
    assert findings_of(workspace.runs, context(copy))["runs"].status == "warn"


def test_a_cache_that_is_damaged_or_large(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings_of(workspace.cache, context(copy))["cache"].status == "ok"
    monkeypatch.setattr(workspace, "_disk_usage", lambda _: 10**18)
    assert "are free" in findings_of(workspace.cache, context(copy))["cache"].found
    next(copy.glob("cache/ingest/*/raw/items.parquet")).unlink()
    finding = findings_of(workspace.cache, context(copy))["cache"]
    assert finding.status == "warn"
    assert "1 damaged: ingest/" in finding.found
    next(copy.glob("cache/validate/*/entry.json")).write_text("{")
    assert "2 damaged" in findings_of(workspace.cache, context(copy))["cache"].found


def test_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    assert workspace._disk_usage(tmp_path.iterdir()) == 1000


def test_leftovers(copy: Path) -> None:
    assert findings_of(workspace.leftovers, context(copy)) == {}
    left = copy / "repository" / "bundles" / ".abc.def"
    left.mkdir()
    assert findings_of(workspace.leftovers, context(copy)) == {}  # another process may be writing it
    os.utime(left, (0, 0))
    finding = findings_of(workspace.leftovers, context(copy))["leftovers"]
    assert (finding.status, finding.hint.startswith(f"rm -r {left}")) == ("warn", True)


def test_fetched_data_that_is_damaged(tmp_path: Path) -> None:
    assert findings_of(workspace.assets, context(tmp_path, recipe="movielens"))["material movielens"].status == "ok"
    (tmp_path / "material" / "ml-100k").mkdir(parents=True)
    finding = findings_of(workspace.assets, context(tmp_path, recipe="movielens"))["material movielens"]
    assert finding.status == "fail"
    assert "rankline fetch movielens" in finding.hint


# -- running the checks ------------------------------------------------------------------------------------


def test_a_check_that_raises_is_a_failure_and_the_others_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: CheckContext) -> Iterator[Finding]:
        raise RuntimeError("boom")

    monkeypatch.setattr(machine, "CHECKS", (breaks, machine.port))
    monkeypatch.setattr(gpu, "CHECKS", ())
    findings = [finding for subject, finding in run_checks(context(tmp_path)) if subject == "machine"]
    assert [(each.check, each.status) for each in findings] == [("breaks", "fail"), ("port", "ok")]
    assert findings[0].found == "RuntimeError: boom"


def test_an_unknown_recipe_is_a_usage_error(tmp_path: Path) -> None:
    assert "no recipe named 'smoky'" in refused("doctor", "-r", "smoky", "-w", tmp_path, code=2)
