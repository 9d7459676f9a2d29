"""`rankline items` and `rankline catalogue`: hiding and showing items, going back to a catalogue, and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from rankline.errors import RegistryError, StaleEvidence, UsageError
from rankline.model.bundle import Bundle
from rankline.registry import removal
from rankline.registry.model_registry import ModelRegistry
from tests.cli import command
from tests.cli.in_process import rankline, refused
from tests.serving.tiny_bundle import make_bundle, make_catalogue, publish, publish_catalogue


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A workspace with a champion in its repository."""
    bundle = make_bundle(tmp_path / "made")
    publish(tmp_path / "work" / "repository", bundle)
    return bundle


@pytest.fixture
def work(tmp_path: Path, bundle: Bundle) -> Path:
    return tmp_path / "work"


def run_cli(*arguments: object, **more: str) -> str:
    """What a command prints on its standard output; errors are raised."""
    output = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False, **more)
    assert output.exit_code == 0, output.output
    return output.stdout


def test_items_are_hidden_listed_and_shown(work: Path) -> None:
    done = rankline("items", "hide", "i3", "zz", "i3", "--why", "recalled", "-w", work)
    assert "hidden from every answer: i3\n" in done.stdout
    assert "the catalogue does not have zz" in done.stderr
    assert ModelRegistry(work / "repository").champion_record().hidden == ("i3", "zz")
    first, second = run_cli("items", "list", "-w", work).splitlines()
    assert "recalled" in first
    assert "(not in the catalogue)" in second
    output = json.loads(run_cli("items", "list", "-w", work, "--json"))
    assert [(each["item_id"], each["known"], each["why"]) for each in output] == [
        ("i3", True, "recalled"),
        ("zz", False, "recalled"),
    ]
    output = json.loads(run_cli("items", "hide", "i3", "i4", "-w", work, "--json"))
    assert (output["hidden"], output["already"], output["unknown"]) == (["i3", "i4"], ["i3"], [])
    output = json.loads(run_cli("items", "show", "i3", "i9", "-w", work, "--json"))
    assert (output["shown"], output["not_hidden"]) == (["i3"], ["i9"])
    assert ModelRegistry(work / "repository").champion_record().hidden == ("i4", "zz")
    assert "none of these items is hidden" in refused("items", "show", "i3", "-w", work, code=2)


def test_a_recall_comes_from_a_file_or_a_pipe(work: Path, tmp_path: Path) -> None:
    (tmp_path / "recall.txt").write_text("i1\n\n  i2 \ni1\n")
    run_cli("items", "hide", "i0", "--file", tmp_path / "recall.txt", "-w", work)
    run_cli("items", "hide", "--file", "-", "-w", work, input="i7\n")
    assert ModelRegistry(work / "repository").champion_record().hidden == ("i0", "i1", "i2", "i7")
    (tmp_path / "recall.txt").write_text("\n")
    for file, problem in (("recall.txt", "no item ids were given"), ("nowhere.txt", "cannot be read")):
        with pytest.raises(UsageError, match=problem):
            run_cli("items", "hide", "--file", tmp_path / file, "-w", work)


def test_a_recall_from_a_spreadsheet_is_read_without_its_marks(work: Path, tmp_path: Path) -> None:
    (tmp_path / "recall.csv").write_bytes(b"\xef\xbb\xbfi1\r\n i2\t\r\n")
    output = json.loads(run_cli("items", "hide", " i3 ", "--file", tmp_path / "recall.csv", "-w", work, "--json"))
    assert (output["hidden"], output["unknown"]) == (["i3", "i1", "i2"], [])
    ModelRegistry(work / "repository").hide([" i4"], who="an older version", why="")
    run_cli("items", "show", " i4", "i3", "-w", work)
    assert ModelRegistry(work / "repository").champion_record().hidden == ("i1", "i2")


def test_strict_hides_all_or_nothing(work: Path, tmp_path: Path) -> None:
    output = refused("items", "hide", "i3", "zz", "--strict", "-w", work, code=1)
    assert "1 of 2 unknown: zz" in output
    assert ModelRegistry(work / "repository").hidden() == {}
    run_cli("items", "hide", "i3", "--strict", "-w", work)
    assert list(ModelRegistry(work / "repository").hidden()) == ["i3"]
    with pytest.raises(RegistryError, match="nothing is hidden"):
        run_cli("items", "hide", "i3", "--strict", "--repository", f"memory://{tmp_path}/empty")


@pytest.mark.integration
def test_the_process_ends_as_it_should_each_time(work: Path) -> None:
    """Arrow's read-ahead threads on a Python stream used to abort about half of the processes with 134."""
    codes = [command.rankline("items", *what, "-w", work).returncode for what in (("hide", "i3"), ("list",)) * 5]
    assert codes == [0] * 10


def test_items_are_hidden_before_there_is_a_champion_and_in_another_repository(tmp_path: Path) -> None:
    place = f"memory://{tmp_path}/models"
    run_cli("items", "hide", "i1", "--repository", place)
    assert list(ModelRegistry(place).hidden()) == ["i1"]
    assert "no item is hidden" in run_cli("items", "list", "--repository", f"memory://{tmp_path}/other")


def test_a_takedown_does_not_need_a_readable_catalogue(work: Path, bundle: Bundle) -> None:
    (work / "repository" / "bundles" / bundle.model_id / "catalogue" / "items.parquet").unlink()
    done = rankline("items", "hide", "i3", "-w", work)
    assert "the catalogue cannot be read" in done.stderr
    assert ModelRegistry(work / "repository").champion_record().hidden == ("i3",)


