"""The package for a cluster: its contents, that compiling is deterministic, and which recipes are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.package import compile_flow
from pipelines.recipe import step_settings
from pipelines.recipes import RECIPES
from pipelines.steps import row_of_task
from rankline.errors import UsageError
from rankline.runtime.outcomes import Outcome
from rankline.runtime.steps import TRAINING_STEPS, Flow
from tests.pipelines import golden

ROOT = Path(__file__).resolve().parents[2]
STEPS = [step.replace("_", "-") for step in TRAINING_STEPS]  # as Kubeflow writes them
# task of a verdict -> Kubeflow's name of the branch that it runs in
VERDICTS = {"refused": "condition-3"}
TASKS = {*STEPS, "summary", *VERDICTS}
STEP_GROUP, GATE = "exit-handler-1", "condition-2"  # Kubeflow's names of the two groups


@pytest.fixture(scope="module", params=sorted(RECIPES))
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(recipe, its package), for each recipe."""
    output = tmp_path_factory.mktemp("package") / "flow.yaml"
    return request.param, compile_flow(golden.pinned(request.param), output)


def load(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))  # many times as fast as the other one


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and the platform document of a package."""
    pipeline, platform = load(path)
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def with_settings(tmp_path: Path, *settings: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return documents(compile_flow(golden.pinned("movielens", *settings), tmp_path / "flow.yaml"))


def steps_of(pipeline: dict[str, Any]) -> dict[str, Any]:
    """The tasks between the first step and the gate."""
    tasks: dict[str, Any] = pipeline["components"][f"comp-{STEP_GROUP}"]["dag"]["tasks"]
    return tasks


def promotion_of(pipeline: dict[str, Any]) -> dict[str, Any]:
    """The tasks behind the gate."""
    tasks: dict[str, Any] = pipeline["components"][f"comp-{GATE}"]["dag"]["tasks"]
    return tasks


def config_of(task: dict[str, Any]) -> dict[str, Any]:
    """The settings that a task passes to its component."""
    config: dict[str, Any] = task["inputs"]["parameters"]["config"]["runtimeValue"]["constant"]
    return config


@pytest.mark.parametrize("flow", golden.FLOWS)
def test_it_is_the_golden_file(tmp_path: Path, flow: Flow) -> None:
    path = compile_flow(golden.pinned("smoke"), tmp_path / "flow.yaml", flow=flow)
    assert path.read_text() == golden.path(flow).read_text(), "look at the difference, then `make golden`"


def test_each_flow_has_one_golden_file() -> None:
    assert {path for path in golden.FOLDER.rglob("*") if path.is_file()} == {golden.path(flow) for flow in golden.FLOWS}


def test_every_setting_of_a_recipe_lands_in_its_package(package: tuple[str, Path]) -> None:
    recipe, path = package
    pipeline, _ = documents(path)
    tasks = {**pipeline["root"]["dag"]["tasks"], **steps_of(pipeline), **promotion_of(pipeline)}
    recipe_settings = step_settings(golden.pinned(recipe), golden.pinned(recipe).cluster.workspace)
    expected = {step: json.loads(json.dumps(recipe_settings[step])) for step in (*TRAINING_STEPS[1:], "summary")}
    landed = {step: config_of(tasks[step]) for step in expected}
    for each in (expected, landed):
        del each["summary"]["gpus"]  # counted while compiling
    assert landed == expected
    data = tasks["resolve-inputs"]["inputs"]["parameters"]["data"]["runtimeValue"]["constant"]
    assert data == expected["ingest"]


@pytest.mark.integration
@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_writes_the_same_bytes(tmp_path: Path, seed: str) -> None:
    script = (
        "import sys; from pathlib import Path; from pipelines.package import compile_flow;"
        "from tests.pipelines import golden; compile_flow(golden.pinned('smoke'), Path(sys.argv[1]))"
    )
    output = tmp_path / "flow.yaml"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(output)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    assert output.read_bytes() == golden.path("train").read_bytes()


@pytest.mark.integration
def test_it_loads_again_and_compiles_to_itself(package: tuple[str, Path], tmp_path: Path) -> None:
    from kfp import compiler, components

    loaded = components.load_component_from_file(str(package[1]))
    compiler.Compiler().compile(loaded, str(tmp_path / "again.yaml"))
    assert load(tmp_path / "again.yaml") == load(package[1])


def test_the_steps_run_in_their_order(package: tuple[str, Path]) -> None:
    pipeline, _ = documents(package[1])
    tasks = {name: task for name, task in steps_of(pipeline).items() if name not in VERDICTS.values()}
    gate = promotion_of(pipeline)
    before = {name: set(task.get("dependentTasks", ())) for name, task in tasks.items()}
    order: list[str] = []
    while before:
        ready = [name for name, needs in before.items() if needs <= set(order)]
        assert len(ready) == 1, f"{ready} could run in any order"
        order += ready
        del before[ready[0]]
    assert [*order[:-1], *gate] == STEPS
    assert order[-1] == GATE


def test_the_gate_is_a_branch_and_the_summary_the_exit_handler(package: tuple[str, Path]) -> None:
    pipeline, _ = documents(package[1])
    gate = steps_of(pipeline)[GATE]
    assert gate["triggerPolicy"]["condition"].endswith("== 'promote'")
    assert gate["taskInfo"]["name"] == "gates-met"
    assert "decide" in gate["dependentTasks"]
    last = pipeline["root"]["dag"]["tasks"]["summary"]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert last["dependentTasks"] == [STEP_GROUP]


def test_a_refusal_has_a_task_of_its_name(package: tuple[str, Path]) -> None:
    pipeline, _ = documents(package[1])
    for task, group in VERDICTS.items():
        branch = steps_of(pipeline)[group]
        assert branch["triggerPolicy"]["condition"].endswith(f"== '{task}'")
        assert list(pipeline["components"][f"comp-{group}"]["dag"]["tasks"]) == [task]


def test_so_has_waiting_for_a_review_where_models_are_reviewed(tmp_path: Path) -> None:
    pipeline, _ = with_settings(tmp_path, "decide.mode=review")
    branches = {name: task["taskInfo"]["name"] for name, task in steps_of(pipeline).items() if "condition" in name}
    assert branches == {GATE: "gates-met", "condition-3": "refused", "condition-4": "pending"}


@pytest.mark.parametrize(
    ("mode", "branches"), [("auto", {"promote", "refused"}), ("review", {"promote", "refused", "pending"})]
)
def test_each_verdict_takes_its_branch_and_one_takes_none(mode: str, branches: set[str]) -> None:
    """What a cluster's API cannot tell from the branch that ran is then one verdict alone."""
    from rankline.evaluation.decision import Verdict

    verdicts = set(typing.get_args(Verdict.model_fields["outcome"].annotation))
    possible = verdicts - ({"pending"} if mode == "auto" else {"promote"})
    none = {verdict for verdict in possible if Outcome.of_verdict(verdict).branch not in branches}
    assert none == {"already_serving"}


