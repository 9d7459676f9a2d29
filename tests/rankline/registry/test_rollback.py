"""Rolling back to a model that served before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankline.errors import IntegrityError, RegistryError, StaleEvidence, UsageError
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.removal import delete_from_registry, remove
from rankline.registry.rollback import former_champions, roll_back
from tests.cli.in_process import rankline, refused
from tests.rankline.registry.test_model_registry import promote, tiny_bundle


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace in which three models have served; the third is the champion."""
    models = ModelRegistry(tmp_path / "ws" / "repository")
    for name in ("one", "two", "three"):
        bundle = tiny_bundle(tmp_path / name, weights=name.encode())
        models.add(bundle.folder)
        models.append("registered", bundle.model_id, who="test", why="new")
        promote(models, bundle.model_id)
    return tmp_path / "ws"


def models_of(workspace: Path) -> tuple[ModelRegistry, list[str]]:
    models = ModelRegistry(workspace / "repository")
    return models, [event.model_id for event in models.history() if event.kind == "promoted"]


def test_roll_back_and_forth(workspace: Path) -> None:
    models, (one, two, three) = models_of(workspace)
    assert former_champions(models.history()) == [two, one]
    event = json.loads(rankline("rollback", "-w", workspace, "--why", "too many returns", "--json").stdout)
    assert (event["kind"], event["model_id"], event["champion_before"]) == ("rolled_back", two, three)
    assert event["why"] == "too many returns"
    assert event["who"]
    assert models.champion() == two
    assert former_champions(models.history()) == [three, one]
    assert rankline("rollback", one[:6], "-w", workspace).stdout == (
        f"{one} serves again (event 8); before it was {two}\n"
    )
    assert models.champion() == one
    assert "rolled_back" in rankline("history", "-w", workspace).stdout


def go_back(models: ModelRegistry, workspace: Path, to: str = "") -> str:
    return roll_back(models, to=to, who="test", why="", workspace=workspace).model_id


def test_repeated_rollbacks_go_further_back(workspace: Path, tmp_path: Path) -> None:
    models, (one, two, three) = models_of(workspace)
    assert [go_back(models, workspace), go_back(models, workspace)] == [two, one]
    before = models.history()
    with pytest.raises(RegistryError, match="no model further back") as stop:
        go_back(models, workspace)
    assert three in str(stop.value)
    assert two in str(stop.value)
    assert models.history() == before
    # by name any model can serve again, and the one it replaced is no candidate
    assert go_back(models, workspace, three) == three
    with pytest.raises(RegistryError, match="no model further back"):
        go_back(models, workspace)
    # promoted again, a model is a candidate again
    for model in (one, two, three):
        promote(models, model)
    assert [go_back(models, workspace), go_back(models, workspace)] == [two, one]


def test_a_rollback_over_several_models_skips_them(workspace: Path) -> None:
    models, (one, _, _) = models_of(workspace)
    assert go_back(models, workspace, one) == one
    with pytest.raises(RegistryError, match="no model further back"):
        go_back(models, workspace)


def test_a_removed_model_is_no_rollback_candidate(workspace: Path) -> None:
    models, (one, two, _) = models_of(workspace)
    remove(models, two, who="gc", why="room", skipped=lambda history: False)
    assert former_champions(models.history()) == [one]
    with pytest.raises(RegistryError, match="not kept any more"):
        go_back(models, workspace, two)
    assert go_back(models, workspace) == one


@pytest.mark.integration
def test_impossible_rollbacks_are_refused(workspace: Path, tmp_path: Path) -> None:
    models, (_, two, three) = models_of(workspace)
    before = models.history()
    assert "no such model has served here" in refused("rollback", "feedfeed", "-w", workspace, code=2)
    assert f"model {three} already serves" in refused("rollback", three, "-w", workspace, code=2)
    assert "no workspace here" in refused("rollback", "-w", tmp_path / "nowhere", code=2)
    first = ModelRegistry(tmp_path / "first")
    with pytest.raises(RegistryError, match="no model to roll back to"):
        roll_back(first, to="", who="test", why="", workspace=tmp_path)
    (workspace / "repository" / "bundles" / two / "scorer.onnx").write_bytes(b"changed")
    with pytest.raises(IntegrityError):
        roll_back(models, to="", who="test", why="", workspace=workspace)
    assert models.history() == before


def test_a_model_whose_features_are_gone_does_not_come_back(workspace: Path) -> None:
    models, (_, two, three) = models_of(workspace)
    service = models.manifest(two).features.service
    (workspace / "online" / "ranker_v0").mkdir(parents=True)
    with pytest.raises(RegistryError, match="features of that model are not online") as stop:
        roll_back(models, to="", who="test", why="", workspace=workspace)
    assert "ranker_v0" in str(stop.value)
    assert models.champion() == three
    (workspace / "online" / service).mkdir()
    (workspace / "online" / service / "feature_store.yaml").write_text("project: rankline\n")
    assert roll_back(models, to="", who="test", why="", workspace=workspace).model_id == two


def test_an_ambiguous_id_is_refused(workspace: Path, tmp_path: Path) -> None:
    models, _ = models_of(workspace)
    for n in range(64):  # with sixteen hex digits, two of seventeen ids begin alike
        bundle = tiny_bundle(tmp_path / f"more{n}", weights=bytes([n]))
        models.add(bundle.folder)
        promote(models, bundle.model_id)
        begins = [model[0] for model in former_champions(models.history())]
        if shared := next((each for each in begins if begins.count(each) > 1), ""):
            break
    with pytest.raises(UsageError, match="several model ids begin like that"):
        roll_back(models, to=shared, who="test", why="", workspace=workspace)


def test_a_concurrent_promotion_wins(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, (one, two, _) = models_of(workspace)
    real = models.manifest

    def meanwhile(model_id: str):
        promote(ModelRegistry(workspace / "repository"), one)
        return real(model_id)

    monkeypatch.setattr(models, "manifest", meanwhile)
    with pytest.raises(StaleEvidence, match="the champion changed since this was asked for"):
        roll_back(models, to=two, who="test", why="", workspace=workspace)
    assert models.champion() == one


def test_a_model_that_was_removed_and_made_again_with_another_manifest_serves(tmp_path: Path) -> None:
    """The model id does not cover the manifest: what counts is the registration since the removal."""
    models = ModelRegistry(tmp_path / "repository")
    for n in range(2):
        bundle = tiny_bundle(tmp_path / f"made-{n}", code_digest=f"c{n}")
        models.add(bundle.folder)
        models.append("registered", bundle.model_id, who="t", why="t")
        if not n:
            remove(models, bundle.model_id, who="gc", why="old", skipped=lambda history: False)
            delete_from_registry(models, f"bundles/{bundle.model_id}")
    assert models.append("promoted", bundle.model_id, who="t", why="t").n == 4
    assert models.manifest(bundle.model_id).code_digest == "c1"