def test_catalogues_are_listed_and_rolled_back(work: Path, bundle: Bundle, tmp_path: Path) -> None:
    registry = work / "repository"
    with pytest.raises(RegistryError, match="no catalogue to go back to"):
        run_cli("catalogue", "rollback", "-w", work)
    first = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "first"))
    second = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "second", seed=8))
    lines = run_cli("catalogue", "list", "-w", work).splitlines()[1:]
    assert [line[2:18] for line in lines] == [bundle.revision, first, second]
    assert [line[0] for line in lines] == [" ", " ", ">"]
    assert f"over catalogue {first} again" in run_cli("catalogue", "rollback", "-w", work, "--why", "wrong prices")
    assert ModelRegistry(registry).champion_record().revision == first
    run_cli("catalogue", "rollback", "-w", work)  # one further back, not forward again
    assert ModelRegistry(registry).revision(bundle.model_id) == bundle.revision
    output = json.loads(run_cli("catalogue", "rollback", second, "-w", work, "--json"))
    assert (output["digests"]["catalogue"], output["details"]) == (second, {"rolled_back_from": bundle.revision})
    for wrong, problem in ((second, "serves already"), ("0" * 16, "has no catalogue")):
        with pytest.raises(RegistryError, match=problem):
            run_cli("catalogue", "rollback", wrong, "-w", work)
    assert [each["revision"] for each in json.loads(run_cli("catalogue", "list", "-w", work, "--json"))] == [
        bundle.revision, first, second, first, bundle.revision, second,
    ]  # fmt: skip


def test_a_catalogue_is_named_by_its_beginning(work: Path, bundle: Bundle, tmp_path: Path) -> None:
    first = publish_catalogue(work / "repository", bundle, make_catalogue(bundle, tmp_path / "first"))
    run_cli("catalogue", "rollback", bundle.revision[:6], "-w", work)
    assert ModelRegistry(work / "repository").revision(bundle.model_id) == bundle.revision
    with pytest.raises(RegistryError, match="serves already"):
        run_cli("catalogue", "rollback", bundle.revision[:6], "-w", work)
    with pytest.raises(RegistryError, match="go forward again") as output:
        run_cli("catalogue", "rollback", "-w", work)
    assert "`rankline catalogue list`" in str(output.value)
    assert "the oldest that is kept" in str(output.value)
    run_cli("catalogue", "rollback", first, "-w", work)


def test_a_model_that_was_removed_and_registered_again_lists_only_its_own_catalogue(
    work: Path, bundle: Bundle, tmp_path: Path
) -> None:
    registry, other = ModelRegistry(work / "repository"), make_bundle(tmp_path / "other", seed=3)
    publish_catalogue(registry.root, bundle, make_catalogue(bundle, tmp_path / "first"))
    publish(registry.root, other)
    removal.remove(registry, bundle.model_id, who="gc", why="old", skipped=lambda history: False)
    publish(registry.root, bundle)
    lines = json.loads(run_cli("catalogue", "list", "-w", work, "--json"))
    registered = [event for event in registry.history() if event.kind == "registered"][-1]
    assert [(line["revision"], line["at"]) for line in lines] == [(bundle.revision, registered.at)]
    with pytest.raises(RegistryError, match="no catalogue to go back to"):
        run_cli("catalogue", "rollback", "-w", work)


def test_a_catalogue_that_was_removed_is_skipped(work: Path, bundle: Bundle, tmp_path: Path) -> None:
    registry = work / "repository"
    first = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "first"))
    publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "second", seed=8))
    shutil.rmtree(registry / "catalogues" / bundle.model_id / first)
    assert "gone" in run_cli("catalogue", "list", "-w", work).splitlines()[2]
    with pytest.raises(RegistryError, match="has no catalogue"):
        run_cli("catalogue", "rollback", first, "-w", work)
    run_cli("catalogue", "rollback", "-w", work)
    assert ModelRegistry(registry).revision(bundle.model_id) == bundle.revision


def test_the_champion_and_the_history_show_catalogues_and_takedowns(work: Path, bundle: Bundle, tmp_path: Path) -> None:
    assert f"catalogue: {bundle.revision}, the bundle's own" in run_cli("champion", "-w", work)
    revision = publish_catalogue(work / "repository", bundle, make_catalogue(bundle, tmp_path / "first"))
    run_cli("items", "hide", *(f"i{n}" for n in range(7)), "-w", work, "--why", "recalled")
    output = run_cli("champion", "-w", work)
    assert f"catalogue: {revision}, published" in output
    assert "hidden: 7 items" in output
    output = json.loads(run_cli("champion", "-w", work, "--json"))
    assert (output["kind"], output["catalogue"]["revision"], len(output["hidden"])) == ("promoted", revision, 7)
    assert output["catalogue"]["published"]["why"] == "items of today"
    lines = run_cli("history", "-w", work).splitlines()
    assert f"catalogue_published {bundle.model_id} {revision}  items of today" in lines[2]
    assert "items_hidden i0, i1, i2, i3, i4 and 2 more  recalled" in lines[3]


def test_a_rollback_beside_another_publication_is_stale(
    work: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another catalogue is published between reading the history and adding the event."""
    registry = work / "repository"
    publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "first"))
    later = make_catalogue(bundle, tmp_path / "later", seed=8)
    verify = ModelRegistry.catalogue

    def overtaken(self: ModelRegistry, *args: object, **more: object) -> Path:
        monkeypatch.setattr(ModelRegistry, "catalogue", verify)
        publish_catalogue(registry, bundle, later)
        return verify(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelRegistry, "catalogue", overtaken)
    with pytest.raises(StaleEvidence, match="catalogue changed"):
        run_cli("catalogue", "rollback", "-w", work)