def test_a_local_flow_has_no_verdict_tasks() -> None:
    from kfp import compiler  # noqa: F401

    from pipelines.training import training_pipeline

    spec = training_pipeline(golden.pinned("smoke"), workspace="/rankline").pipeline_spec
    assert set(spec.deployment_spec["executors"]) == {f"exec-{task}" for task in TASKS - set(VERDICTS)}
    assert not spec.root.input_definitions.parameters


def test_every_step_has_its_image_resources_timeout_and_volume(package: tuple[str, Path]) -> None:
    recipe, path = package
    pipeline, platform = documents(path)
    config = golden.pinned(recipe).cluster
    executors = pipeline["deploymentSpec"]["executors"]
    assert set(executors) == {f"exec-{step}" for step in TASKS}
    for step in TASKS:
        container, size = executors[f"exec-{step}"]["container"], getattr(config, row_of_task(step).size)
        assert container["image"] == getattr(config.images, row_of_task(step).image)
        assert (container["resources"]["resourceCpuLimit"], container["resources"]["resourceMemoryLimit"]) == (
            size.cpu,
            size.memory,
        )
        requests = {name: container["resources"][f"resource{name.title()}Request"] for name in ("cpu", "memory")}
        assert requests == size.requests
        gpu = container["resources"].get("accelerator", {"resourceCount": "0", "resourceType": size.gpu_type})
        assert (gpu["resourceCount"], gpu["resourceType"]) == (str(size.gpus), size.gpu_type)
        assert platform[f"exec-{step}"]["activeDeadlineSeconds"] == str(size.timeout_s)
        assert platform[f"exec-{step}"]["securityContext"] == {"runAsNonRoot": True}
        (mount,) = platform[f"exec-{step}"]["pvcMount"]
        assert (mount["constant"], mount["mountPath"]) == (config.volume, config.workspace)


