"""`rankline users erase`: nothing of a user is left anywhere, others stay, and no later run brings the user back."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pipelines.erasure.erase import erase
from pipelines.runs.folder import process_identity
from rankline.errors import ErasureIncomplete, UsageError
from rankline.io import digest
from rankline.registry.erased_evidence import evidence_digest
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.users.erased import ErasedUsers
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun
from tests.servers.fixtures import bucket, postgres, postgres_for_all, s3, url  # noqa: F401
from tests.servers.postgres import Postgres

KEY = "a" * 64
RUN = "20260101-000000-tiny"


def mentions(root: Path, user: str) -> list[str]:
    """The files below a folder that name a user, found without the code that is tested."""
    word = re.compile(rf"(?<!\w){user}(?!\w)".encode())
    matches = []
    for path in sorted(each for each in root.rglob("*") if each.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            tables = parquet.read_table(io.BytesIO(content)).to_pylist()
            content = json.dumps(tables, default=str).encode()
        elif content.startswith(b"SQLite format 3"):
            with sqlite3.connect(path) as db:
                content = "\n".join(db.iterdump()).encode() + content
        elif path.suffix in (".onnx", ".safetensors", ".npy", ".npz", ".faiss", ".gif", ".png", ".otf"):
            continue
        if word.search(content):
            matches.append(path.relative_to(root).as_posix())
    return matches


@pytest.mark.integration
def test_nothing_holds_an_erased_user_and_no_run_brings_it_back(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "workspace")
    source = Path(shutil.copytree(workspace / "material" / "smoke", tmp_path / "source"))
    log = next((workspace / "runs").glob("*/ingest.log"))
    log.write_text(log.read_text() + "row 7 of user u5 cannot be read; that of u50 can\n")
    before = {user: mentions(workspace, user) for user in ("u5", "u50", "u15")}
    assert len(before["u5"]) > 15
    history = ModelRegistry(workspace / "repository").history()

    planned = json.loads(rankline("users", "erase", "u5", "-w", workspace, "--dry-run", "--json").stdout)
    done = rankline("users", "erase", "u5", "-w", workspace, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {**planned, "dry_run": False}
    stored = {each["path"]: each["action"] for each in planned["treated"] if each["path"].startswith("online/")}
    assert set(stored.values()) == {"rewritten"}
    assert set(stored) == {"online/ranking_v1/online.db"} | {each for each in before["u5"] if "online/" in each}
    assert mentions(workspace, "u5") == []
    assert {"material/smoke/shop.inter", "online/ranking_v1/online.db"} <= {*mentions(workspace, "u50")}
    assert "[erased] cannot be read; that of u50 can" in log.read_text()
    models = ModelRegistry(workspace / "repository")
    assert models.history() == history
    assert models.champion()
    evidence = workspace / "repository" / "evidence" / history[-1].digests["evaluation"]
    assert {"report.html", "report.json", "comparisons.json", "erased.json"} <= {
        path.name for path in evidence.iterdir()
    }

    settings = ("--set", f"ingest.source={source}")
    again = rankline("features", "materialize", "-r", "smoke", "-w", workspace, *settings, "--json")
    assert again.returncode == 0, again.stderr
    assert mentions(workspace, "u5") == []
    assert "u5" in (source / "shop.inter").read_text()
    raw = next(Path(each["paths"]["raw"]) for each in json.loads(again.stdout)["steps"] if each["step"] == "ingest")
    assert json.loads((raw / "summary.json").read_text())["erased_rows"] == {"events": 16, "users": 1}
    assert (
        json.loads((workspace / "online" / "ranking_v1" / "watermark.json").read_text())["entities"]["user_history"]
        == 119
    )


# -- a small workspace -----------------------------------------------------------------------------------------


def table(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with files of users 1, 11 and anna of every kind."""
    root = tmp_path / "workspace"
    fill(root, recipe={"name": "tiny", "ingest": {"columns": {"user_id": "customer"}}})
    return root


