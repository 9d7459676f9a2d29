"""The manifests of `rankline cluster init`: as Kubernetes takes them, within `restricted`, and as the recipe needs."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow.conformance import PINNED_IMAGE
from pipelines.kubeflow.manifests.write import SetUp, secret_manifests, write_manifests
from pipelines.kubeflow.preflight.secrets import PLACEHOLDER
from pipelines.recipes import named
from rankline.errors import UsageError
from tests.cli.in_process import rankline, refused
from tests.cli.test_main import COMMANDS
from tests.pipelines.kubeflow.pod_security import violations
from tests.servers.kubernetes import problems

IMAGES = {name: f"registry.example/{name}@sha256:{letter * 64}" for name, letter in
          (("data", "a"), ("train", "b"), ("evaluate", "c"))}  # fmt: skip
TRACKING = "postgresql+psycopg://mlflow@mlflow-db.team:5432/mlflow"
SETTINGS = (
    *(f"cluster.images.{name}={image}" for name, image in IMAGES.items()),
    'cluster.secrets={"AWS_ACCESS_KEY_ID": "s3/key", "AWS_SECRET_ACCESS_KEY": "s3/secret", '
    '"PGPASSWORD": "db/password"}',
    "storage.repository=s3://acme/models",
    f"promote.tracking_uri={TRACKING}",
)


def set_up(*settings: str, **changes: Any) -> SetUp:
    recipe = named("smoke", [*SETTINGS, *settings])
    return dataclasses.replace(SetUp(recipe, "smoke", "team", (*SETTINGS, *settings)), **changes)


@pytest.fixture(autouse=True)
def no_modules_of_other_tests() -> Iterator[None]:
    yield
    for name in ("team", "envs", "mine"):
        for module in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[module]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifests(set_up(), tmp_path / "team")
    return tmp_path / "team"


def manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """`file: Kind/name` -> every manifest in a folder, except kustomize's own."""
    resources = {}
    for path in sorted(folder.glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            if each["kind"] != "Kustomization":
                metadata = each["metadata"]
                resources[f"{path.stem}: {each['kind']}/{metadata.get('name') or metadata['generateName']}"] = each
    return resources


def pod_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    pod: dict[str, Any] | None = manifest.get("spec", {}).get("template", {}).get("spec")
    return pod


def test_they_are_what_kubernetes_takes(folder: Path) -> None:
    resources = manifests(folder)
    assert [name for name in resources if name.split("/")[1].startswith("rankline-rollback")] != []
    for name, manifest in resources.items():
        assert list(problems(manifest, f"V1{manifest['kind']}")) == [], name
        assert manifest["metadata"]["namespace"] == "team"


def test_kustomize_applies_what_exists(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["resources"] == [
        "service-account.yaml",
        "volume.yaml",
        "fetch.yaml",
        "serve.yaml",
        "mlflow.yaml",
    ]
    assert all((folder / name).is_file() for name in kustomization["resources"])
    assert not {"secrets.example.yaml", "volume-owner.yaml", "rollback.yaml"} & set(kustomization["resources"])


def test_every_pod_fits_pod_security_restricted(folder: Path) -> None:
    pods = {name: pod for name, each in manifests(folder).items() if (pod := pod_of(each))}
    assert len(pods) == 7
    refused = [name for name, pod in pods.items() if violations(pod)]
    assert refused == ["volume-owner: Job/rankline-volume-owner"]
    assert {pod["securityContext"]["runAsUser"] for name, pod in pods.items() if name not in refused} == {10001}


BREAKS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
    (lambda pod: pod["securityContext"].update(runAsUser=0), "runAsUser"),
    (lambda pod: pod["securityContext"].update(seccompProfile={"type": "Unconfined"}), "seccompProfile"),
    (lambda pod: pod["containers"][0].pop("securityContext"), "capabilities"),
    (lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    (lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]), "capabilities"),
    (lambda pod: pod["containers"][0]["securityContext"].update(privileged=True), "privileged"),
    (lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}]), "hostPort"),
    (lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volume x"),
    (lambda pod: pod.update(hostNetwork=True), "hostNetwork"),
]


