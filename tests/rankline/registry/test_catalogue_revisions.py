"""Catalogue revisions and takedowns, in a folder and in memory."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from rankline.errors import IntegrityError, RegistryError, StaleEvidence, UsageError
from rankline.model import bundle as bundles
from rankline.model.catalogue_files import verify_catalogue, write_catalogue_manifest
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Champion
from tests.race import race
from tests.rankline.registry.test_model_registry import promote, tiny_bundle


def another_catalogue(bundle: bundles.Bundle, folder: Path, vectors: bytes = b"vectors of today") -> Path:
    """Write a later catalogue for the same model."""
    shutil.copytree(bundle.folder / "catalogue", folder)
    (folder / "vectors.fp32.npy").write_bytes(vectors)
    write_catalogue_manifest(folder)
    return folder


def champion(models: ModelRegistry, bundle: bundles.Bundle) -> None:
    """Make a bundle the champion."""
    models.add(bundle.folder)
    models.append("registered", bundle.model_id, who="test", why="new")
    promote(models, bundle.model_id)


def publish(models: ModelRegistry, bundle: bundles.Bundle, folder: Path, **more: object) -> str:
    revision = models.add_catalogue(bundle.model_id, folder)
    models.publish(bundle.model_id, revision, who="test", why="prices of today", **more)
    return revision


def test_a_catalogue_that_is_published_is_the_one_served(repository, bundle, tmp_path):
    champion(repository, bundle)
    assert repository.champion_record().revision == ""
    today = another_catalogue(bundle, tmp_path / "today")
    revision = repository.add_catalogue(bundle.model_id, today)
    assert revision != bundle.revision
    assert repository.bundle(bundle.model_id, into=tmp_path / "a").revision == bundle.revision, "added is not published"
    event = repository.publish(bundle.model_id, revision, who="test", why="prices", details={"items": 3})
    assert (event.kind, event.digests["catalogue"], event.details) == ("catalogue_published", revision, {"items": 3})
    assert repository.champion_record().revision == revision
    opened = repository.bundle(bundle.model_id, into=tmp_path / "a")
    assert (opened.model_id, opened.revision) == (bundle.model_id, revision)
    assert opened.file("catalogue/vectors.fp32.npy").read_bytes() == b"vectors of today"
    assert opened.file("scorer.onnx").read_bytes() == b"weights"
    own = repository.bundle(bundle.model_id, revision="", into=tmp_path / "b")
    assert (own.revision, own.is_own_catalogue) == (bundle.revision, True)
    before = repository.fs.find(repository.root)
    assert repository.add_catalogue(bundle.model_id, today) == revision
    assert repository.fs.find(repository.root) == before


def test_an_older_catalogue_is_published_again_to_go_back(repository, bundle, tmp_path):
    champion(repository, bundle)
    first = publish(repository, bundle, another_catalogue(bundle, tmp_path / "first", b"1"))
    second = publish(repository, bundle, another_catalogue(bundle, tmp_path / "second", b"2"), expected_revision=first)
    assert repository.champion_record().revision == second
    for back in (first, bundle.revision):
        repository.publish(bundle.model_id, back, who="test", why="wrong prices")
        assert repository.revision(bundle.model_id) == back
        assert repository.bundle(bundle.model_id, into=tmp_path / "fetched").revision == back
    assert repository.champion_record().revision == "", "empty for the bundle's own"


def test_each_model_keeps_its_own_catalogue(repository, bundle, other, tmp_path):
    """A catalogue published for a model that does not serve is used once the model is promoted, also by a rollback."""
    champion(repository, bundle)
    repository.add(other.folder)
    repository.append("registered", other.model_id, who="test", why="new")
    theirs = publish(repository, other, another_catalogue(other, tmp_path / "theirs"))
    assert (repository.champion_record().model_id, repository.champion_record().revision) == (bundle.model_id, "")
    ours = publish(repository, bundle, another_catalogue(bundle, tmp_path / "ours"))
    promote(repository, other.model_id)
    assert (repository.champion_record().model_id, repository.champion_record().revision) == (other.model_id, theirs)
    repository.append("rolled_back", bundle.model_id, who="test", why="complaints")
    assert (repository.champion_record().model_id, repository.champion_record().revision) == (bundle.model_id, ours)


def test_what_cannot_be_served_is_not_published(repository, bundle, other, tmp_path):
    champion(repository, bundle)
    repository.add(other.folder)
    today = another_catalogue(bundle, tmp_path / "today")
    with pytest.raises(RegistryError, match="is not in the registry"):
        repository.add_catalogue("0" * 16, today)
    with pytest.raises(RegistryError, match="has no catalogue"):
        repository.publish(bundle.model_id, "0" * 16, who="test", why="")
    with pytest.raises(RegistryError, match="never registered"):
        repository.publish(other.model_id, other.revision, who="test", why="")
    with pytest.raises(UsageError, match="not a catalogue"):
        repository.add_catalogue(bundle.model_id, bundle.folder)
    (today / "vectors.fp32.npy").rename(today / "vectors.int8.npy")
    write_catalogue_manifest(today)
    with pytest.raises(IntegrityError, match="no digest"):
        repository.add_catalogue(bundle.model_id, today)
    (today / "vectors.int8.npy").write_bytes(b"vectors of yesterday")
    with pytest.raises(IntegrityError, match="does not match its digest"):
        repository.add_catalogue(bundle.model_id, today)
    assert [event.kind for event in repository.history()] == ["registered", "promoted"]
    assert not repository.fs.exists(f"{repository.root}/catalogues")


def damage(models: ModelRegistry, name: str, content: bytes = b"spoilt") -> None:
    models.fs.pipe_file(f"{models.root.rstrip('/')}/{name}", content)


@pytest.mark.parametrize("file", ["vectors.fp32.npy", "catalogue.json"])
def test_a_damaged_catalogue_is_refused_and_repaired_by_adding_it_again(repository, bundle, tmp_path, file):
    champion(repository, bundle)
    today = another_catalogue(bundle, tmp_path / "today")
    revision = repository.add_catalogue(bundle.model_id, today)
    damage(repository, f"catalogues/{bundle.model_id}/{revision}/{file}")
    with pytest.raises(IntegrityError):
        repository.publish(bundle.model_id, revision, who="test", why="")
    with pytest.raises(IntegrityError):
        repository.bundle(bundle.model_id, revision=revision, into=tmp_path / "fetched")
    assert repository.champion_record().revision == ""
    assert repository.add_catalogue(bundle.model_id, today) == revision
    repository.publish(bundle.model_id, revision, who="test", why="")
    assert repository.bundle(bundle.model_id, into=tmp_path / "fetched").revision == revision


def test_a_whole_catalogue_under_the_name_of_another_is_refused(tmp_path, bundle):
    models = ModelRegistry(tmp_path / "repository")
    champion(models, bundle)
    revision = publish(models, bundle, another_catalogue(bundle, tmp_path / "today"))
    cache = tmp_path / "repository" / "catalogues" / bundle.model_id
    shutil.copytree(another_catalogue(bundle, tmp_path / "else", b"else"), cache / "0123456789abcdef")
    with pytest.raises(IntegrityError, match="does not have the revision it is stored under"):
        models.publish(bundle.model_id, "0123456789abcdef", who="test", why="")
    shutil.rmtree(cache / revision)
    (cache / "0123456789abcdef").rename(cache / revision)
    with pytest.raises(IntegrityError, match="does not have the revision it is stored under"):
        models.bundle(bundle.model_id)


def test_a_model_with_a_damaged_catalogue_is_not_promoted(repository, bundle, tmp_path):
    repository.add(bundle.folder)
    repository.append("registered", bundle.model_id, who="test", why="new")
    revision = publish(repository, bundle, another_catalogue(bundle, tmp_path / "today"))
    damage(repository, f"catalogues/{bundle.model_id}/{revision}/vectors.fp32.npy")
    with pytest.raises(IntegrityError, match="vectors"):
        promote(repository, bundle.model_id)
    assert repository.champion() == ""


def test_a_publication_for_an_earlier_champion_or_catalogue_is_stale(repository, bundle, other, tmp_path):
    champion(repository, bundle)
    champion(repository, other)
    revision = repository.add_catalogue(bundle.model_id, another_catalogue(bundle, tmp_path / "today"))
    with pytest.raises(StaleEvidence, match="champion changed"):
        repository.publish(bundle.model_id, revision, who="test", why="", expected_champion=bundle.model_id)
    promote(repository, bundle.model_id)
    repository.publish(bundle.model_id, revision, who="test", why="", expected_champion=bundle.model_id)
    with pytest.raises(StaleEvidence, match="catalogue changed"):
        repository.publish(bundle.model_id, bundle.revision, who="test", why="", expected_revision="")
    assert repository.champion_record().revision == revision


def _publish_once(gate, root, folder, model_id):
    models = ModelRegistry(root)
    gate.wait()
    try:
        revision = models.add_catalogue(model_id, folder)
        models.publish(model_id, revision, who="test", why="", expected_revision="")
    except StaleEvidence:
        return "stale"
    return revision


@pytest.mark.parametrize("same", [True, False], ids=["the same", "two"])
def test_of_two_that_publish_at_once_one_is_stale(tmp_path, bundle, same):
    folders = [another_catalogue(bundle, tmp_path / name, b"1" if same else name.encode()) for name in ("a", "b")]
    for trial in range(3):
        models = ModelRegistry(tmp_path / f"repository{trial}")
        champion(models, bundle)
        received = set(race("fork", _publish_once, [(models.root, folder, bundle.model_id) for folder in folders]))
        (winner,) = received - {"stale"}
        assert "stale" in received
        assert models.champion_record().revision == winner
        assert models.bundle(bundle.model_id).revision == winner
        assert [event.kind for event in models.history()] == ["registered", "promoted", "catalogue_published"]
        names = {path.name for path in (Path(models.root) / "catalogues" / bundle.model_id).iterdir()}
        assert names <= {verify_catalogue(folder) for folder in folders}, "a partial copy stayed behind"


def test_a_champion_json_of_an_older_version_is_rewritten(tmp_path, bundle):
    """A cache from a version without catalogues and takedowns is right only if there are none."""
    models = ModelRegistry(tmp_path / "repository")
    champion(models, bundle)
    cache = tmp_path / "repository" / "champion.json"

    def written_by_older_code() -> None:
        received = json.loads(cache.read_text())
        received["read_to"] = len(models.history())
        old = ("model_id", "run_id", "at", "event", "read_to")
        cache.write_text(json.dumps({name: received[name] for name in old}))

    written_by_older_code()
    record = ModelRegistry(models.root).champion_record()
    assert (record.model_id, record.revision, record.hidden) == (bundle.model_id, "", ())
    revision = publish(models, bundle, another_catalogue(bundle, tmp_path / "today"))
    models.hide(["i1"], who="test", why="recalled")
    written_by_older_code()
    record = ModelRegistry(models.root).champion_record()
    assert (record.revision, record.hidden) == (revision, ("i1",))
    assert Champion.model_validate_json(cache.read_text()) == record


@pytest.mark.parametrize(
    "lie",
    [{"revision": "0" * 16}, {"revision": ""}, {"hidden": []}, {"hidden": ["i1", "i3"]}, {"published": 2}],
    ids=str,
)
def test_a_wrong_champion_cache_is_repaired(repository, bundle, tmp_path, lie):
    champion(repository, bundle)
    revision = publish(repository, bundle, another_catalogue(bundle, tmp_path / "today"))
    repository.hide(["i1", "i2"], who="test", why="recalled")
    right = repository._read("champion.json")
    repository._replace("champion.json", json.dumps({**json.loads(right), **lie}).encode())
    record = repository.champion_record()
    assert (record.revision, record.hidden) == (revision, ("i1", "i2"))
    assert repository._read("champion.json") == right


def test_hidden_items_are_what_the_events_add_up_to(repository, bundle, other, tmp_path):
    repository.hide(["i3", "i1", "i3"], who="anna", why="recalled")
    assert list(repository.hidden()) == ["i1", "i3"]
    champion(repository, bundle)
    repository.show(["i3"], who="test", why="sound after all")
    repository.hide(["i2"], who="ben", why="no licence")
    publish(repository, bundle, another_catalogue(bundle, tmp_path / "today"))
    champion(repository, other)
    assert repository.champion_record().hidden == ("i1", "i2"), "over a new catalogue and a new champion"
    received = {item: (event.who, event.why) for item, event in repository.hidden().items()}
    assert received == {"i1": ("anna", "recalled"), "i2": ("ben", "no licence")}
    repository.show(["i1", "i2"], who="test", why="")
    assert repository.champion_record().hidden == ()
    for nothing in ([], [""], ["i1", " "]):
        with pytest.raises(UsageError, match="no item ids"):
            repository.hide(nothing, who="test", why="")


def _write_items(folder: Path, available: dict[str, bool | None]) -> Path:
    """Write the items of a catalogue."""
    table = pa.table({"item_id": list(available), "available": pa.array(available.values(), pa.bool_())})
    parquet.write_table(table, folder / "items.parquet")
    return folder


def test_items_that_the_next_model_relists_are_reported(repository, tmp_path):
    old = tiny_bundle(tmp_path / "old")
    _write_items(tmp_path / "old" / "catalogue", dict.fromkeys(["i1", "i2", "i3", "i4", "i5"], True))
    old = bundles.write_bundle_manifest(tmp_path / "old", old.manifest)
    new = tiny_bundle(tmp_path / "new", weights=b"new")
    # i1 still available, i2 unknown, i3 withdrawn here as well, i4 hidden, i5 removed by the feed, i6 new
    _write_items(
        tmp_path / "new" / "catalogue", {"i1": True, "i2": None, "i3": False, "i4": True, "i5": True, "i6": True}
    )
    new = bundles.write_bundle_manifest(tmp_path / "new", new.manifest)
    champion(repository, old)
    today = another_catalogue(old, tmp_path / "today")
    _write_items(today, {"i1": True, "i2": False, "i3": False, "i4": False})
    write_catalogue_manifest(today)
    publish(repository, old, today)
    repository.hide(["i4"], who="test", why="recalled")
    champion(repository, new)
    assert repository.relisted_items(old.model_id, new.model_id) == ["i2", "i5"]
    assert "2 items that feeds withdrew" in repository.relisted_warning(old.model_id, new.model_id)
    assert (
        repository.relisted_warning(new.model_id, new.model_id) == repository.relisted_warning("", new.model_id) == ""
    )
    assert repository.relisted_warning(new.model_id, old.model_id) == ""
    assert "cannot be determined" in repository.relisted_warning(old.model_id, "f" * 16)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("items_hidden", {}),
        ("items_shown", {"details": {"items": "i1"}}),
        ("items_hidden", {"details": {"items": [1]}}),
        ("catalogue_published", {"digests": {}}),
    ],
)
def test_an_incomplete_event_is_a_damaged_history(tmp_path, bundle, kind, content):
    models = ModelRegistry(tmp_path / "repository")
    champion(models, bundle)
    event = {"n": 3, "kind": kind, "model_id": bundle.model_id, "at": "now", "who": "a script", "why": "", **content}
    (tmp_path / "repository" / "events" / "3.json").write_text(json.dumps(event))
    for read in (models.champion_record, models.hidden, models.history):
        with pytest.raises(IntegrityError, match="history of the model registry is damaged"):
            read()


def _hide_many(gate, root, name):
    models = ModelRegistry(root)
    gate.wait()
    for i in range(10):
        models.hide([f"{name}{i}"], who=name, why="")


def test_two_that_hide_at_once_lose_nothing(tmp_path, bundle):
    models = ModelRegistry(tmp_path / "repository")
    champion(models, bundle)
    race("fork", _hide_many, [(models.root, name) for name in "ab"])
    assert models.champion_record().hidden == tuple(sorted(f"{name}{i}" for name in "ab" for i in range(10)))
    assert ModelRegistry(models.root)._cached_champion() is not None, "champion.json is right as well"


def test_a_list_of_files_that_leads_out_of_its_folder_is_refused(bundle, tmp_path):
    models = ModelRegistry(f"memory://{tmp_path}/models")
    champion(models, bundle)
    revision = publish(models, bundle, another_catalogue(bundle, tmp_path / "today"))
    damage(models, f"catalogues/{bundle.model_id}/{revision}/catalogue.json", b'{"files": {"../../x": "0"}}')
    with pytest.raises(IntegrityError, match="points outside of its folder"):
        models.bundle(bundle.model_id, into=tmp_path / "fetched")


def test_an_unreadable_manifest_is_an_error(repository, bundle, tmp_path):
    champion(repository, bundle)
    damage(repository, f"bundles/{bundle.model_id}/manifest.json")
    with pytest.raises(IntegrityError, match="manifest cannot be read"):
        repository.bundle(bundle.model_id, into=tmp_path / "fetched")


def test_a_fetched_file_is_not_fetched_again(bundle, tmp_path):
    models = ModelRegistry(f"memory://{tmp_path}/models")
    champion(models, bundle)
    publish(models, bundle, another_catalogue(bundle, tmp_path / "today"))
    models.bundle(bundle.model_id, into=tmp_path / "fetched")
    fetched = []

    class Watched:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def get(self, rpath, lpath, **more):
            fetched.extend(Path(path).name for path in rpath)
            return self.inner.get(rpath, lpath, **more)

    models.fs = Watched(models.fs)
    (tmp_path / "fetched" / bundle.model_id / "scorer.onnx").write_bytes(b"damaged")
    assert models.bundle(bundle.model_id, into=tmp_path / "fetched").model_id == bundle.model_id
    assert sorted(set(fetched)) == ["catalogue.json", "manifest.json", "scorer.onnx"]


@pytest.mark.integration
def test_killed_publishers_leave_whole_catalogues_or_none(tmp_path, bundle):
    """Killed at random times: every published catalogue is complete, and partial copies are invisible."""
    models = ModelRegistry(tmp_path / "repository")
    champion(models, bundle)
    publishing = (
        "import sys, uuid\n"
        "from pathlib import Path\n"
        "from rankline.model.catalogue_files import write_catalogue_manifest\n"
        "from rankline.registry.model_registry import ModelRegistry\n"
        "models, folder, model = ModelRegistry(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    (folder / 'vectors.fp32.npy').write_bytes(uuid.uuid4().bytes * 20_000)\n"
        "    write_catalogue_manifest(folder)\n"
        "    models.publish(model, models.add_catalogue(model, folder), who='w', why='')\n"
        "    models.hide([uuid.uuid4().hex], who='w', why='')\n"
    )
    for n, pause_s in enumerate((0.05, 0.1, 0.15, 0.2)):
        folder = another_catalogue(bundle, tmp_path / str(n))
        process = subprocess.Popen(
            [sys.executable, "-c", publishing, models.root, str(folder), bundle.model_id], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(pause_s)
        process.kill()
        process.wait()
        process.stdout.close()
        again = ModelRegistry(models.root)
        history = again.history()
        published = [event.digests["catalogue"] for event in history if event.kind == "catalogue_published"]
        assert again.bundle(bundle.model_id).revision == (published or [bundle.revision])[-1]
        assert again.champion_record().hidden == tuple(sorted(again.hidden()))
        for revision in published:
            assert again.catalogue(bundle.model_id, revision)
    assert published, "nothing was published before a kill: lengthen the pauses"