def fill(root: Path, *, recipe: dict[str, Any]) -> None:
    run = root / "runs" / RUN
    users = ["1", "11", "anna@example.com"]
    table(root / f"cache/ingest/{KEY}/raw/events.parquet", user_id=users, item_id=["1", "1", "2"])
    (root / f"cache/ingest/{KEY}/entry.json").write_text("{}")
    table(root / f"cache/export/{KEY}/bundle/items.parquet", item_id=["1", "11"], title=["user 1", "anna"])
    table(run / "artifacts/tiny/ingest/raw/events.parquet", user_id=users)
    table(run / "artifacts/tiny/other/raw/events.parquet", user_id=["11"])
    table(root / "data/log.parquet", customer=[1, 11, 2], item=[1, 11, 1])
    (root / "data/log.csv").write_text("customer,item\n1,11\n11,1\nanna@example.com,1\n")
    (root / "profiles").mkdir()
    (root / "profiles/tiny.json").write_text('{"examples": {"user_id": "1"}, "n": 1, "other": {"user_id": "11"}}')
    (run / "ingest.log").write_text("user 1 is new; user 11 is not; anna@example.com is; 1 s\n")
    (run / "recipe.json").write_text(json.dumps(recipe))
    (run / "summary.json").write_text('{"outcome": "promoted"}')
    spill = run / "artifacts/tiny/ingest/raw/.spill-x1"
    spill.mkdir()
    (spill / "tables.duckdb").write_bytes(b"compressed")


def test_an_id_that_is_part_of_another_s_is_not_confused(workspace: Path) -> None:
    result = erase(workspace, ["1"], say=lambda _: None)
    assert {each.action for each in result.treated} == {"removed", "rewritten"}
    run = workspace / "runs" / RUN
    assert not (workspace / f"cache/ingest/{KEY}").exists()
    assert (workspace / f"cache/export/{KEY}/bundle/items.parquet").is_file()
    assert not (run / "artifacts/tiny/ingest/raw").exists()
    assert (run / "artifacts/tiny/other/raw/events.parquet").is_file()
    assert (run / "ingest.log").read_text() == "user [erased] is new; user 11 is not; anna@example.com is; 1 s\n"
    assert json.loads((workspace / "profiles/tiny.json").read_text())["other"] == {"user_id": "11"}
    assert parquet.read_table(workspace / "data/log.parquet").to_pylist() == [
        {"customer": 11, "item": 11},
        {"customer": 2, "item": 1},
    ]
    assert (workspace / "data/log.csv").read_text() == "customer,item\n11,1\nanna@example.com,1\n"
    erased = ErasedUsers(workspace / "erased")
    assert (erased.holds("1"), erased.holds("11")) == (True, False)