def test_long_steps_are_retried_and_none_is_cached(package: tuple[str, Path]) -> None:
    pipeline, _ = documents(package[1])
    tasks: dict[str, Any] = {}
    for component in [pipeline["root"], *pipeline["components"].values()]:
        tasks |= component.get("dag", {}).get("tasks", {})
    assert set(tasks) == TASKS | {STEP_GROUP, GATE, *VERDICTS.values()}
    for step in TASKS:
        # retries are for steps that a lost node may end, not for those that only look and decide
        once = step in ("resolve-inputs", "decide", "summary", *VERDICTS)
        assert tasks[step].get("retryPolicy", {}).get("maxRetryCount", 0) == (0 if once else 2)
        assert "enableCache" not in tasks[step]["cachingOptions"]


def test_only_training_requests_gpus_and_the_smoke_recipe_none(tmp_path: Path) -> None:
    def with_gpu(pipeline: dict[str, Any]) -> set[str]:
        executors = pipeline["deploymentSpec"]["executors"]
        return {name for name, executor in executors.items() if "accelerator" in executor["container"]["resources"]}

    movielens, _ = with_settings(tmp_path)
    assert with_gpu(movielens) == {"exec-finetune", "exec-distill"}
    assert with_gpu(documents(golden.path("train"))[0]) == set()
    assert config_of(movielens["root"]["dag"]["tasks"]["summary"])["gpus"] == {"finetune": 1, "distill": 1}


def test_paths_are_those_of_the_clusters_workspace(package: tuple[str, Path]) -> None:
    text = package[1].read_text()
    assert "/rankline/material/" in text
    assert "{workspace}" not in text
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_a_changed_setting_lands_in_the_package(tmp_path: Path) -> None:
    pipeline, platform = with_settings(
        tmp_path,
        "finetune.epochs=7",
        "cluster.workspace=/mnt/shared",
        "cluster.volume=shared",
        "cluster.train.gpus=2",
        "cluster.train.gpu_type=amd.com/gpu",
        "cluster.train.memory=40Gi",
        "cluster.train.timeout_s=7200",
        "cluster.train.retries=0",
        "cluster.train.node_selector.pool=gpus",
        "cluster.secrets.MLFLOW_TRACKING_PASSWORD=mlflow/password",
    )
    steps = steps_of(pipeline)
    assert config_of(steps["finetune"])["epochs"] == 7
    assert "retryPolicy" not in steps["finetune"]
    resources = pipeline["deploymentSpec"]["executors"]["exec-finetune"]["container"]["resources"]
    gpu = resources["accelerator"]
    assert (gpu["resourceCount"], gpu["resourceType"]) == ("2", "amd.com/gpu")
    assert resources["resourceMemoryRequest"] == "40Gi"
    executor = platform["exec-finetune"]
    assert executor["activeDeadlineSeconds"] == "7200"
    assert executor["nodeSelector"] == {"labels": {"pool": "gpus"}}
    assert (executor["pvcMount"][0]["constant"], executor["pvcMount"][0]["mountPath"]) == ("shared", "/mnt/shared")
    for step in TASKS:
        (secret,) = platform[f"exec-{step}"]["secretAsEnv"]
        assert secret["secretName"] == "mlflow"
        assert secret["keyToEnv"] == [{"envVar": "MLFLOW_TRACKING_PASSWORD", "secretKey": "password"}]
    assert "/mnt/shared/material/ml-100k" in str(steps["resolve-inputs"])


