"""resolve_inputs finds the digest of the source and the champion."""

from pathlib import Path

import pytest

from components.resolve_inputs.config import ResolveInputsConfig
from components.resolve_inputs.step import resolve_inputs
from rankline.errors import SourceError, UsageError
from rankline.registry.model_registry import ModelRegistry
from tests.serving.tiny_bundle import make_bundle, publish


def source(folder: Path, text: str) -> ResolveInputsConfig:
    folder.mkdir(exist_ok=True)
    for suffix in ("inter", "item"):
        (folder / f"data.{suffix}").write_text(text)
    return ResolveInputsConfig(source=str(folder))


def test_contents_decide_the_digest_and_their_place_does_not(tmp_path: Path) -> None:
    one = resolve_inputs(workspace=tmp_path, catalogue="shop", config=source(tmp_path / "one", "a:token\n1\n"))
    other = resolve_inputs(workspace=tmp_path, catalogue="shop", config=source(tmp_path / "other", "a:token\n1\n"))
    changed = resolve_inputs(workspace=tmp_path, catalogue="shop", config=source(tmp_path / "one", "a:token\n2\n"))
    assert one == other
    assert one["source_digest"] != changed["source_digest"]


def test_there_is_no_champion_in_a_new_workspace(tmp_path: Path) -> None:
    assert (
        resolve_inputs(workspace=tmp_path, catalogue="shop", config=source(tmp_path / "one", "a:token\n1\n"))[
            "champion"
        ]
        == ""
    )


def test_a_missing_source_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ingest\.source"):
        resolve_inputs(
            workspace=tmp_path, catalogue="shop", config=ResolveInputsConfig(source=str(tmp_path / "nowhere"))
        )


def test_a_workspace_serves_one_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shops' models never compete, and neither is served with the other's features."""
    publish(tmp_path / "repository", make_bundle(tmp_path / "bundle"))
    data, serves = source(tmp_path / "one", "a:token\n1\n"), ModelRegistry(tmp_path / "repository").champion()
    catalogue = ModelRegistry(tmp_path / "repository").manifest(serves).catalogue
    assert resolve_inputs(workspace=tmp_path, catalogue=catalogue, config=data)["champion"] == serves
    with pytest.raises(UsageError, match="rank another catalogue") as refused:
        resolve_inputs(workspace=tmp_path, catalogue="another", config=data)
    assert "-w" in refused.value.hint
    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")  # in a pod another folder is of no use
    with pytest.raises(UsageError, match="rank another catalogue") as refused:
        resolve_inputs(workspace=tmp_path, catalogue="another", config=data)
    assert "-w" not in refused.value.hint
    assert "cluster.volume" in refused.value.hint


def test_a_cluster_writes_its_recipe_within_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A volume that may not be written is the first fault that a new cluster has: one message, no stack trace."""
    from components.resolve_inputs.component import resolve_inputs as component

    data = source(tmp_path / "one", "a:token\n1\n").model_dump()
    run = {"workspace": str(tmp_path / "volume"), "catalogue": "shop"}
    component.python_func(data=data, run=run, job="run-1", recipe='{"name": "smoke"}')
    assert (tmp_path / "volume" / "runs" / "run-1" / "recipe.json").is_file()
    (tmp_path / "file").write_text("in the place of a volume")
    run["workspace"] = str(tmp_path / "file")
    monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    with pytest.raises(SystemExit) as refused:
        component.python_func(data=data, run=run, job="run-1", recipe='{"name": "smoke"}')
    assert "a file may not be read or written" in str(refused.value)
    assert "another claim (cluster.volume)" in str(refused.value)
    assert "rankline-result:" in capsys.readouterr().out