def test_several_users_of_a_file_and_of_the_command_line(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("anna@example.com\n\n11\n")
    done = rankline("users", "erase", "1", "--file", tmp_path / "ids.txt", "-w", workspace, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["users"], result["dry_run"]) == (3, False)
    assert (result["matched"], result["unmatched"]) == (["1", "anna@example.com", "11"], [])
    assert "anna" not in json.dumps(result["treated"]) + done.stderr
    assert mentions(workspace / "runs", "anna@example.com") == []
    assert len(ErasedUsers(workspace / "erased")) == 3
    assert "no user is named" in refused("users", "erase", "-w", workspace, code=2)


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_id_that_is_nowhere_is_named(workspace: Path, dry_run: bool) -> None:
    table(workspace / f"cache/ingest/{KEY}/raw/users.parquet", user_id=["zoe"])  # removed with the rows of others
    options = ["--dry-run"] if dry_run else []
    done = rankline("users", "erase", "1", "Anna@example.com", "zoe", "111", "-w", workspace, "--json", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["matched"], result["unmatched"]) == (["1", "zoe"], ["Anna@example.com", "111"])
    again = rankline("users", "erase", "nobody", "-w", workspace, *options)
    assert "not found anywhere: nobody: check" in again.stdout
    assert "1 user:" in again.stdout
    assert ErasedUsers(workspace / "erased").holds("nobody") is not dry_run


def test_a_dry_run_changes_nothing(workspace: Path) -> None:
    before = digest.tree_digest(workspace)
    done = rankline("users", "erase", "1", "-w", workspace, "--dry-run")
    assert done.returncode == 0, done.stderr
    (workspace / ".gc.lock").unlink()
    assert digest.tree_digest(workspace) == before
    assert f"would be removed: {workspace}/cache/ingest/{KEY}" in done.stdout
    assert not (workspace / "erased").exists()


def test_it_is_refused_while_a_run_is_in_progress(workspace: Path) -> None:
    running = workspace / "runs" / "20260102-000000-tiny"
    running.mkdir()
    (running / "watcher.json").write_text(json.dumps(process_identity()))
    before = digest.tree_digest(workspace / "cache")
    with pytest.raises(UsageError, match="a run is in progress") as caught:
        erase(workspace, ["1"])
    assert running.name in caught.value.found
    assert (digest.tree_digest(workspace / "cache"), (workspace / "erased").exists()) == (before, False)
    (running / "summary.json").write_text('{"outcome": "promoted"}')
    assert erase(workspace, ["1"], say=lambda _: None).treated


@pytest.mark.parametrize(
    "name", ["repository/bundles/4fcf6b14f1a4bf28/policy.json", "data/model.bin", "data/log.duckdb"]
)
def test_a_file_that_nobody_can_erase_from_fails_the_command(workspace: Path, name: str) -> None:
    path = workspace / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\xff the user anna@example.com " if name.endswith(".bin") else b"user anna@example.com")
    if name.endswith(".duckdb"):
        import duckdb

        path.unlink()
        with duckdb.connect(str(path)) as db:
            db.execute("CREATE TABLE log AS SELECT 'anna@example.com' AS user_id")
    with pytest.raises(ErasureIncomplete, match="1 files still hold") as caught:
        erase(workspace, ["anna@example.com"], say=lambda _: None)
    assert name in caught.value.found
    assert "anna" not in str(caught.value)
    path.unlink()
    erase(workspace, ["anna@example.com"], say=lambda _: None)


@pytest.mark.integration
def test_one_that_was_killed_can_be_run_again(workspace: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pipelines.erasure.erase import erase\n"
        "erase(Path(sys.argv[1]), ['1'], say=lambda _: os.kill(os.getpid(), signal.SIGKILL))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(workspace)], cwd=Path.cwd(), env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    assert not (workspace / f"cache/ingest/{KEY}").exists()
    assert "user 1 is new" in (workspace / "runs" / RUN / "ingest.log").read_text()
    assert ErasedUsers(workspace / "erased").holds("1")
    erase(workspace, ["1"], say=lambda _: None)
    assert "user 1 is new" not in (workspace / "runs" / RUN / "ingest.log").read_text()
    assert erase(workspace, ["1"], say=lambda _: None).treated == []


def test_hashed_and_normalised_ids_are_erased_by_the_plain_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankline.users.hashing import UserKey

    monkeypatch.setenv("TEST_ID_KEY", "a key that is long enough")
    key = UserKey.from_environment("TEST_ID_KEY")
    recipe = {"ingest": {"hash_users": "TEST_ID_KEY", "columns": {"normalise_ids": ["case"], "user_id": "customer"}}}
    (workspace / "runs" / RUN / "recipe.json").write_text(json.dumps({"name": "tiny", **recipe}))
    hashed = table(workspace / f"cache/validate/{KEY}/clean/events.parquet", user_id=[key.hash("anna@example.com")])
    other = table(workspace / f"cache/validate/{'b' * 64}/clean/events.parquet", user_id=[key.hash("1")])
    erase(workspace, ["Anna@example.com"], say=lambda _: None)
    assert (hashed.exists(), other.exists()) == (False, True)
    assert ErasedUsers(workspace / "erased").holds("anna@example.com")
    monkeypatch.delenv("TEST_ID_KEY")
    with pytest.raises(UsageError, match="TEST_ID_KEY"):
        erase(workspace, ["anna@example.com"])


@pytest.mark.parametrize(
    "file",
    [f"cache/ingest/{KEY}/raw/summary.json", f"cache/featurize/{KEY}/features/summary.json", "online/r/watermark.json"],
)
def test_the_key_is_asked_for_when_the_runs_are_gone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    from rankline.users.hashing import UserKey

    for folder in ("runs", "data"):  # without a recipe nobody knows that `customer` holds users
        shutil.rmtree(workspace / folder)
    key = UserKey(b"a key that is long enough")
    table(workspace / f"cache/validate/{KEY}/clean/events.parquet", user_id=[key.hash("anna@example.com")])
    (workspace / file).parent.mkdir(parents=True, exist_ok=True)
    (workspace / file).write_text(json.dumps({"hash_users": {"variable": "TEST_ID_KEY", "key": key.fingerprint}}))
    monkeypatch.delenv("TEST_ID_KEY", raising=False)
    with pytest.raises(UsageError, match="TEST_ID_KEY"):
        erase(workspace, ["anna@example.com"])
    monkeypatch.setenv("TEST_ID_KEY", "another key that is long enough")
    with pytest.raises(UsageError, match="another key"):
        erase(workspace, ["anna@example.com"])
    assert (workspace / f"cache/validate/{KEY}").exists()
    monkeypatch.setenv("TEST_ID_KEY", "a key that is long enough")
    erase(workspace, ["anna@example.com"], say=lambda _: None)
    assert not (workspace / f"cache/validate/{KEY}").exists()


def test_free_text_is_said_and_left_and_fails_nothing(workspace: Path) -> None:
    content = 'customer,comment\n7,"a line\nmax told me"\nu2,Nike air max 90\nmax,"gone\ntoo"\n'
    (workspace / "data/shop.csv").write_text(content)
    result = erase(workspace, ["max"], say=lambda _: None)
    assert (workspace / "data/shop.csv").read_text() == content.replace('max,"gone\ntoo"\n', "")
    (shop,) = [each for each in result.treated if each.path == "data/shop.csv"]
    assert (shop.action, "mentioned in free text" in shop.why) == ("rewritten", True)
    again = erase(workspace, ["max"], say=lambda _: None)
    assert [(each.path, each.action) for each in again.treated] == [("data/shop.csv", "mentioned")]


@pytest.mark.integration
@pytest.mark.parametrize("depth", [400, 5_000, 200_000])  # how deep a parser reads depends on the version of Python
def test_objects_too_deep_to_be_read_hide_no_user(workspace: Path, depth: int) -> None:
    deep = '{"a":' * depth + '{"user_id": "USER"}' + "}" * depth + "\n"
    rows = [deep.replace("USER", user) for user in ("anna@example.com", "anna@example.org")]
    path = workspace / "data" / "log.jsonl"
    path.write_text("".join(rows))
    reason = ""
    try:
        erase(workspace, ["anna@example.com"], say=lambda _: None)
    except ErasureIncomplete as error:
        reason = error.found
    assert depth > 400 or not reason
    assert "log.jsonl" in reason if reason else path.read_text() == rows[1]
    path.write_text(rows[1])
    erase(workspace, ["anna@example.com"], say=lambda _: None)
    assert path.read_text() == rows[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", "customer,item\nzoë,1\n".encode("cp1252")),
        ("log.json", b'[{"customer": "1"}]'),
        ("log.jsonl", b'{"friend_users": [1]}\n{}\n'),
    ],
)
def test_what_cannot_be_searched_or_rewritten_makes_it_incomplete(workspace: Path, name: str, content: bytes) -> None:
    (workspace / "data" / name).write_bytes(content)
    output: list[str] = []
    with pytest.raises(ErasureIncomplete) as caught:
        erase(workspace, ["1"], say=output.append)
    assert name in caught.value.found
    assert any(line.startswith("stays: ") and name in line for line in output)
    assert (workspace / "data" / name).read_bytes() == content


# -- storages --------------------------------------------------------------------------------------------------


def test_folders_beside_the_workspace_are_erased_from(workspace: Path, tmp_path: Path) -> None:
    storage = {"artifacts": str(tmp_path / "shared"), "repository": str(tmp_path / "registry")}
    (workspace / "runs" / RUN / "recipe.json").write_text(json.dumps({"name": "tiny", "storage": storage}))
    entry = table(tmp_path / f"shared/ingest/{KEY}/unique/raw/events.parquet", user_id=["1"])
    other = table(tmp_path / f"shared/ingest/{'b' * 64}/unique/raw/events.parquet", user_id=["11"])
    evidence = table(tmp_path / f"registry/evidence/{KEY}/per_request.parquet", request_id=["test:1:3", "test:11:1"])
    (evidence.parent / "report.html").write_text("<td>user 1</td><td>user 11</td>")
    stored = digest.tree_digest(evidence.parent)
    erase(workspace, ["1"], say=lambda _: None)
    assert (entry.exists(), other.exists(), evidence.exists()) == (False, True, False)
    assert (evidence.parent / "report.html").read_text() == "<td>user [erased]</td><td>user 11</td>"
    note = json.loads((evidence.parent / "erased.json").read_text())
    assert (note["per_request.parquet"], note["report.html"]) == ("removed", "redacted")
    assert evidence_digest(evidence.parent, complete=()) == stored
    assert evidence_digest(evidence.parent, complete=("report.html",)) != stored


@pytest.mark.integration
def test_a_workspace_in_a_bucket_is_erased_from(url: str, tmp_path: Path) -> None:  # noqa: F811
    local = tmp_path / "local"
    fill(local, recipe={"name": "tiny", "storage": {"workspace": url}})
    (local / "cache").rename(local / "artifacts")
    shutil.rmtree(local / "data")
    BucketWorkspace(url, local).upload("")
    here = tmp_path / "workspace"
    fill(here, recipe={"name": "tiny", "storage": {"workspace": url}})
    erase(here, ["1"], say=lambda _: None)
    shutil.rmtree(tmp_path / "local")
    BucketWorkspace(url, local).download("")
    assert (mentions(local / "profiles", '1"'), mentions(here / "profiles", '1"')) == ([], [])
    assert not (local / f"artifacts/ingest/{KEY}").exists()
    assert (local / f"artifacts/export/{KEY}/bundle/items.parquet").is_file()
    assert "user [erased] is new; user 11 is not" in (local / "runs" / RUN / "ingest.log").read_text()
    assert ErasedUsers(local / "erased").holds("1")


def test_tables_of_an_offline_store_in_postgres_are_erased_from(
    workspace: Path,
    postgres: Postgres,  # noqa: F811
) -> None:
    from feature_repo.backends import connect
    from rankline.io.storage import FeatureStoreConfig

    features = {"offline": "postgres", "postgres": postgres.address}
    recipe = {"name": "tiny", "storage": {"features": features}}
    (workspace / "runs" / RUN / "recipe.json").write_text(json.dumps(recipe))
    stores = FeatureStoreConfig(**features)
    with connect(stores) as connection:
        connection.execute("CREATE TABLE rankline_00ff_user_history (user_id text)")
        connection.execute("INSERT INTO rankline_00ff_user_history VALUES ('1'), ('1'), ('11')")
    assert erase(workspace, ["1"], dry_run=True, say=lambda _: None).postgres_rows == 2
    assert erase(workspace, ["1"], say=lambda _: None).postgres_rows == 2
    with connect(stores) as connection:
        assert connection.execute("SELECT user_id FROM rankline_00ff_user_history").fetchall() == [("11",)]