@pytest.mark.parametrize(("change", "rule"), BREAKS, ids=[rule for _, rule in BREAKS])
def test_a_pod_outside_of_restricted_is_noticed(folder: Path, change: Callable[..., Any], rule: str) -> None:
    pod = pod_of(manifests(folder)["serve: Deployment/rankline"])
    assert pod is not None
    assert violations(pod) == []
    change(pod)
    assert rule in str(violations(pod))


def test_they_have_what_the_recipe_names(folder: Path) -> None:
    resources = manifests(folder)
    pods = [pod for each in resources.values() if (pod := pod_of(each))]
    images = {container["image"] for pod in pods for container in pod["containers"]}
    assert images == {IMAGES["data"], IMAGES["evaluate"]}
    assert all(PINNED_IMAGE.match(image) for image in images)
    accounts = {pod.get("serviceAccountName") for pod in pods}
    assert accounts == {"rankline", None}  # None: the job as root, which needs none
    assert "volume: PersistentVolumeClaim/rankline" in resources
    server = pod_of(resources["serve: Deployment/rankline"])
    assert server is not None
    assert server["containers"][0]["volumeMounts"] == [
        {"name": "workspace", "mountPath": "/rankline", "readOnly": True}
    ]
    assert [each["name"] for each in server["containers"][0]["env"]] == list(set_up().recipe.cluster.secrets)
    fetch = pod_of(resources["fetch: Job/rankline-fetch"])
    assert fetch is not None
    assert fetch["containers"][0]["command"] == ["sh", "-c", "rankline fetch smoke -w /rankline"]


@pytest.mark.parametrize(
    ("name", "path", "last"),
    [
        ("serve: Deployment/rankline", ("serve",), ["--repository", "s3://acme/models"]),
        ("rollback: Job/rankline-rollback-", ("rollback",), ["--repository", "s3://acme/models"]),
        ("logs: Job/rankline-logs-", ("runs", "logs"), ["--workspace", "/rankline"]),
    ],
)
def test_commands_have_these_options(folder: Path, name: str, path: tuple[str, ...], last: list[str]) -> None:
    pod = pod_of(manifests(folder)[name])
    assert pod is not None
    container = pod["containers"][0]
    assert container["command"] == ["rankline", *path]
    COMMANDS[path].make_context(path[-1], list(container["args"]), resilient_parsing=False)
    assert container["args"][-2:] == last


@pytest.mark.integration
def test_mlflow_answers_by_the_name_of_its_service(folder: Path) -> None:
    from mlflow.cli import cli
    from mlflow.server.security_utils import get_default_allowed_hosts, is_allowed_host_header

    resources = manifests(folder)
    pod, service = pod_of(resources["mlflow: Deployment/mlflow"]), resources["mlflow: Service/mlflow"]
    assert pod is not None
    command = pod["containers"][0]["command"]
    assert command[:2] == ["mlflow", "server"]
    context = cli.commands["server"].make_context("server", list(command[2:]), resilient_parsing=False)
    hosts = context.params["allowed_hosts"].split(",")
    name = service["metadata"]["name"]
    assert service["spec"]["ports"] == [{"port": 80, "targetPort": 5000}]  # so no port is in the Host header
    for host in (name, f"{name}.team", f"{name}.team.svc.cluster.local", "localhost:5000", "127.0.0.1:8080"):
        assert is_allowed_host_header(hosts, host), host
    for host in ("attacker.example", f"{name}.team.attacker.example"):
        assert not is_allowed_host_header(hosts, host), host
    assert not is_allowed_host_header(get_default_allowed_hosts(), f"{name}.team")  # what they are needed for


def test_what_is_not_needed_is_not_written(tmp_path: Path) -> None:
    bare = set_up("cluster.volume=", "promote.tracking_uri=", "cluster.secrets={}")
    bare = dataclasses.replace(bare, recipe=dataclasses.replace(bare.recipe, material=()))
    assert write_manifests(bare, tmp_path / "team") == [
        "service-account.yaml", "serve.yaml", "rollback.yaml", "kustomization.yaml", "on_cluster.py",
    ]  # fmt: skip
    pods = [pod for each in manifests(tmp_path / "team").values() if (pod := pod_of(each))]
    assert {str(pod["volumes"]) for pod in pods} == {"[{'name': 'workspace', 'emptyDir': {}}]"}


