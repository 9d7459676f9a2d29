import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from rankline.contracts import Manifest, Parity, Precision
from rankline.errors import IntegrityError, RegistryError, StaleEvidence
from rankline.io.blob_store import _supports_exclusive_create
from rankline.model import bundle as bundles
from rankline.model.scoring import feature_names
from rankline.registry.model_registry import ModelRegistry
from tests.race import race


def tiny_bundle(folder: Path, *, weights: bytes = b"weights", **changes) -> bundles.Bundle:
    """A bundle with the right files; the registry never opens the graphs."""
    (folder / "catalogue" / "sources").mkdir(parents=True)
    (folder / "scorer.onnx").write_bytes(weights)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "catalogue" / "vectors.fp32.npy").write_bytes(b"vectors of " + weights)
    (folder / "catalogue" / "sources" / "popularity.npy").write_bytes(b"popularity")
    settings = {
        "recipe": "smoke",
        "heads": ["rating"],
        "features": feature_names(),
        "text": None,
        "vector_size": 8,
        "max_history": 10,
        "covisit_decay": 0.8,
        "candidates_per_source": 50,
        "precisions": {
            "fp32": Precision(scorer="scorer.onnx", item_vectors="catalogue/vectors.fp32.npy"),
        },
        "parity": [Parity(graph="scorer", precision="fp32", samples=64, max_abs_difference=1e-6)],
        "data_digest": "d",
        "code_digest": "c",
        "train_end": "1998-04-01T00:00:00+00:00",
    }
    return bundles.write_bundle_manifest(folder, Manifest(**settings | changes))


def promote(repository: ModelRegistry, model_id: str, **more):
    return repository.append("promoted", model_id, who="test", why="because", **more)


def test_an_empty_registry_has_no_champion_and_reading_creates_nothing(tmp_path):
    repository = ModelRegistry(tmp_path / "repository")
    assert (repository.champion(), repository.history(), repository.champion_record()) == ("", [], None)
    assert not (tmp_path / "repository").exists()


def test_a_bundle_goes_in_whole_and_only_once(repository, bundle, tmp_path):
    (bundle.folder / "files.json").write_text("{}")  # the step's own list of digests is not part of the bundle
    assert repository.add(bundle.folder).model_id == bundle.model_id
    before = repository.fs.find(repository.root)
    assert repository.add(bundle.folder).model_id == bundle.model_id
    assert repository.fs.find(repository.root) == before
    stored = repository.bundle(bundle.model_id, into=tmp_path / "fetched")
    assert stored.manifest == bundle.manifest
    assert stored.revision == bundle.revision
    assert bundles.open_bundle(stored.folder).model_id == bundle.model_id
    assert not any(name.endswith("files.json") for name in before)


def test_the_champion_is_what_the_events_add_up_to(repository, bundle, other):
    for one in (bundle, other):
        repository.add(one.folder)
        repository.append("registered", one.model_id, who="test", why="new")
    repository.append("pending", bundle.model_id, who="test", why="policy review")
    assert repository.champion() == ""
    promote(repository, bundle.model_id, expected_champion="", run_id="run-1", details={"ndcg@10": 0.1})
    repository.append("rejected", other.model_id, who="test", why="worse")
    assert repository.champion() == bundle.model_id
    promote(repository, other.model_id, expected_champion=bundle.model_id)
    repository.append("rolled_back", bundle.model_id, who="someone", why="complaints")
    assert repository.champion() == bundle.model_id
    events = [(e.n, e.kind, e.champion_before) for e in ModelRegistry(_url(repository)).history()]
    assert events == [
        (1, "registered", ""),
        (2, "registered", ""),
        (3, "pending", ""),
        (4, "promoted", ""),
        (5, "rejected", bundle.model_id),
        (6, "promoted", bundle.model_id),
        (7, "rolled_back", other.model_id),
    ]
    assert repository.history()[3].details == {"ndcg@10": 0.1}
    assert repository.history()[3].digests["catalogue"] == bundle.revision


def test_stale_evidence_is_refused_and_changes_nothing(repository, bundle, other):
    repository.add(bundle.folder)
    repository.add(other.folder)
    promote(repository, bundle.model_id, expected_champion="")
    with pytest.raises(StaleEvidence, match="expected: no champion"):
        promote(repository, other.model_id, expected_champion="")
    assert [e.n for e in repository.history()] == [1]
    assert repository.champion() == bundle.model_id


@pytest.mark.parametrize("name", ["scorer.onnx", "catalogue/vectors.fp32.npy", "manifest.json"])
def test_a_flipped_byte_is_refused_when_promoted(tmp_path, bundle, name):
    repository = ModelRegistry(tmp_path / "repository")
    repository.add(bundle.folder)
    repository.append("registered", bundle.model_id, who="test", why="new")
    file = tmp_path / "repository" / "bundles" / bundle.model_id / name
    changed = file.read_bytes()
    # in the manifest, a change that leaves it readable: 0.8 becomes 0.9
    changed = changed.replace(b"0.8", b"0.9") if name == "manifest.json" else bytes([changed[0] ^ 1]) + changed[1:]
    file.write_bytes(changed)
    with pytest.raises(IntegrityError):
        promote(repository, bundle.model_id)
    assert repository.champion() == ""
    assert len(repository.history()) == 1


