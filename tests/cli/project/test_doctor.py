"""`rankline doctor`: a healthy workspace is called so, and each thing it looks at is seen to be found wanting."""

from __future__ import annotations

import errno
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.project import checks
from cli.project.checks import Check, CheckContext, Finding, gpu, libraries, machine, stores, workspace
from cli.project.checks import repository as repository_checks
from pipelines.recipes import named
from rankline.runtime import ledger
from tests.cli.command import rankline, refused
from tests.conftest import SmokeRun
from tests.servers.postgres import DATABASE, Postgres
from tests.servers.redis import Redis
from tests.servers.s3 import Bucket


def context(folder: Path, *settings: str, recipe: str = "smoke", port: int = 0) -> CheckContext:
    return CheckContext(folder, named(recipe, settings), port)


def found(check: Check, who: CheckContext) -> dict[str, Finding]:
    """What a check says, by what it looked at; whatever is not well says what to do."""
    findings = {each.check: each for each in check(who)}
    assert all(each.hint for each in findings.values() if each.status != "ok"), findings
    return findings


@pytest.fixture
def copy(smoke: SmokeRun, tmp_path: Path) -> Path:
    return smoke.copy(tmp_path / "workspace")


def test_a_healthy_workspace_is_called_so(smoke: SmokeRun) -> None:
    done = CliRunner().invoke(app, ["doctor", "-r", "smoke", "-w", str(smoke.workspace), "--port", "0", "--json"])
    payload = json.loads(done.stdout)
    assert done.exit_code == 0, done.stdout
    assert [each for each in payload["findings"] if each["status"] == "fail"] == []
    looked_at = {each["check"] for each in payload["findings"]}
    assert {"processor", "memory", "disk", "file system", "clock", "port", "python", "lock", "torch"} <= looked_at
    assert {"history", "champion.json", "champion", "features ranking_v1", "MLflow", "runs", "cache"} <= looked_at
    assert {each["subject"] for each in payload["findings"]} == {"machine", "libraries", "gpu", "stores", "workspace"}


def test_it_changes_nothing(copy: Path) -> None:
    def seen() -> dict[str, tuple[int, float]]:
        return {
            str(path.relative_to(copy)): (path.stat().st_size, path.stat().st_mtime)
            for path in copy.rglob("*")
            if path.is_file()
        }

    before = seen()
    for subject in (machine, stores, workspace):
        for check in subject.CHECKS:
            list(check(context(copy)))
    assert seen() == before


def test_a_workspace_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    place = str(tmp_path / "new" / "one")
    done = CliRunner().invoke(app, ["doctor", "-r", "smoke", "-w", place, "--port", "0"])
    assert done.exit_code == 0, done.stdout
    assert f"none yet at {tmp_path / 'new' / 'one'}" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("0 failing")
    assert not (tmp_path / "new").exists()


def test_a_workspace_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = found(workspace.workspace, context(tmp_path / "file"))["workspace"]
    assert (finding.status, finding.found) == ("fail", f"{tmp_path / 'file'} is a file, and no folder")


# -- machine -----------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A small file system without any room."""
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
    assert found(machine.disk, context(full))["disk"].status == "fail"
    finding = found(machine.file_system, context(full))["file system"]
    assert (finding.status, finding.found) == ("fail", f"a file cannot be written in {full}: No space left on device")
    assert [path.name for path in full.iterdir()] == ["fill"]


def test_little_room_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMORY_WANTED", "DISK_WANTED"):
        monkeypatch.setattr(machine, name, 1e18)
    assert found(machine.memory, context(tmp_path))["memory"].status == "warn"
    assert found(machine.disk, context(tmp_path))["disk"].status == "warn"
    monkeypatch.setattr(machine, "MEMORY_LEAST", 1e18)
    assert found(machine.memory, context(tmp_path))["memory"].status == "fail"


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    finding = found(machine.file_system, context(tmp_path))["file system"]
    assert (finding.status, "hard links" in finding.hint) == ("fail", True)
    assert list(tmp_path.iterdir()) == []