def test_two_recipes_of_a_namespace_have_objects_of_their_own(folder: Path, tmp_path: Path) -> None:
    write_manifests(set_up("cluster.volume=other", name="other"), tmp_path / "other")
    first, second = (
        {name.partition(": ")[2] for name in manifests(each) if "Secret/" not in name}
        for each in (folder, tmp_path / "other")
    )
    assert first & second == set()
    server = manifests(tmp_path / "other")["serve: Deployment/other"]
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert server["spec"]["selector"]["matchLabels"] == labels == {"app": "other"}
    pods = [
        pod for name, each in manifests(tmp_path / "other").items() if "owner" not in name and (pod := pod_of(each))
    ]
    assert [violations(pod) for pod in pods] == [[]] * 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"namespace": "Team_X"}, "--namespace is no name"),
        ({"namespace": "n" * 64}, "--namespace is no name"),
        ({"name": "-shop"}, "--name is no name"),
        ({"name": "1shop"}, "--name is no name"),
        ({"name": "s" * 41}, "--name is no name"),
        ({"settings": ("cluster.volume=my_vol",)}, "cluster.volume is no name"),
        ({"size": "0Gi"}, "the size of the claim is none"),
        ({"size": "large"}, "the size of the claim is none"),
        ({"settings": ("cluster.volume=", "storage.repository=")}, "share nothing"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_here(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    settings = change.pop("settings", ())
    with pytest.raises(UsageError, match=message):
        write_manifests(set_up(*settings, **change), tmp_path / "team")
    assert not (tmp_path / "team").exists()


def test_names_as_long_as_kubernetes_has_them_are_taken(tmp_path: Path) -> None:
    long = set_up(f"cluster.volume={'v' * 60}.shared", namespace="kubeflow-" + "n" * 54, name="s" * 40)
    assert "serve.yaml" in write_manifests(long, tmp_path / "team")


def test_a_path_with_a_blank_is_one_argument(tmp_path: Path) -> None:
    write_manifests(set_up("cluster.workspace=/my data"), tmp_path / "team")
    fetch = pod_of(manifests(tmp_path / "team")["fetch: Job/rankline-fetch"])
    assert fetch is not None
    assert shlex.split(fetch["containers"][0]["command"][-1])[-1] == "/my data"


def test_the_folder_of_other_images_is_written_over_if_that_is_asked_for(folder: Path) -> None:
    other = set_up(f"cluster.images.data=registry.example/data@sha256:{'f' * 64}")
    with pytest.raises(UsageError, match="other content") as refusal:
        write_manifests(other, folder)
    assert "--force" in refusal.value.hint
    write_manifests(other, folder, overwrite=True)
    assert "f" * 64 in (folder / "fetch.yaml").read_text()


def test_variables_that_pods_lack_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.0.0.7:9000")
    bucket = ("--set", "storage.workspace=s3://acme/team")
    done = rankline("cluster", "init", "team", "-n", "team", "-r", "smoke", *IMAGE_WORDS, *bucket)
    assert "AWS_ENDPOINT_URL is set here and not in the pods" in done.stderr
    named_in = ("--set", "cluster.secrets.AWS_ENDPOINT_URL=rankline-s3/url")
    done = rankline("cluster", "init", "other", "-n", "team", "-r", "smoke", *IMAGE_WORDS, *bucket, *named_in)
    assert done.returncode == 0, done.stderr
    assert "AWS_ENDPOINT_URL" not in done.stderr


def test_a_workspace_in_a_bucket_needs_no_volume(tmp_path: Path) -> None:
    written = write_manifests(set_up("storage.workspace=s3://acme/team"), tmp_path / "team")
    assert not {"volume.yaml", "volume-owner.yaml"} & set(written)
    resources = manifests(tmp_path / "team")
    fetch, server = (pod_of(resources[name]) for name in ("fetch: Job/rankline-fetch", "serve: Deployment/rankline"))
    assert fetch is not None
    assert fetch["containers"][0]["command"][-1] == "rankline fetch smoke -w s3://acme/team"
    assert server is not None
    args = server["containers"][0]["args"]
    assert args[2:4] == ["--workspace", "s3://acme/team"]
    COMMANDS["serve",].make_context("serve", list(args), resilient_parsing=False)
    assert "readOnly" not in str(server["containers"][0]["volumeMounts"])  # the copy of the bucket's small files


def test_the_recipe_of_the_folder_has_the_settings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = rankline("recipes", "show", "team.on_cluster:recipe")
    assert done.returncode == 0, done.stderr
    assert IMAGES["train"] in done.stdout


MAP = '[tables]\nevents = "events.csv"\n[columns]\nuser_id = "customer"\nitem_id = "sku"\n'
IMAGE_WORDS = tuple(word for setting in SETTINGS if "images" in setting for word in ("--set", setting))


def init(folder: str, *words: str) -> list[str]:
    """What `cluster init` names the recipe of its folder by, in each of the commands that it prints."""
    done = rankline("cluster", "init", folder, "-n", "team", *IMAGE_WORDS, *words)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  rankline ")]
    assert [words[1] for words in lines] == ["doctor", "submit"]
    return [next(word for word in words if word.endswith(":recipe")) for words in lines]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-r", "interactions", "--source", "s3://acme/log", "--map", "maps/shop.toml"), {"source": "s3://acme/log"}),
        (("-r", "labels", "--source", "/rankline/texts"), {"source": "/rankline/texts"}),
        (("-r", "mine:recipe", "--source", "s3://mine/log", "--map", "maps/shop.toml"), {"source": "s3://mine/log"}),
        (("-r", "mine.py:recipe", "--source", "maps", "--map", "maps/shop.toml"), {}),
        (("-r", "smoke", "--set", "decide=@maps/policy.toml"), {}),
        (("-r", "smoke", "--set", "decide=@maps/policy.toml", "--set", "decide=@maps/more.toml"), {}),
    ],
    ids=["with a map", "without a map", "a module of mine", "a file of mine", "a file of a section", "two of them"],
)
def test_the_recipe_of_the_folder_has_its_source_and_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("maps").mkdir()
    Path("maps/shop.toml").write_text(MAP)
    Path("maps/policy.toml").write_text("margin = 0.31\n")
    Path("maps/more.toml").write_text("min_requests = 77\n")
    Path("mine.py").write_text(
        "from pipelines.recipes import Recipe, interactions\n\n\n"
        "def recipe(path: str, map: str) -> Recipe:\n    return interactions(path, map)\n"
    )
    (reference, same) = init("team", *words)
    assert reference == same == "team.on_cluster:recipe"
    shutil.rmtree("maps")  # the folder alone is what is committed
    recipe = named(reference)
    assert {name: getattr(recipe.ingest, name) for name in expected} == expected
    if "--map" in words:
        assert recipe.ingest.columns.user_id == "customer"
    if "decide=@maps/policy.toml" in words:
        assert recipe.decide.margin == 0.31
    if "decide=@maps/more.toml" in words:
        assert recipe.decide.min_requests == 77
    if "maps" in words:
        assert recipe.ingest.source == str(tmp_path / "maps")
    monkeypatch.syspath_prepend(str(tmp_path))  # where mine.py is
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert named(f"{tmp_path}/team/on_cluster.py:recipe").ingest == recipe.ingest


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("team", "team.on_cluster:recipe"),
        ("envs/prod", "envs.prod.on_cluster:recipe"),
        ("../x", "../x/on_cluster.py:recipe"),
        ("my-team", "my-team/on_cluster.py:recipe"),
        ("class", "class/on_cluster.py:recipe"),
        ("with space", "with space/on_cluster.py:recipe"),
        ("statistics", "statistics/on_cluster.py:recipe"),  # which Python would import from its own library
        (".", "on_cluster.py:recipe"),
        ("{tmp_path}/far", "{tmp_path}/far/on_cluster.py:recipe"),
    ],
)
def test_the_commands_name_the_recipe_whatever_the_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, expected: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    references = init(folder.format(tmp_path=tmp_path), "-r", "smoke")
    assert set(references) == {expected.format(tmp_path=tmp_path)}
    assert named(references[0]).cluster.images.train == IMAGES["train"]