def test_without_a_volume_none_is_mounted(tmp_path: Path) -> None:
    _, platform = with_settings(tmp_path, "cluster.volume=")
    assert len(platform) == len(TASKS)
    assert not any("pvcMount" in executor for executor in platform.values())
    mounts = {each["mountPath"] for executor in platform.values() for each in executor["emptyDirMounts"]}
    assert mounts == {"/rankline"}


def test_with_a_bucket_the_volume_is_scratch_space_and_outputs_are_references(tmp_path: Path) -> None:
    pipeline, platform = with_settings(tmp_path, "storage.workspace=s3://shop/rankline", "storage.artifacts=s3://work")
    assert not any("pvcMount" in executor for executor in platform.values())
    steps = [task for task in steps_of(pipeline).values() if "triggerPolicy" not in task]  # a verdict's branch has one
    assert len(steps) > 5
    for task in steps:
        run = task["inputs"]["parameters"]["run"]["runtimeValue"]["constant"]
        assert run["references"] is True
        assert run["storage"] == {
            "workspace": "s3://shop/rankline",
            "repository": "s3://shop/rankline/repository",
            "artifacts": "s3://work",
            "checkpoints": "s3://shop/rankline/checkpoints",
        }


def test_without_a_shared_cache_outputs_are_passed_on_whole(tmp_path: Path) -> None:
    pipeline, _ = with_settings(tmp_path, "cluster.volume=")
    assert "references" not in str(steps_of(pipeline)["ingest"])


def test_a_run_knows_its_recipe_and_its_flow(tmp_path: Path) -> None:
    recipe = golden.pinned("smoke")
    pipeline, _ = documents(compile_flow(recipe, tmp_path / "flow.yaml", flow="refresh"))
    parameters = steps_of(pipeline)["resolve-inputs"]["inputs"]["parameters"]
    written = json.loads(parameters["recipe"]["runtimeValue"]["constant"])
    assert (written["name"], written["ingest"]["only_items"]) == ("smoke", True)
    assert parameters["run"]["runtimeValue"]["constant"]["flow"] == "refresh"


@pytest.mark.parametrize("image", ["", "registry.example/rankline-data:0.1.0", "@sha256:", "a b@sha256:zz"])
def test_an_image_that_is_not_pinned_is_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(UsageError) as refusal:
        with_settings(tmp_path, f"cluster.images.data={image}")
    assert "the data image is not pinned" in str(refusal.value)
    assert "--set cluster.images.data=" in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_key_of_user_ids_that_no_step_would_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not reach the steps") as refusal:
        with_settings(tmp_path, "ingest.hash_users=RANKLINE_ID_KEY")
    assert "--set cluster.secrets.RANKLINE_ID_KEY=" in str(refusal.value)
    secret = "cluster.secrets.RANKLINE_ID_KEY=rankline-ids/key"
    _, executors = with_settings(tmp_path, "ingest.hash_users=RANKLINE_ID_KEY", secret)
    assert "rankline-ids" in json.dumps(executors["exec-ingest"])


def test_cuda_without_a_requested_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="finetune trains on cuda, and no GPU is requested"):
        with_settings(tmp_path, "finetune.device=cuda", "cluster.train.gpus=0")
    with_settings(tmp_path, "finetune.device=cuda")


def test_a_package_is_yaml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ending in \.yaml"):
        compile_flow(golden.pinned("smoke"), tmp_path / "flow.json")


# small steps that share a pod


def test_packed_there_are_seven_tasks_and_no_branch(tmp_path: Path) -> None:
    pipeline, platform = with_settings(
        tmp_path, "cluster.pack=true", "cluster.small.cpu=3", "cluster.data.memory=9Gi", "cluster.data.timeout_s=600"
    )
    tasks = pipeline["root"]["dag"]["tasks"]
    order = ["prepare", "featurize", "finetune", "distill", "export", "evaluate", "conclude"]
    assert sorted(tasks, key=order.index) == order
    assert not any("triggerPolicy" in task for task in tasks.values())
    assert set(pipeline["deploymentSpec"]["executors"]) == {f"exec-{task}" for task in order}
    container = pipeline["deploymentSpec"]["executors"]["exec-prepare"]["container"]
    assert "rankline-python-data" in container["image"]
    resources = container["resources"]
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("3", "9Gi")  # of its largest step
    assert platform["exec-prepare"]["activeDeadlineSeconds"] == str(900 + 600 + 600)  # of all
    assert platform["exec-conclude"]["activeDeadlineSeconds"] == str(900 + 600)


