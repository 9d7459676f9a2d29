"""The production set-up in docs/cluster.md: each of its blocks is checked by what would read it."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow.conformance import PINNED_IMAGE
from tests.cli.test_main import COMMANDS

PAGE = Path(__file__).resolve().parents[2] / "docs/cluster.md"
SECTION = PAGE.read_text().partition("## A production set-up, from nothing\n")[2].partition("\n## ")[0]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def manifests() -> list[dict[str, Any]]:
    return [each for block in blocks("yaml") for each in yaml.safe_load_all(block)]


def commands() -> list[list[str]]:
    return [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]


MODELS = {
    "PersistentVolumeClaim": "V1PersistentVolumeClaim", "Job": "V1Job", "StatefulSet": "V1StatefulSet",
    "Service": "V1Service", "Deployment": "V1Deployment",
}  # fmt: skip


def unknown(value: Any, model: str, path: str) -> Iterator[str]:
    """Fields that a model of Kubernetes does not have; its own checks raise errors for missing and invalid ones."""
    from kubernetes import client

    inner = re.sub(r"^(list\[|dict\(str, )(.*)[\])]$", r"\2", model)
    if inner != model:
        each = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in each:
            yield from unknown(one, inner, f"{path}.{name}")
    elif kind := getattr(client.models, inner, None):
        names = {json_name: attribute for attribute, json_name in kind.attribute_map.items()}
        yield from (f"{path}.{name}" for name in set(value) - set(names))
        for name in set(value) & set(names):
            yield from unknown(value[name], kind.openapi_types[names[name]], f"{path}.{name}")
        kind(**{names[name]: value[name] for name in set(value) & set(names)})
    elif (inner == "str" and not isinstance(value, str)) or (inner == "int" and type(value) is not int):
        yield f"{path}: {value!r} is no {inner}"


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: f"{each['kind']}/{each['metadata']['name']}")
def test_a_manifest_has_only_fields_of_kubernetes(manifest: dict[str, Any]) -> None:
    assert list(unknown(manifest, MODELS[manifest["kind"]], manifest["kind"])) == []
    assert manifest["metadata"]["namespace"] == "team"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["spec"].update(colour="red"), "colour"),
        (lambda m: m["spec"]["template"]["spec"]["containers"][0].update(ports=[{"containerPort": "a"}]), "is no int"),
        (
            lambda m: m["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "A", "value": 5}),
            "is no str",
        ),
        (lambda m: m["spec"].pop("selector"), "must not be `None`"),
        (lambda m: m["spec"]["template"]["spec"]["containers"][0].pop("name"), "must not be `None`"),
    ],
)
def test_a_wrong_manifest_is_noticed(change: Any, message: str) -> None:
    manifest = next(each for each in manifests() if each["kind"] == "Deployment")
    change(manifest)
    try:
        problems = str(list(unknown(manifest, "V1Deployment", "")))
    except ValueError as error:
        problems = str(error)
    assert message in problems


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe of the page, from a file beside its map."""
    from pipelines.recipes import named

    (tmp_path / "acme.py").write_text(blocks("python")[0])
    (tmp_path / "shop.toml").write_text(blocks("toml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield named("acme:shop")
    sys.modules.pop("acme", None)


def test_the_recipe_compiles(recipe: Any, tmp_path: Path) -> None:
    from pipelines.kubeflow.recurring_runs import RecurringRunSpec
    from pipelines.package import compile_flow

    assert recipe.ingest.columns.event_types == tomllib.loads(blocks("toml")[0])["columns"]["event_types"]
    window = RecurringRunSpec(name="nightly", cron="0 0 3 * * *", window="90d", lag="6h").scheduled_window()
    package = compile_flow(recipe, tmp_path / "flow.yaml", schedule=window).read_text()
    for text in ("s3://acme-rankline/work", "s3://acme-shop/log", "file:///rankline/mlflow", "rankline-s3"):
        assert text in package
    assert "{workspace}/material" not in package


def test_the_manifests_have_what_the_recipe_names(recipe: Any) -> None:
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in manifests()}
    assert ("PersistentVolumeClaim", recipe.cluster.volume) in by_name
    assert by_name["PersistentVolumeClaim", recipe.cluster.volume]["spec"]["accessModes"] == ["ReadWriteMany"]
    host = recipe.promote.tracking_uri.partition("@")[2].partition(".")[0]
    assert ("Service", host) in by_name
    ui = by_name["Deployment", "mlflow"]["spec"]["template"]["spec"]["containers"][0]
    assert recipe.promote.tracking_uri in ui["command"]
    assert recipe.promote.artifact_location.startswith(f"file://{recipe.cluster.workspace}/")
    assert ui["volumeMounts"][0]["mountPath"] == recipe.cluster.workspace
    server = by_name["Deployment", "rankline"]["spec"]["template"]["spec"]["containers"][0]
    assert recipe.storage.repository in server["args"]
    # the secrets are created with exactly the keys that are read
    created = {
        (words[words.index("generic") + 1], word.split("=")[1])
        for words in commands()
        if "secret" in words
        for word in words
        if word.startswith("--from-literal=")
    }
    read = {tuple(key.split("/")) for key in recipe.cluster.secrets.values()}
    for manifest in manifests():
        for text in re.findall(r"'secretKeyRef': (\{[^}]*\})", str(manifest)):
            reference = yaml.safe_load(text)
            read.add((reference["name"], reference["key"]))
    assert read == created


def test_every_image_is_pinned_except_the_database() -> None:
    images = re.findall(r"image: (\S+)", SECTION)
    assert len(images) == 4
    assert [image for image in images if not PINNED_IMAGE.match(image)] == ["postgres:15"]


@pytest.mark.parametrize("words", [w for w in commands() if w[0] == "rankline"], ids=" ".join)
def test_a_command_has_these_options(words: list[str], recipe: Any) -> None:
    path: list[str] = []
    for word in words[1:]:
        if (*path, word) not in COMMANDS:
            break
        path.append(word)
    command = COMMANDS[tuple(path)]
    known = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    assert [word for word in words if word.startswith("-") and word.split("=")[0] not in known] == []
    command.make_context("rankline", words[1 + len(path) :], resilient_parsing=False)


def test_the_server_accepts_its_arguments() -> None:
    args = next(e for e in manifests() if e["metadata"]["name"] == "rankline" and e["kind"] == "Deployment")
    COMMANDS[("serve",)].make_context(
        "serve", list(args["spec"]["template"]["spec"]["containers"][0]["args"]), resilient_parsing=False
    )