@pytest.mark.integration
def test_a_source_on_this_machine_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source, noted in (("data/log", True), ("/rankline/log", False), ("s3://acme/log", False)):
        done = rankline("cluster", "init", source.replace("/", "_"), "-r", "labels", "--source", source, "-n", "team",
                        *IMAGE_WORDS)  # fmt: skip
        assert ("not on this machine" in done.stderr) is noted, source


def test_the_claim_is_as_large_and_as_shared_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    init("one", "-r", "smoke", "--access-mode", "ReadWriteOnce", "--size", "5Gi")
    init("two", "-r", "smoke")
    specs = [manifests(tmp_path / name)["volume: PersistentVolumeClaim/rankline"]["spec"] for name in ("one", "two")]
    assert [each["accessModes"] for each in specs] == [["ReadWriteOnce"], ["ReadWriteMany"]]
    assert [each["resources"]["requests"]["storage"] for each in specs] == ["5Gi", "20Gi"]
    message = refused("cluster", "init", "three", "-r", "smoke", "-n", "team", *IMAGE_WORDS, "--size", "much", code=2)
    assert "such as 20Gi" in message
    assert not Path("three").exists()


def test_no_value_of_a_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set_up().recipe.cluster.secrets:
        monkeypatch.setenv(name, "pa55-not-to-be-seen")
    write_manifests(set_up(), tmp_path / "team")
    assert all("pa55" not in path.read_text() for path in (tmp_path / "team").iterdir())
    example = list(yaml.safe_load_all((tmp_path / "team" / "secrets.example.yaml").read_text()))
    assert {value for each in example for value in each["stringData"].values()} == {PLACEHOLDER}


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    values = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "PGPASSWORD": "p: #"}
    done = rankline("cluster", "secrets", "-r", "smoke", "-n", "team", *words, **values)
    printed = {each["metadata"]["name"]: each for each in yaml.safe_load_all(done.stdout)}
    assert {name: each["stringData"] for name, each in printed.items()} == {
        "s3": {"key": "k", "secret": "s"}, "db": {"password": "p: #"},
    }  # fmt: skip
    assert all(list(problems(each, "V1Secret")) == [] for each in printed.values())
    monkeypatch.delenv("PGPASSWORD", raising=False)
    message = refused("cluster", "secrets", "-r", "smoke", "-n", "team", *words, code=2, AWS_ACCESS_KEY_ID="k",
                      AWS_SECRET_ACCESS_KEY="s", PGPASSWORD="")  # fmt: skip
    assert "found: no PGPASSWORD" in message


