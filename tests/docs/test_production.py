"""The production set-up in docs/cluster.md: each of its blocks is checked by what would read it."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow.conformance import PINNED_IMAGE
from pipelines.kubeflow.manifests.write import SetUp, write_manifests
from tests.cli.test_main import COMMANDS
from tests.pipelines.kubeflow.pod_security import violations
from tests.servers.kubernetes import problems

PAGE = Path(__file__).resolve().parents[2] / "docs/cluster.md"
SECTION = PAGE.read_text().partition("## A production set-up, from nothing\n")[2].partition("\n## ")[0]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def manifests() -> list[dict[str, Any]]:
    return [each for block in blocks("yaml") for each in yaml.safe_load_all(block)]


def commands() -> list[list[str]]:
    return [shlex.split(line.partition(" | ")[0]) for block in blocks("sh") for line in block.splitlines()]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: f"{each['kind']}/{each['metadata']['name']}")
def test_a_manifest_is_what_kubernetes_takes_and_fits_restricted(manifest: dict[str, Any]) -> None:
    assert list(problems(manifest, f"V1{manifest['kind']}")) == []
    assert manifest["metadata"]["namespace"] == "team"
    assert "template" not in manifest["spec"] or violations(manifest["spec"]["template"]["spec"]) == []


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
    manifest = next(each for each in manifests() if each["kind"] == "StatefulSet")
    change(manifest)
    assert message in str(list(problems(manifest, "V1StatefulSet")))


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


def test_the_manifests_have_what_the_recipe_names(recipe: Any, tmp_path: Path) -> None:
    """Those on the page and those that the page's `rankline cluster init` writes."""
    line = next(words for words in commands() if words[:3] == ["rankline", "cluster", "init"])
    written = write_manifests(
        SetUp(recipe, "acme:shop", "team", (), line[line.index("--server") + 1]), tmp_path / "out"
    )
    assert {"volume.yaml", "serve.yaml", "mlflow.yaml", "rollback.yaml"} <= set(written)
    documents = [*manifests(), *yaml.safe_load_all((tmp_path / "out" / "serve.yaml").read_text())]
    documents += yaml.safe_load_all((tmp_path / "out" / "mlflow.yaml").read_text())
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    host = recipe.promote.tracking_uri.partition("@")[2].partition(".")[0]
    assert ("Service", host) in by_name
    ui = by_name["Deployment", "mlflow"]["spec"]["template"]["spec"]["containers"][0]
    assert recipe.promote.tracking_uri in ui["command"]
    assert recipe.promote.artifact_location.startswith(f"file://{recipe.cluster.workspace}/")
    assert ui["volumeMounts"][0]["mountPath"] == recipe.cluster.workspace
    server = by_name["Deployment", "rankline"]["spec"]["template"]["spec"]["containers"][0]
    assert recipe.storage.repository in server["args"]
    assert all(PINNED_IMAGE.match(each["image"]) for each in (ui, server))
    # the secrets are printed from exactly the variables that the page sets, with the keys that are read
    exported = {word.partition("=")[0] for words in commands() if words[0] == "export" for word in words[1:]}
    assert set(recipe.cluster.secrets) <= exported
    read = {tuple(key.split("/")) for key in recipe.cluster.secrets.values()}
    for text in re.findall(r"'secretKeyRef': (\{[^}]*\})", str(documents)):
        reference = yaml.safe_load(text)
        assert (reference["name"], reference["key"]) in read


def test_every_image_is_pinned_except_the_database() -> None:
    images = re.findall(r"image: (\S+)", SECTION)
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