def test_packed_the_settings_are_those_of_the_steps(tmp_path: Path) -> None:
    settings = step_settings(golden.pinned("movielens"), "/rankline")
    plain = with_settings(tmp_path)[0]
    tasks = with_settings(tmp_path, "cluster.pack=true")[0]["root"]["dag"]["tasks"]
    for task, step in {"prepare": ("ingest", "validate"), "conclude": ("decide", "promote")}.items():
        for name in step:
            constant = tasks[task]["inputs"]["parameters"][f"{name}_config"]["runtimeValue"]["constant"]
            assert constant == json.loads(json.dumps(settings[name]))
    for name in ("featurize", "evaluate"):
        assert config_of(tasks[name]) == config_of(steps_of(plain)[name])


def test_packed_the_features_flow_has_three_tasks(tmp_path: Path) -> None:
    path = compile_flow(golden.pinned("smoke", "cluster.pack=true"), tmp_path / "flow.yaml", flow="features")
    assert set(documents(path)[0]["root"]["dag"]["tasks"]) == {"prepare", "featurize", "materialize"}


@pytest.mark.parametrize("flow", ["train", "refresh", "features"])
def test_a_run_may_be_limited_and_its_pods_kept(tmp_path: Path, flow: Flow) -> None:
    recipe = golden.pinned("smoke", "cluster.run_timeout_s=7200", "cluster.keep_s=86400")
    _, platform = yaml.safe_load_all(compile_flow(recipe, tmp_path / "limited.yaml", flow=flow).read_text())
    limits = platform["platforms"]["kubernetes"]["pipelineConfig"]
    assert limits == {"activeDeadlineSeconds": 7200, "resourceTtlOnCompletion": 86400}
    _, platform = yaml.safe_load_all(golden.path(flow).read_text())
    assert platform["platforms"]["kubernetes"]["pipelineConfig"].keys() == {"activeDeadlineSeconds"}


SECONDS = ("small.timeout_s=100", "data.timeout_s=200", "train.timeout_s=300", "serve.timeout_s=400")
ONE_ATTEMPT = tuple(f"{size}.retries=0" for size in ("small", "data", "train", "serve"))
HOUR = 3600


@pytest.mark.parametrize(
    ("flow", "settings", "expected"),
    [
        # resolve_inputs, decide, summary; ingest, validate, featurize, promote; finetune, distill; export, evaluate
        ("train", ONE_ATTEMPT, 3 * 100 + 4 * 200 + 2 * 300 + 2 * 400 + HOUR),
        ("train", (*ONE_ATTEMPT[:2], "train.retries=2", "serve.retries=0"),
         3 * 100 + 4 * 200 + 2 * (3 * 300 + 30 + 60) + 2 * 400 + HOUR),
        ("train", (*ONE_ATTEMPT, "pack=true"),
         (100 + 2 * 200) + 200 + 2 * 300 + 2 * 400 + (100 + 200) + 100 + HOUR),
        ("features", ONE_ATTEMPT, 2 * 100 + 4 * 200 + HOUR),
        ("refresh", (*ONE_ATTEMPT, "pack=true"), 2 * 100 + 2 * 200 + 400 + HOUR),
        ("train", ("train.timeout_s=2000000000", "run_timeout_s=0"), 2**31 - 1),
    ],
)  # fmt: skip
def test_a_run_that_nobody_watches_has_a_deadline(
    tmp_path: Path, flow: Flow, settings: tuple[str, ...], expected: int
) -> None:
    recipe = golden.pinned("smoke", *(f"cluster.{each}" for each in (*SECONDS, *settings)))
    _, platform = yaml.safe_load_all(compile_flow(recipe, tmp_path / "flow.yaml", flow=flow).read_text())
    assert platform["platforms"]["kubernetes"]["pipelineConfig"] == {"activeDeadlineSeconds": expected}
