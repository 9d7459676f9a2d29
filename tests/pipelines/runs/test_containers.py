"""The smoke recipe in real containers, and what Docker is told of a step.

The tests with an engine tell one story in one workspace, as tests/pipelines/runs/test_runner.py does for processes.
`make images` builds the images and runs them, which takes minutes; `make test` skips them.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components import images as names
from pipelines.images import build, contents, sbom
from pipelines.images import docker as docker_command
from pipelines.recipes import named, smoke
from pipelines.runs import containers
from pipelines.runs.containers import ContainerContext
from pipelines.steps import STEPS, VERDICT_TASKS
from rankline.errors import UsageError
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import code_digest, ledger
from rankline.runtime.steps import TRAINING_STEPS
from tests.cli.command import RANKLINE, rankline, refused
from tests.pipelines.images.bills import package_names
from tests.pipelines.runs.watched import folders, reasons, steps, summary, until
from tests.servers.s3 import Bucket

NEEDED = "RANKLINE_NEEDS_IMAGES"  # set by `make images`, which has just built them
ABOUT = {"NCPU": 2, "SecurityOptions": ["name=seccomp"], "Runtimes": {"runc": {}}}


# What Docker is told, without an engine.


def location(tmp_path: Path, *settings: str) -> ContainerContext:
    (tmp_path / "ws" / "runs" / "r1").mkdir(parents=True, exist_ok=True)
    return ContainerContext(named("smoke", settings), tmp_path / "ws", tmp_path / "ws" / "runs" / "r1")


def test_a_step_gets_the_limits_of_its_recipe_and_no_more_cpus_than_there_are(tmp_path: Path) -> None:
    here = location(tmp_path, "cluster.train.cpu=16", "cluster.small.memory=2Gi", "cluster.small.cpu=500m")
    trained, looked = here.create_arguments("finetune", ABOUT), here.create_arguments("resolve_inputs", ABOUT)
    assert (trained["nano_cpus"], trained["mem_limit"], trained["memswap_limit"]) == (2 * 10**9, 3 * 2**30, 3 * 2**30)
    # a step counts its own processors: rankline/runtime/threads.py
    assert trained["environment"].get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")
    assert looked["nano_cpus"] == 5 * 10**8
    assert looked["mem_limit"] == 2 * 2**30


def test_a_step_has_no_privileges_and_writes_as_the_current_user(tmp_path: Path) -> None:
    result = location(tmp_path).create_arguments("ingest", ABOUT)
    assert result["user"] == f"{os.getuid()}:{os.getgid()}"
    assert result["cap_drop"] == ["ALL"]
    assert result["security_opt"] == ["no-new-privileges"]
    rootless = {**ABOUT, "SecurityOptions": ["name=rootless"]}
    assert location(tmp_path).create_arguments("ingest", rootless)["user"] == "0:0"


def test_a_step_sees_the_workspace_and_what_its_recipe_names(tmp_path: Path) -> None:
    data = tmp_path / "data of mine"
    data.mkdir()
    here = location(tmp_path, f"ingest.source={data}", "finetune.encoder=/not/there")
    result = here.create_arguments("ingest", {**ABOUT, "SecurityOptions": ["name=selinux"]})
    assert result["volumes"] == {
        str(tmp_path / "ws"): {"bind": str(tmp_path / "ws"), "mode": "rw,z"},
        str(data): {"bind": str(data), "mode": "ro,z"},
    }
    assert list(location(tmp_path).create_arguments("ingest", ABOUT)["volumes"]) == [str(tmp_path / "ws")]


def test_a_step_is_reported_the_secrets_its_recipe_names_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_KEY", "one")
    monkeypatch.setenv("OTHER_KEY", "two")
    monkeypatch.setenv("ID_KEY", "three")
    assert location(tmp_path, "ingest.hash_users=ID_KEY").environment()["ID_KEY"] == "three"
    result = location(tmp_path, "cluster.secrets.STORE_KEY=store/key").environment()
    assert "ID_KEY" not in result
    assert result["STORE_KEY"] == "one"
    assert "OTHER_KEY" not in result
    assert result["RANKLINE_RUN_DIR"] == str(tmp_path / "ws" / "runs" / "r1")


def test_gpus_are_requested_where_the_engine_has_them(tmp_path: Path) -> None:
    here = location(tmp_path, "cluster.train.gpus=2")
    assert here.create_arguments("finetune", ABOUT)["device_requests"] == []
    requested = here.create_arguments("finetune", {**ABOUT, "Runtimes": {"nvidia": {}}})["device_requests"]
    assert (requested[0]["Count"], requested[0]["Capabilities"]) == (2, [["gpu"]])
    assert here.create_arguments("ingest", {**ABOUT, "Runtimes": {"nvidia": {}}})["device_requests"] == []


def test_every_step_has_an_image_and_the_recipe_can_name_another() -> None:
    for step, spec in STEPS.items():
        assert containers.image_of(smoke(), step) == getattr(names, spec.image.upper())
    assert {containers.image_of(smoke(), task) for task in VERDICT_TASKS} == {names.DATA}
    chosen = named("smoke", ["cluster.images.data=registry.example/data@sha256:1"])
    assert containers.image_of(chosen, "ingest") == "registry.example/data@sha256:1"
    assert containers.image_of(chosen, "evaluate") == names.EVALUATE


def test_the_kubeflow_that_is_pinned_asks_for_its_handler_by_name(tmp_path: Path) -> None:
    from kfp.local import docker_task_handler

    before = docker_task_handler.DockerTaskHandler
    try:
        containers.install_step_containers(location(tmp_path))
        created = docker_task_handler.DockerTaskHandler(
            image="x", full_command=["sh", "--function_to_execute", "ingest"], pipeline_root="/", runner=None
        )
        assert isinstance(created, containers.StepContainer)
        assert created.step == "ingest"
    finally:
        docker_task_handler.DockerTaskHandler = before


# With an engine, and images of this very code.


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """A client of an engine that has the images of this very code."""
    if not os.environ.get(NEEDED):
        pytest.skip("`make images` builds what this needs, and runs it")
    with containers.engine() as client:
        containers.require(smoke(), Path("/nowhere"))
        yield client


@pytest.fixture(scope="module")
def workspace(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke run in containers, in a folder whose name is not a plain one."""
    folder = tmp_path_factory.mktemp("containers") / "Büro 1"
    done = rankline("run", "--recipe", "smoke", "-w", folder, "--runner", "docker", timeout_s=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✔ finetune" in done.stdout
    return folder


def left(engine: Any, workspace: Path) -> list[Any]:
    """Containers that belong to runs in a workspace."""
    matches: list[Any] = engine.containers.list(
        all=True, filters={"label": f"{containers.WORKSPACE_LABEL}={workspace}"}
    )
    return matches


@contextmanager
def under_way(workspace: Path, *settings: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [RANKLINE, "run", "--recipe", "smoke", "-w", str(workspace), "--runner", "docker"]
        + [f"--set={each}" for each in settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def reached(workspace: Path, before: set[Path], step: str) -> Path:
    """The folder of the run that began after ``before``, once this step of it runs."""
    return until(
        lambda: next((f for f in folders(workspace) - before if step in ledger.read_entries(f)), None), timeout_s=180
    )


def test_the_line_runs_in_containers_and_promotes(workspace: Path, engine: Any) -> None:
    result = summary(workspace)
    assert (result["outcome"], result["kubeflow_status"], result["error"]) == ("promoted", "SUCCEEDED", "")
    assert steps(workspace) == dict.fromkeys(TRAINING_STEPS, "done")
    assert result["model_id"] == ModelRegistry(workspace / "repository").champion()
    assert left(engine, workspace) == []


def test_each_step_ran_in_its_own_image(workspace: Path) -> None:
    """Seen by the libraries that shape artifacts: the images hold different ones."""
    held = {
        step: json.loads(next((workspace / "cache" / step).glob("*/entry.json")).read_text())["key"]["libraries"]
        for step in ("ingest", "finetune", "export", "evaluate")
    }
    assert {step for step, libraries in held.items() if "torch" in libraries} == {"finetune", "export"}
    assert {step for step, libraries in held.items() if "onnxruntime-gpu" in libraries} == {
        "finetune", "export", "evaluate"
    }  # fmt: skip
    assert {step for step, libraries in held.items() if "great-expectations" in libraries} == {"ingest"}


def test_what_containers_write_belongs_to_whoever_ran_them(workspace: Path) -> None:
    assert {path.lstat().st_uid for path in workspace.rglob("*")} == {os.getuid()}


def test_cached_work_shares_its_bytes_with_the_run(workspace: Path) -> None:
    """The workspace is one mount: hard links work inside of it as they do without containers."""
    assert next((workspace / "cache" / "ingest").glob("*/raw/events.parquet")).stat().st_nlink >= 2


def test_nothing_changed_is_reused(workspace: Path, engine: Any) -> None:
    done = rankline("run", "--recipe", "smoke", "-w", workspace, "--runner", "docker", timeout_s=600)
    assert done.returncode == 0, done.stderr
    assert summary(workspace)["outcome"] == "already serving"
    status = steps(workspace)
    assert {step for step in status if status[step] == "done"} == {"resolve_inputs", "decide"}


def test_a_step_that_fails_tells_its_own_message(workspace: Path, engine: Any) -> None:
    done = refused(
        "run", "--recipe", "smoke", "-w", workspace, "--runner", "docker", "--set", "validate.min_items=100000"
    )
    assert done.splitlines()[0].startswith("validate stopped: ")
    assert "unexpected " not in done
    assert "100000" in done
    assert "ledger: " in done
    assert summary(workspace)["kubeflow_status"] == "FAILED"
    assert left(engine, workspace) == []


def test_a_step_that_needs_more_memory_than_it_may_have_is_reported(workspace: Path, engine: Any) -> None:
    done = refused(
        "run", "--recipe", "smoke", "-w", workspace, "--runner", "docker",
        "--set", "cluster.train.memory=100Mi", "--set", "finetune.epochs=2",
    )  # fmt: skip
    assert done.startswith("finetune stopped: it was killed: it needed more memory than its container may have")
    assert "expected: at most 100Mi (cluster.train.memory)" in done
    assert left(engine, workspace) == []


def test_a_source_outside_of_the_workspace_is_read(workspace: Path, engine: Any, tmp_path: Path) -> None:
    """And nothing but the source changes, so its rows are the same and what follows is reused."""
    source = tmp_path / "theirs"
    (workspace / "material" / "smoke").rename(source)
    try:
        done = rankline(
            "run", "--recipe", "smoke", "-w", workspace, "--runner", "docker",
            "--set", f"ingest.source={source}", "--set", "material=[]", timeout_s=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "source" in reasons(workspace)["ingest"]
    finally:
        source.rename(workspace / "material" / "smoke")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cancelling_leaves_no_container(workspace: Path, engine: Any, number: signal.Signals) -> None:
    before = folders(workspace)
    with under_way(workspace, "finetune.epochs=500") as process:
        reached(workspace, before, "finetune")
        running = until(lambda: left(engine, workspace))[0]
        host = running.attrs["HostConfig"]
        assert (host["Memory"], host["CapDrop"]) == (8 * 2**30, ["ALL"])
        assert host["NanoCpus"] == min(2, engine.info()["NCPU"]) * 10**9
        assert running.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "the next run continues from" in err
    assert left(engine, workspace) == []
    assert steps(workspace)["finetune"] == "killed"


def test_a_run_cancelled_from_another_terminal_leaves_no_container(workspace: Path, engine: Any) -> None:
    before = folders(workspace)
    with under_way(workspace, "finetune.epochs=500") as process:
        run = reached(workspace, before, "finetune")
        until(lambda: left(engine, workspace))
        done = rankline("runs", "cancel", run.name, "-w", workspace)
        assert done.returncode == 0, done.stderr
        assert left(engine, workspace) == []
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert summary(workspace)["outcome"] == "cancelled"
    assert steps(workspace)["finetune"] == "killed"


def test_a_plan_knows_the_libraries_of_the_images(workspace: Path, engine: Any) -> None:
    """Reused in containers, and not by processes here, which have other libraries."""
    arguments = ("run", "--recipe", "smoke", "-w", workspace, "--plan", "--json")
    result = {
        runner: {
            step["step"]: (step["state"], step["why"])
            for step in json.loads(rankline(*arguments, "--runner", runner).stdout)["steps"]
        }
        for runner in ("docker", "local")
    }
    assert {result["docker"][step][0] for step in ("ingest", "finetune", "export")} == {"reused"}
    assert result["local"]["ingest"][0] == "runs"
    assert "torch changed" in result["local"]["ingest"][1]


def test_a_killed_command_leaves_no_container(workspace: Path, engine: Any) -> None:
    before = folders(workspace)
    with under_way(workspace, "finetune.epochs=500") as process:
        reached(workspace, before, "finetune")
        assert left(engine, workspace)
        process.kill()  # what it started sees that it is gone
        until(lambda: not left(engine, workspace), timeout_s=30)


def test_containers_of_a_dead_runner_are_removed_and_those_of_a_living_one_are_not(engine: Any, tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    created = {
        pid: engine.containers.run(
            names.SERVE, ["60"], entrypoint=["sleep"], detach=True, network_mode="none",
            labels={containers.WORKSPACE_LABEL: str(tmp_path), containers.RUNNER_LABEL: str(pid)},
        )
        for pid in (gone.pid, os.getpid())
    }  # fmt: skip
    try:
        containers.remove_orphans(tmp_path)
        assert [each.id for each in left(engine, tmp_path)] == [created[os.getpid()].id]
    finally:
        for each in left(engine, tmp_path):
            each.remove(force=True)
    assert left(engine, tmp_path) == []


# Images that are absent, or of other code, or not ours to write with.


def test_an_absent_image_is_named_with_the_command_that_makes_it(engine: Any, tmp_path: Path) -> None:
    message = refused(
        "run", "--recipe", "smoke", "-w", tmp_path, "--runner", "docker", code=2,
        RANKLINE_IMAGE_TRAIN="rankline/train:never",
    )  # fmt: skip
    assert message.startswith("the image of finetune is not on this machine")
    assert "expected: rankline/train:never" in message
    assert "rankline build all" in message


def test_an_image_of_other_code_is_refused(engine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(containers, "code_digest", lambda: "0" * 64)
    with pytest.raises(UsageError, match="holds other code than this"):
        containers.require(smoke(), tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder somebody else's")
def test_a_workspace_of_another_user_is_refused(engine: Any, tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to another user"):
        containers.require(smoke(), tmp_path)


# What is in the images.


# what opens a bundle can read words, which only training and serving ask of it
OF_WORDS = {"Stemmer", "bm25s", "regex", "tokenizers"}


def imports(step: str) -> set[str]:
    """Top names of all modules but ours and Python's own that a step imports, at the top or inside a function."""
    matches: set[str] = set()
    component = "promote" if step == "decide" else step
    modules = ("serving.server", "serving.api.app") if step == "serve" else (f"components.{component}.component",)
    for module in modules:
        for path in code_digest.closure(module, packages=code_digest.PACKAGES).values():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    matches |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    matches.add(node.module.split(".")[0])
    own = {
        *sys.stdlib_module_names,
        *code_digest.PACKAGES,
        *(OF_WORDS if step in STEPS and STEPS[step].image == "data" else ()),
    }
    return {name for name in matches if name not in own}


@pytest.mark.parametrize("step", [*TRAINING_STEPS, "summary", "serve"])
def test_an_image_holds_what_its_steps_import(engine: Any, step: str) -> None:
    wanted = sorted(imports(step))
    assert wanted
    image = names.SERVE if step == "serve" else containers.image_of(smoke(), step)
    script = f"import importlib.util as u; print([n for n in {wanted!r} if u.find_spec(n) is None])"
    result = engine.containers.run(image, ["-c", script], entrypoint=["python"], remove=True, network_mode="none")
    assert result.decode().strip() == "[]"


# what the place of a bucket, Postgres or Redis is reached with; some are found by name and imported by nobody here
DRIVERS = {kind: {"s3fs", *(() if kind == "train" else ("psycopg_pool", "redis", "hiredis"))} for kind in build.KINDS}


@pytest.mark.parametrize("kind", build.KINDS)
def test_an_image_reaches_the_places_that_machines_share(engine: Any, kind: str, bucket: Bucket) -> None:
    script = f"""if True:
        import {", ".join(sorted(DRIVERS[kind]))}
        from rankline.io import storage
        fs, path = storage.open_filesystem("{bucket.url}/from-{kind}")
        fs.pipe_file(path, b"here")
        print(fs.cat_file(path).decode())"""
    result = engine.containers.run(
        getattr(names, kind.upper()), ["-c", script], entrypoint=["python"], remove=True, network_mode="host",
        environment=bucket.environment(),
    )  # fmt: skip
    assert result.decode().strip() == "here"


def test_the_line_runs_in_containers_with_all_it_keeps_in_a_bucket(
    engine: Any, bucket: Bucket, url: str, tmp_path: Path
) -> None:
    locations = [f"--set=storage.{name}={url}/{name}" for name in ("repository", "artifacts", "checkpoints")]
    secrets = [f"--set=cluster.secrets.{name}=store/{name.lower()}" for name in bucket.environment()]
    done = rankline(
        "run", "--recipe", "smoke", "-w", tmp_path, "--runner", "docker", *locations, *secrets, timeout_s=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    champion = ModelRegistry(f"{url}/repository").champion()
    assert summary(tmp_path)["model_id"] == champion
    assert not (tmp_path / "repository").exists()
    container = engine.containers.run(
        names.SERVE, ["--host", "127.0.0.1", "--port", "18766", "--repository", f"{url}/repository"], detach=True,
        network_mode="host", cap_drop=["ALL"], environment=bucket.environment(),
    )  # fmt: skip
    try:
        assert ask(container, "http://127.0.0.1:18766/readyz")["model_id"] == champion
    finally:
        container.remove(force=True)


@pytest.mark.parametrize("kind", build.KINDS)
def test_the_bill_of_an_image_does_not_list_what_it_must_not_hold(engine: Any, tmp_path: Path, kind: str) -> None:
    tool = docker_command.find_docker()
    reference = getattr(names, kind.upper())
    result = engine.images.get(reference)
    built = build.BuiltImage(
        kind,
        reference,
        result.id,
        result.attrs["Size"],
        0.0,
        contents.read_inventory(reference, tool=tool),
        result.labels,
    )
    held = package_names(sbom.write_sbom(built, tmp_path))
    assert {"rankline", "pydantic"} <= held
    assert ("torch" in held) == (kind == "train")
    assert ("transformers" in held) == (kind == "train")
    assert ("kfp" in held) == (kind != "serve")
    assert len(built.inventory.debian) > 50


@pytest.mark.parametrize("kind", build.KINDS)
def test_an_image_carries_no_cache_no_compiler_and_no_root(engine: Any, kind: str) -> None:
    reference = getattr(names, kind.upper())
    script = "ls -A /root/.cache/pip /tmp; command -v gcc cc make; find / -xdev -path '*/pip/*' -name '*.whl'; true"
    result = engine.containers.run(
        reference, ["-c", script], entrypoint=["sh"], user="0", remove=True, network_mode="none", stderr=False
    )
    assert result.decode().split() == ["/root/.cache/pip:", "/tmp:"]
    assert engine.images.get(reference).attrs["Config"]["User"] == "10001:10001"


@pytest.mark.parametrize("kind", build.KINDS)
def test_our_package_was_built_by_what_the_lock_names(engine: Any, kind: str) -> None:
    script = "import importlib.metadata as m; print(m.distribution('rankline').read_text('WHEEL'))"
    result = engine.containers.run(
        getattr(names, kind.upper()), ["-c", script], entrypoint=["python"], remove=True, network_mode="none"
    )
    locked = dict(line.split("==") for line in (build.SOURCE_ROOT / "constraints.lock").read_text().split())
    assert f"Generator: setuptools ({locked['setuptools']})" in result.decode()


def test_an_image_of_another_kind_is_refused(engine: Any, tmp_path: Path) -> None:
    """The real train image under the name of another kind: the same look inside refuses it."""
    inventory = contents.read_inventory(names.TRAIN, tool=docker_command.find_docker())
    assert contents.content_violations("train", "cpu", inventory) == []
    assert "it holds torch" in contents.content_violations("serve", "cpu", inventory)


# The server in its container.


def test_the_promoted_model_is_served_from_its_container(workspace: Path, engine: Any) -> None:
    """As the image's own user, on a workspace it may only read, at another path than where it was written."""
    container = engine.containers.run(
        names.SERVE, ["--host", "127.0.0.1", "--port", "18765"], detach=True, network_mode="host",
        volumes={str(workspace): {"bind": "/rankline", "mode": "ro"}}, cap_drop=["ALL"],
    )  # fmt: skip
    try:
        result = ask(container, "http://127.0.0.1:18765/readyz")
        until(lambda: ask(container, "http://127.0.0.1:18765/readyz")["features"]["state"] == "ready")
        answer = ask(container, "http://127.0.0.1:18765/v1/recommend", {"user_id": "u1", "k": 3})
        assert result["model_id"] == answer["model_id"] == ModelRegistry(workspace / "repository").champion()
        assert len(answer["items"]) == 3
        assert not answer.get("degraded")
        container.stop(timeout=20)
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True)


def ask(container: Any, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a server that comes up answers; fails with its log if it never does."""
    request = urllib.request.Request(
        url, json.dumps(body).encode() if body else None, {"content-type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(300):
        try:
            result: dict[str, Any] = json.loads(opener.open(request, timeout=10).read())
            return result
        except OSError:
            time.sleep(0.1)
    raise AssertionError(container.logs().decode())