def test_a_sound_bundle_under_the_id_of_another_is_refused(tmp_path, bundle, other):
    repository = ModelRegistry(tmp_path / "repository")
    repository.add(bundle.folder)
    stored = tmp_path / "repository" / "bundles" / bundle.model_id
    shutil.rmtree(stored)
    shutil.copytree(other.folder, stored)
    with pytest.raises(IntegrityError, match="does not have the id it is stored under"):
        repository.append("registered", bundle.model_id, who="test", why="new")


def test_a_flipped_byte_is_refused_when_added(repository, bundle):
    (bundle.folder / "scorer.onnx").write_bytes(b"Weights")
    with pytest.raises(IntegrityError, match=r"scorer\.onnx"):
        repository.add(bundle.folder)
    assert not repository.fs.exists(repository.root + "/bundles")


def test_the_same_model_exported_by_other_code_is_the_same_model(repository, bundle, tmp_path):
    """The files are the model: a manifest with another code digest is accepted."""
    repository.add(bundle.folder)
    shutil.copytree(bundle.folder, tmp_path / "again")
    again = bundles.write_bundle_manifest(
        tmp_path / "again", bundle.manifest.model_copy(update={"code_digest": "of other code"})
    )
    assert again.model_id == bundle.model_id
    assert repository.add(again.folder).model_id == bundle.model_id
    assert repository.manifest(bundle.model_id).code_digest == bundle.manifest.code_digest


def test_the_same_model_with_another_catalogue_is_refused(repository, bundle, tmp_path):
    repository.add(bundle.folder)
    shutil.copytree(bundle.folder, tmp_path / "again")
    (tmp_path / "again" / "catalogue" / "vectors.fp32.npy").write_bytes(b"other vectors")
    again = bundles.write_bundle_manifest(tmp_path / "again", bundle.manifest)
    assert again.model_id == bundle.model_id
    with pytest.raises(RegistryError, match="already in the registry"):
        repository.add(again.folder)


def test_a_model_that_is_not_here_cannot_be_promoted(repository):
    with pytest.raises(RegistryError, match="not in the registry"):
        promote(repository, "0123456789abcdef")
    assert repository.history() == []


def test_evidence_lies_under_its_digest(repository, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text('{"a": 1}')
    name = repository.add_evidence(tmp_path / "report")
    assert repository.add_evidence(tmp_path / "report") == name
    assert repository.fs.cat_file(repository.evidence(name) + "/report.json") == b'{"a": 1}'


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, behind: b"{",
        lambda content, behind: b"",
        lambda content, behind: behind,
        lambda content, behind: json.dumps(json.loads(content) | {"model_id": "0" * 16}).encode(),
        lambda content, behind: json.dumps(json.loads(content) | {"read_to": 99}).encode(),
        lambda content, behind: json.dumps(json.loads(content) | {"event": 1}).encode(),
        None,
    ],
    ids=["half", "empty", "behind", "another model", "ahead", "wrong event", "gone"],
)
def test_any_reader_repairs_the_champion_cache(tmp_path, bundle, other, damage):
    repository = ModelRegistry(tmp_path / "repository")
    cache = tmp_path / "repository" / "champion.json"
    repository.add(bundle.folder)
    repository.add(other.folder)
    repository.append("registered", bundle.model_id, who="test", why="new")
    promote(repository, bundle.model_id)
    behind = cache.read_bytes()
    promote(repository, other.model_id)
    right = cache.read_bytes()
    if damage is None:
        cache.unlink()
    else:
        cache.write_bytes(damage(right, behind))
    assert ModelRegistry(tmp_path / "repository").champion() == other.model_id
    assert cache.read_bytes() == right


def test_a_partial_champion_cache_is_removed_after_a_day(tmp_path, bundle):
    repository = ModelRegistry(tmp_path / "repository")
    repository.add(bundle.folder)
    old, new = (tmp_path / "repository" / f".champion.json.{name}" for name in ("old", "new"))
    for half in (old, new):
        half.write_text("{")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    promote(repository, bundle.model_id)
    assert not old.exists()
    assert new.exists()  # another process may be writing it


def test_a_reader_who_may_not_write_still_gets_the_right_answer(tmp_path, bundle, monkeypatch):
    repository = ModelRegistry(tmp_path / "repository")
    repository.add(bundle.folder)
    promote(repository, bundle.model_id)
    (tmp_path / "repository" / "champion.json").write_text("{")

    def refuse(name, content):
        raise PermissionError(name)

    monkeypatch.setattr(repository, "_replace", refuse)
    assert repository.champion() == bundle.model_id