def test_a_processor_that_lacks_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_cpu_flags", lambda: {"sse4_2"})
    finding = found(machine.processor, context(tmp_path))["processor"]
    assert finding.status == "ok"
    assert "no VNNI" in finding.found
    finding = found(machine.processor, context(tmp_path, "finetune.precision=bf16"))["processor"]
    assert (finding.status, finding.hint) == ("warn", "set finetune.precision=fp32 or auto")


def test_files_and_events_from_the_future(copy: Path) -> None:
    assert found(machine.clock, context(copy))["clock"].status == "ok"
    event = json.loads((copy / "repository" / "events" / "3.json").read_text())
    ledger.write_json(copy / "repository" / "events" / "4.json", {**event, "n": 4, "at": "2999-01-01T00:00:00+00:00"})
    finding = found(machine.clock, context(copy))["clock"]
    assert finding.status == "fail"
    assert "event 4 of the model repository" in finding.found
    (copy / "repository" / "events" / "4.json").unlink()
    late = next(copy.glob("runs/*/summary.json"))
    os.utime(late, (time.time() + 7200,) * 2)
    assert "summary.json by 7" in found(machine.clock, context(copy))["clock"].found


def test_a_clock_that_disagrees_with_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert found(machine.file_system, context(tmp_path))["clock"].status == "fail"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        finding = found(machine.port, context(tmp_path, port=number))["port"]
        assert finding.status == "warn"
        assert "cannot be had" in finding.found
    assert found(machine.port, context(tmp_path, port=number))["port"].status == "ok"


def test_a_port_where_our_own_server_answers(tmp_path: Path) -> None:
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"features": {"state": "ready"}}')

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = found(machine.port, context(tmp_path, port=server.server_port))["port"]
        server.shutdown()
    assert (told.status, "a Rankline server answers there" in told.found) == ("ok", True)


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
    told = found(libraries.requirements, context(tmp_path))
    assert told["rankline"].status == told["rankline[data]"].status == "ok"
    assert told["rankline[train]"].status == "fail"
    assert told["rankline[train]"].found.startswith("onnx 0.0.1 (asked for: ==1.")
    assert "onnx 0.0.1 (locked: 1." in found(libraries.lock, context(tmp_path))["lock"].found


def test_doctor_ends_with_one_when_something_fails(tmp_path: Path) -> None:
    pretend(tmp_path / "path", "onnxruntime", "1.31.1")
    path = os.pathsep.join([str(tmp_path / "path"), os.environ.get("PYTHONPATH", "")])
    done = rankline("doctor", "-r", "smoke", "-w", tmp_path / "w", "--json", PYTHONPATH=path)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["status"] == "fail"
    (wrong,) = (each for each in told["findings"] if each["status"] == "fail")
    assert wrong["check"] == "onnxruntime"
    assert "own one folder" in wrong["found"]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in wrong["hint"]


def test_another_onnxruntime_imports_than_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "onnxruntime_gpu", "1.0.0")
    monkeypatch.syspath_prepend(tmp_path)
    told = found(libraries.onnxruntime, context(tmp_path))["onnxruntime"]
    assert told.status == "fail"
    assert "1.0.0 is written down" in told.found


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
    assert found(libraries.python, context(tmp_path))["python"].status == "fail"
    told = found(libraries.requirements, context(tmp_path))
    assert (told["rankline"].status, told["rankline"].found) == ("fail", "not installed: no-such-base")
    assert (told["rankline[data]"].status, told["rankline[data]"].found) == ("warn", "not installed: no-such-one")
    assert told["rankline[serve]"].found == "not installed: its steps cannot run here"


# -- GPU ---------------------------------------------------------------------------------------------------


def no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")


def test_a_gpu_that_is_asked_for_and_not_there(tmp_path: Path) -> None:
    no_gpu()
    told = found(gpu.gpu, context(tmp_path, "distill.device=cuda"))["torch"]
    assert told.status == "fail"
    assert "distill ask for cuda" in told.found