def test_an_image_that_is_not_pinned_is_refused(tmp_path: Path) -> None:
    for wrong in (set_up("cluster.images.train=acme/train:1.0"), set_up(server="acme/serve:1.0")):
        with pytest.raises(UsageError, match="is not pinned"):
            write_manifests(wrong, tmp_path / "team")
    assert not (tmp_path / "team").exists()


def test_files_that_were_changed_are_not_replaced(folder: Path) -> None:
    assert write_manifests(set_up(), folder)  # the same again
    (folder / "serve.yaml").write_text("mine")
    with pytest.raises(UsageError, match="other content"):
        write_manifests(set_up(), folder)
    assert (folder / "serve.yaml").read_text() == "mine"


def test_the_command_says_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    done = rankline("cluster", "init", "team", "-r", "smoke", "-n", "team", *words)
    assert done.returncode == 0, done.stderr
    for line in (
        "kubectl apply -k team",
        "rankline doctor team.on_cluster:recipe",
        "rankline cluster secrets -r team.on_cluster:recipe",
    ):
        assert line in done.stdout
    assert secret_manifests(set_up().recipe, "team", from_environment=False)


def test_a_bucket_without_credentials_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = [setting for setting in SETTINGS if "images" in setting]
    words = [word for setting in (*images, "storage.workspace=s3://shop/line") for word in ("--set", setting)]
    done = rankline("cluster", "init", "bare", "-r", "smoke", "-n", "team", *words)
    assert done.returncode == 0, done.stderr
    assert "no secret names the credentials of s3://shop/line" in done.stderr
    words += ["--set", "cluster.secrets.AWS_ACCESS_KEY_ID=rankline-s3/key"]
    assert "no secret" not in rankline("cluster", "init", "named", "-r", "smoke", "-n", "team", *words).stderr


def test_the_templates_are_in_the_package() -> None:
    import tomllib

    root = Path(__file__).resolve().parents[3]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert data["pipelines.kubeflow.manifests"] == ["templates/*.yaml"]