def test_a_missing_event_is_an_error_and_never_overwritten(tmp_path, bundle):
    repository = ModelRegistry(tmp_path / "repository")
    for _ in range(3):
        repository.append("evaluated", bundle.model_id, who="test", why="")
    (tmp_path / "repository" / "events" / "2.json").unlink()
    with pytest.raises(IntegrityError, match="a complete event 2"):
        ModelRegistry(tmp_path / "repository").append("evaluated", bundle.model_id, who="test", why="")
    assert sorted(p.name for p in (tmp_path / "repository" / "events").iterdir()) == ["1.json", "3.json"]


def _write_many(gate, root, name, count):
    gate.wait()
    repository = ModelRegistry(root)
    for i in range(count):
        repository.append("evaluated", name, who=name, why=str(i))


def test_writers_racing_lose_nothing_and_share_no_number(tmp_path):
    root = tmp_path / "repository"
    race("fork", _write_many, [(root, f"w{i}", 25) for i in range(4)])
    history = ModelRegistry(root).history()
    assert [event.n for event in history] == list(range(1, 101))
    for i in range(4):
        assert [e.why for e in history if e.who == f"w{i}"] == [str(k) for k in range(25)]
    # no partial files are left
    assert len(list((root / "events").iterdir())) == 100


def _promote_once(gate, root, model_id):
    repository = ModelRegistry(root)
    gate.wait()
    try:
        promote(repository, model_id, expected_champion="")
    except StaleEvidence:
        return "stale"
    return model_id


def test_of_two_that_promote_at_once_one_wins_and_the_other_is_stale(tmp_path, bundle, other):
    for trial in range(5):
        root = tmp_path / f"repository{trial}"
        repository = ModelRegistry(root)
        repository.add(bundle.folder)
        repository.add(other.folder)
        received = set(race("fork", _promote_once, [(root, one.model_id) for one in (bundle, other)]))
        assert "stale" in received
        (winner,) = received - {"stale"}
        assert repository.champion() == winner
        assert len(repository.history()) == 1


def test_killed_writers_leave_whole_events_or_none(tmp_path):
    writing = (
        "import sys\n"
        "from rankline.registry.model_registry import ModelRegistry\n"
        "repository = ModelRegistry(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    repository.append('evaluated', 'm', who='w', why='x' * 200_000)\n"
    )
    for pause_s in (0.03, 0.06, 0.1):
        process = subprocess.Popen(
            [sys.executable, "-c", writing, str(tmp_path / "repository")], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(pause_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        history = ModelRegistry(tmp_path / "repository").history()
        assert [event.n for event in history] == list(range(1, len(history) + 1))
    assert history, "no event was written before the kill: lengthen the pauses"
    assert ModelRegistry(tmp_path / "repository").append("evaluated", "m", who="w", why="").n == len(history) + 1


def test_leftovers_of_a_killed_copy_are_deleted_after_a_day(tmp_path, bundle, other):
    repository = ModelRegistry(tmp_path / "repository")
    repository.add(bundle.folder)
    old, young = (tmp_path / "repository" / "bundles" / f".{name}.part" for name in ("old", "young"))
    old.mkdir()
    young.mkdir()
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    repository.add(other.folder)
    assert not old.exists()
    assert young.exists()


def test_leftovers_of_a_killed_event_writer_are_deleted_after_a_day(tmp_path):
    repository = ModelRegistry(tmp_path / "repository")
    repository.append("evaluated", "m", who="test", why="")
    old, young = (tmp_path / "repository" / "events" / f".2.json.{name}" for name in ("old", "young"))
    for partial in (old, young):
        partial.write_text("{")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    repository.append("evaluated", "m", who="test", why="")
    assert not old.exists()
    assert young.exists()
    assert [event.n for event in repository.history()] == [1, 2]


def test_a_store_without_exclusive_creation_is_refused():
    class Plain(fsspec.AbstractFileSystem):
        pass

    assert not _supports_exclusive_create(Plain())
    assert _supports_exclusive_create(fsspec.filesystem("memory"))
    repository = ModelRegistry("memory://somewhere")
    repository.fs = Plain()
    with pytest.raises(RegistryError, match="cannot create a file exclusively"):
        repository._create("events/1.json", b"{}")


def test_a_registry_that_cannot_be_written_is_one_error(tmp_path, bundle):
    (tmp_path / "repository").write_text("a file where the folder should be")
    repository = ModelRegistry(tmp_path / "repository")
    with pytest.raises(RegistryError, match="cannot be written"):
        repository.add(bundle.folder)
    with pytest.raises(RegistryError, match="cannot be written"):
        repository._create("events/1.json", b"{}")


def _url(repository: ModelRegistry) -> str:
    return repository.fs.unstrip_protocol(repository.root)