def test_a_gpu_that_the_driver_has_and_nobody_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu()
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: Big One (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    told = found(gpu.gpu, context(tmp_path))
    assert {each.status for each in told.values()} == {"warn"}
    assert "the driver has GPU 0: Big One" in told["torch"].found
    assert "runs on CPUExecutionProvider" in told["onnxruntime's device"].found


# -- stores ------------------------------------------------------------------------------------------------


def test_a_history_with_a_hole(copy: Path) -> None:
    (copy / "repository" / "events" / "2.json").unlink()
    finding = found(stores.repository, context(copy))["history"]
    assert finding.status == "fail"
    assert "events/2.json" in finding.found


@pytest.mark.parametrize("content", [None, "{", '{"model_id": "another", "event": 3}'])
def test_a_pointer_out_of_step(copy: Path, content: str | None) -> None:
    path = copy / "repository" / "champion.json"
    path.unlink()
    if content:
        path.write_text(content)
    finding = found(stores.repository, context(copy))
    assert finding["champion.json"].status == "warn"
    assert finding["champion"].status == "ok"
    assert CliRunner().invoke(app, ["champion", "-w", str(copy)]).exit_code == 0  # what the hint says
    assert found(stores.repository, context(copy))["champion.json"].status == "ok"


def test_a_champion_that_is_gone_or_damaged(copy: Path, smoke: SmokeRun) -> None:
    bundle = copy / "repository" / "bundles" / smoke.summary["model_id"]
    weights = bundle / "scorer.onnx"
    whole = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    finding = found(stores.repository, context(copy))["champion"]
    assert finding.status == "fail"
    assert "scorer.onnx does not match its digest" in finding.found
    shutil.rmtree(bundle)
    finding = found(stores.repository, context(copy))["champion"]
    assert finding.status == "fail"
    assert "is not in the registry" in finding.found


def test_a_recipe_of_another_catalogue(smoke: SmokeRun) -> None:
    finding = found(stores.repository, context(smoke.workspace, recipe="movielens"))["catalogue"]
    assert (finding.status, finding.found) == ("warn", "the workspace ranks 'smoke', recipe movielens 'movielens'")


def test_a_repository_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()  # without a folder of events nothing can be put into it
    finding = found(stores.repository, context(tmp_path))["repository writable"]
    assert (finding.status, finding.found) == ("fail", f"{tmp_path}/repository/events: no such bucket or folder")


def test_a_repository_that_the_recipe_keeps_elsewhere(copy: Path, smoke: SmokeRun, tmp_path: Path) -> None:
    shutil.move(copy / "repository", tmp_path / "shared")
    asked = f"storage.repository={tmp_path / 'shared'}"
    told = found(stores.repository, context(copy, asked))
    assert told["history"].found.startswith(f"{tmp_path / 'shared'}: ")
    assert told["champion"].found.startswith(smoke.summary["model_id"])
    assert {each.status for each in told.values()} == {"ok"}
    assert found(stores.repository, context(copy))["model repository"].found.startswith("none yet")
    told = found(stores.repository, context(copy, f"{asked}-gone"))
    assert told["model repository"].found == f"none yet at {tmp_path / 'shared'}-gone; the first run makes it"


def test_a_repository_in_a_bucket(
    copy: Path, smoke: SmokeRun, bucket: Bucket, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store, place = s3fs.S3FileSystem(endpoint_url=bucket.environment()["AWS_ENDPOINT_URL"]), f"{url}/models"
    who = context(copy, f"storage.repository={place}", f"storage.artifacts={url}/work")
    told = found(stores.repository, who)
    assert told["history"].found == f"{place}: no event yet"
    assert {each.status for each in told.values()} == {"ok"}
    store.put(f"{copy}/repository/", f"{place}/", recursive=True)
    before = store.find(url, detail=True)
    told = found(stores.repository, who)
    assert {name: each.status for name, each in told.items()} == {
        "history": "ok", "champion.json": "ok", "champion": "ok", "repository writable": "ok",
    }  # fmt: skip
    assert told["champion"].found.startswith(smoke.summary["model_id"])
    assert told["repository writable"].found == "events can be added, each once"
    assert found(machine.clock, who)["clock"].status == "ok"
    assert list(found(stores.servers, who)) == ["storage.artifacts"]  # the repository was asked by what uses it
    sizes = {name: (each["size"], each["ETag"]) for name, each in before.items()}
    assert sizes == {name: (each["size"], each["ETag"]) for name, each in store.find(url, detail=True).items()}
    store.pipe(f"{place}/champion.json", b'{"model_id": "another"}')
    weights = f"{place}/bundles/{smoke.summary['model_id']}/scorer.onnx"
    store.pipe(weights, store.cat(weights)[:-1] + b"?")
    told = found(stores.repository, who)
    assert (told["champion.json"].status, told["champion"].status) == ("warn", "fail")
    assert "scorer.onnx does not match its digest" in told["champion"].found
    store.rm(f"{place}/events/2.json")
    assert "events/2.json" in found(stores.repository, who)["history"].found
    gone = found(stores.repository, context(copy, "storage.repository=s3://no-such-bucket/models"))
    assert gone["repository writable"].status == "fail"
    assert "no such bucket" in gone["repository writable"].found
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    assert found(stores.repository, who)["history"].status == "fail"


def test_a_bucket_that_writes_over_what_is_there(copy: Path) -> None:
    """A stand-in for a store that does not heed the condition: nothing real that can be had here is so careless."""
    from rankline.registry.model_registry import ModelRegistry

    class Careless:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def pipe_file(self, path: str, content: bytes, mode: str = "overwrite") -> None:
            self.inner.pipe_file(path, content)

    models = ModelRegistry(f"memory://{copy}/models")
    assert repository_checks._writable(models).status == "ok"
    models.fs = Careless(models.fs)
    told = repository_checks._writable(models)
    assert (told.status, "both would promote" in told.hint) == ("fail", True)
    assert models.fs.find(models.root) == []


def test_a_bucket_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="no client for S3 here: `pip install 's3fs'`")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    finding = found(stores.repository, context(tmp_path, "storage.repository=s3://shop/models"))
    assert (list(finding), finding["history"].status) == (["history"], "fail")


def test_a_feature_store_that_is_broken(copy: Path) -> None:
    online = copy / "online" / "ranking_v1"
    check = lambda: found(stores.feast, context(copy))  # noqa: E731
    assert check()["features ranking_v1"].status == "ok"
    (online / "watermark.json").unlink()
    assert check()["features ranking_v1"].status == "warn"
    (online / "online.db").write_bytes(b"not a database at all" * 100)
    told = check()["features ranking_v1"]
    assert (told.status, "the online store does not answer" in told.found) == ("fail", True)
    (online / "registry.db").write_bytes(b"not a registry")
    told = check()["features ranking_v1"]
    assert (told.status, "the registry cannot be read" in told.found) == ("fail", True)


def test_a_feature_store_without_the_service(copy: Path) -> None:
    (copy / "online" / "ranking_v1").rename(copy / "online" / "ranking_v0")
    told = found(stores.feast, context(copy))["features ranking_v0"]
    assert (told.status, told.found) == ("fail", "the registry has no service ranking_v0")


def test_an_mlflow_that_does_not_answer(copy: Path) -> None:
    told = found(stores.mlflow, context(copy, "promote.tracking_uri=http://127.0.0.1:1"))["MLflow"]
    assert told.status == "warn"
    (copy / "mlflow.db").write_bytes(b"not a database at all" * 100)
    told = found(stores.mlflow, context(copy))["MLflow"]
    assert told.status == "warn"
    assert "file is not a database" in told.found


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
    told = found(stores.servers, context(tmp_path, f"ingest.source={address}"))
    assert list(told) == (["ingest.source"] if kind else [])
    if kind:
        assert told["ingest.source"].status == "fail"
        assert told["ingest.source"].found.startswith(f"{kind} {stores.redacted(address)}")


def test_a_redis_that_answers_and_one_that_refuses_the_password(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knob = "storage.features.redis"
    who = context(tmp_path, "storage.features.online=redis", f"{knob}=127.0.0.1:{redis.port},db=0")
    told = found(stores.servers, who)[knob]
    assert told.found.startswith(f"Redis redis://127.0.0.1:{redis.port}: version ")
    monkeypatch.setenv("REDIS_PASSWORD", "wrong")
    told = found(stores.servers, who)[knob]
    assert (told.status, "wrong" in told.found) == ("fail", False)
    assert "AuthenticationError" in told.found


def test_an_address_is_told_without_its_password() -> None:
    assert stores.redacted("redis://:secret@127.0.0.1:1/0") == "redis://:…@127.0.0.1:1/0"


def test_a_postgres_that_answers_and_a_database_that_is_not_there(postgres: Postgres, tmp_path: Path) -> None:
    there = f"ingest.source={postgres.sqlalchemy_url}"
    told = found(stores.servers, context(tmp_path, there))["ingest.source"]
    assert told.status == "ok"
    assert ": version " in told.found
    gone = found(stores.servers, context(tmp_path, there + "_gone"))["ingest.source"]
    assert gone.status == "fail"
    assert f'database "{DATABASE}_gone" does not exist' in gone.found


def test_a_bucket_is_written_to_and_left_as_it_was() -> None:
    import fsspec

    assert stores._bucket("memory://untouched") == "readable and writable"
    assert fsspec.filesystem("memory").find("/untouched") == []
    with pytest.raises(OSError, match=r"denied|Not a directory|No such"):
        stores._bucket("file:///dev/null/models")


# -- workspace ---------------------------------------------------------------------------------------------


def test_half_written_runs(copy: Path) -> None:
    assert found(workspace.runs, context(copy))["runs"].found == "1, none half-written"
    killed = copy / "runs" / "20200101-000000-smoke"
    ledger.write_json(killed / "recipe.json", {})
    finding = found(workspace.runs, context(copy))["runs"]
    assert (finding.status, finding.found) == ("ok", "2, 1 under way")
    os.utime(killed / "recipe.json", (0, 0))
    finding = found(workspace.runs, context(copy))["runs"]
    assert (finding.status, finding.found) == ("warn", f"1 of 2 half-written: {killed.name}")
    ledger.write_json(killed / "summary.json", {})
    (killed / "summary.json").write_text("{")
    assert found(workspace.runs, context(copy))["runs"].status == "warn"


def test_a_cache_that_is_damaged_or_heavy(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(workspace.cache, context(copy))["cache"].status == "ok"
    monkeypatch.setattr(workspace, "_disk_usage", lambda _: 10**18)
    assert "are free" in found(workspace.cache, context(copy))["cache"].found
    next(copy.glob("cache/ingest/*/raw/items.parquet")).unlink()
    finding = found(workspace.cache, context(copy))["cache"]
    assert finding.status == "warn"
    assert "1 damaged: ingest/" in finding.found
    next(copy.glob("cache/validate/*/entry.json")).write_text("{")
    assert "2 damaged" in found(workspace.cache, context(copy))["cache"].found


def test_a_file_with_two_names_weighs_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    assert workspace._disk_usage(tmp_path.iterdir()) == 1000


def test_leftovers(copy: Path) -> None:
    assert found(workspace.leftovers, context(copy)) == {}
    left = copy / "repository" / "bundles" / ".abc.def"
    left.mkdir()
    assert found(workspace.leftovers, context(copy)) == {}  # somebody may be writing it
    os.utime(left, (0, 0))
    finding = found(workspace.leftovers, context(copy))["leftovers"]
    assert (finding.status, finding.hint.startswith(f"rm -r {left}")) == ("warn", True)


def test_material_that_is_damaged(tmp_path: Path) -> None:
    assert found(workspace.assets, context(tmp_path, recipe="movielens"))["material movielens"].status == "ok"
    (tmp_path / "material" / "ml-100k").mkdir(parents=True)
    finding = found(workspace.assets, context(tmp_path, recipe="movielens"))["material movielens"]
    assert finding.status == "fail"
    assert "rankline fetch movielens" in finding.hint


# -- the examination itself --------------------------------------------------------------------------------


def test_a_check_that_breaks_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: CheckContext) -> Iterator[Finding]:
        raise RuntimeError("boom")

    monkeypatch.setattr(machine, "CHECKS", (breaks, machine.port))
    monkeypatch.setattr(gpu, "CHECKS", ())
    told = [finding for subject, finding in checks.run_checks(context(tmp_path)) if subject == "machine"]
    assert [(each.check, each.status) for each in told] == [("breaks", "fail"), ("port", "ok")]
    assert told[0].found == "RuntimeError: boom"


def test_an_unknown_recipe_is_usage(tmp_path: Path) -> None:
    assert "no recipe named 'smoky'" in refused("doctor", "-r", "smoky", "-w", tmp_path, code=2)
