"""The model registry in a bucket of an S3-compatible server, over an unreliable network."""

import json
import shutil
import time
import uuid
from contextlib import nullcontext
from functools import partial

import pytest

from rankline.errors import IntegrityError, RegistryError, StaleEvidence, StorageError
from rankline.model.bundle import write_bundle_manifest
from rankline.model.catalogue_files import verify_catalogue
from rankline.registry.model_registry import ModelRegistry
from tests.race import race
from tests.rankline.registry.test_catalogue_revisions import another_catalogue
from tests.rankline.registry.test_model_registry import promote
from tests.servers.proxy import BUSY, DROP, DROP_ANSWER, PASS, flaky


@pytest.mark.integration
def test_a_model_goes_in_is_promoted_and_comes_back_as_it_was(url, bundle, other, tmp_path):
    models = ModelRegistry(url)
    assert (models.champion(), models.history()) == ("", [])
    for one in (bundle, other):
        models.add(one.folder)
        models.append("registered", one.model_id, who="test", why="new")
    promote(models, bundle.model_id, expected_champion="")
    assert ModelRegistry(url).champion() == bundle.model_id
    with pytest.raises(StaleEvidence):
        promote(models, other.model_id, expected_champion="")
    promote(models, other.model_id, expected_champion=bundle.model_id)
    fetched = ModelRegistry(url).bundle(other.model_id, into=tmp_path / "fetched")
    assert fetched.model_id == other.model_id
    assert (fetched.folder / "scorer.onnx").read_bytes() == b"others"
    assert [event.n for event in ModelRegistry(url).history()] == [1, 2, 3, 4]
    assert ModelRegistry(url).evidence(models.add_evidence(tmp_path / "made")).startswith("rankline/")


def test_a_number_is_taken_once(url):
    models = ModelRegistry(url)
    assert models._create("events/1.json", b"first")
    assert not models._create("events/1.json", b"second")
    assert models._read("events/1.json") == b"first"


def _write_many(gate, url, name, count):
    models = ModelRegistry(url)
    gate.wait()
    for i in range(count):
        models.append("evaluated", name, who=name, why=str(i))


@pytest.mark.integration
def test_processes_racing_lose_nothing_and_share_no_number(url):
    race("spawn", _write_many, [(url, f"w{i}", 8) for i in range(2)])
    history = ModelRegistry(url).history()
    assert [event.n for event in history] == list(range(1, 17))
    for i in range(2):
        assert [e.why for e in history if e.who == f"w{i}"] == [str(k) for k in range(8)]


def _promote_each(gate, urls, model_id):
    outcomes = []
    for url in urls:
        models = ModelRegistry(url)
        models.champion()
        gate.wait()
        try:
            promote(models, model_id, expected_champion="")
            outcomes.append(model_id)
        except StaleEvidence:
            outcomes.append("stale")
    return outcomes


@pytest.mark.integration
def test_of_two_that_promote_at_once_one_wins_and_the_other_is_stale(url, bundle, other):
    urls = [f"{url}/{trial}" for trial in range(3)]
    for one in urls:
        ModelRegistry(one).add(bundle.folder)
        ModelRegistry(one).add(other.folder)
    outcomes = race("spawn", _promote_each, [(urls, each.model_id) for each in (bundle, other)])
    for one, received in zip(urls, zip(*outcomes)):
        (winner,) = set(received) - {"stale"}
        assert "stale" in received
        assert ModelRegistry(one).champion() == winner
        assert [event.n for event in ModelRegistry(one).history()] == [1]


def test_a_byte_that_changed_in_the_bucket_is_refused(url, bundle, tmp_path):
    models = ModelRegistry(url)
    models.add(bundle.folder)
    models.append("registered", bundle.model_id, who="test", why="new")
    models.fs.pipe_file(models._path(f"bundles/{bundle.model_id}/scorer.onnx"), b"Weights")
    with pytest.raises(IntegrityError, match=r"scorer\.onnx"):
        models.bundle(bundle.model_id, into=tmp_path / "fetched")
    with pytest.raises(IntegrityError):
        promote(models, bundle.model_id)
    assert models.champion() == ""


def test_an_upload_that_ended_half_way_is_no_bundle(url, bundle, tmp_path):
    models = ModelRegistry(url)
    models.fs.put_file(str(bundle.folder / "scorer.onnx"), models._path(f"bundles/{bundle.model_id}/scorer.onnx"))
    with pytest.raises(RegistryError, match="not in the registry"):
        models.bundle(bundle.model_id, into=tmp_path / "fetched")
    models.add(bundle.folder)  # the next try completes it
    assert models.bundle(bundle.model_id, into=tmp_path / "fetched").model_id == bundle.model_id


def test_a_catalogue_is_added_published_fetched_and_refused_when_damaged(url, bundle, tmp_path):
    models = ModelRegistry(url)
    register_and_promote(url, bundle)
    today = another_catalogue(bundle, tmp_path / "today")
    revision = models.add_catalogue(bundle.model_id, today)
    models.publish(bundle.model_id, revision, who="test", why="prices", expected_revision="")
    models.hide(["i1"], who="test", why="recalled")
    record = ModelRegistry(url).champion_record()
    assert (record.revision, record.hidden) == (revision, ("i1",))
    fetched = ModelRegistry(url).bundle(bundle.model_id, into=tmp_path / "fetched")
    assert (fetched.revision, fetched.catalogue.name) == (revision, f"{bundle.model_id}.{revision}")
    assert fetched.file("catalogue/vectors.fp32.npy").read_bytes() == b"vectors of today"
    models.fs.pipe_file(models._path(f"catalogues/{bundle.model_id}/{revision}/vectors.fp32.npy"), b"spoilt")
    with pytest.raises(IntegrityError, match=r"vectors\.fp32\.npy"):
        ModelRegistry(url).bundle(bundle.model_id, into=tmp_path / "again")
    with pytest.raises(IntegrityError, match=r"vectors\.fp32\.npy"):
        models.publish(bundle.model_id, revision, who="test", why="")
    assert models.add_catalogue(bundle.model_id, today) == revision  # restores the file
    assert ModelRegistry(url).bundle(bundle.model_id, into=tmp_path / "again").revision == revision


def test_a_catalogue_whose_upload_ended_half_way_cannot_be_published(url, bundle, tmp_path):
    models = ModelRegistry(url)
    register_and_promote(url, bundle)
    today = another_catalogue(bundle, tmp_path / "today")
    revision = verify_catalogue(today)
    half = models._path(f"catalogues/{bundle.model_id}/{revision}/vectors.fp32.npy")
    models.fs.put_file(str(today / "vectors.fp32.npy"), half)
    with pytest.raises(RegistryError, match="has no catalogue"):
        models.publish(bundle.model_id, revision, who="test", why="")
    models.publish(bundle.model_id, models.add_catalogue(bundle.model_id, today), who="test", why="")  # the next try
    assert models.champion_record().revision == revision


def _publish_once(gate, url, folder, model_id):
    models = ModelRegistry(url)
    gate.wait()
    try:
        models.publish(model_id, models.add_catalogue(model_id, folder), who="test", why="", expected_revision="")
    except StaleEvidence:
        return "stale"
    return folder.name


@pytest.mark.integration
def test_of_two_that_publish_at_once_one_wins_and_the_other_is_stale(url, bundle, tmp_path):
    register_and_promote(url, bundle)
    folders = {name: another_catalogue(bundle, tmp_path / name, name.encode()) for name in ("a", "b")}
    received = set(race("spawn", _publish_once, [(url, folder, bundle.model_id) for folder in folders.values()]))
    (winner,) = received - {"stale"}
    assert "stale" in received
    assert ModelRegistry(url).champion_record().revision == verify_catalogue(folders[winner])
    assert [event.n for event in ModelRegistry(url).history()] == [1, 2, 3]


class Overtaken:
    """A store that calls ``by`` once, just before one of its files is written."""

    def __init__(self, inner, file, by):
        self.inner, self.file, self.by = inner, file, by

    def __getattr__(self, name):
        attribute = getattr(self.inner, name)
        if name not in ("put_file", "pipe_file"):
            return attribute

        def call(*args, **more):
            if any(str(each).endswith(self.file) for each in args) and self.by is not None:
                by, self.by = self.by, None
                by()
            return attribute(*args, **more)

        return call


def another_making(bundle, folder, **changes):
    """Export the same model again, with another manifest or another catalogue."""
    if changes.pop("vectors", None):
        (folder / "catalogue" / "vectors.fp32.npy").write_bytes(b"other vectors")
    again = write_bundle_manifest(folder, bundle.manifest.model_copy(update=changes))
    assert again.model_id == bundle.model_id
    return again


def register_and_promote(url, bundle):
    models = ModelRegistry(url)
    models.add(bundle.folder)
    models.append("registered", bundle.model_id, who="other", why="new")
    promote(models, bundle.model_id, expected_champion="")


@pytest.mark.integration
@pytest.mark.parametrize("file", ["catalogue/catalogue.json", "scorer.onnx", "manifest.json"])
def test_a_concurrent_upload_does_not_change_a_registered_champion(url, bundle, tmp_path, file):
    """During an upload another process adds the same files with another manifest, registers and promotes them."""
    again = another_making(bundle, shutil.copytree(bundle.folder, tmp_path / "again"), code_digest="of other code")
    slow = ModelRegistry(url)
    slow.fs = Overtaken(slow.fs, file, lambda: register_and_promote(url, again))
    slow.add(bundle.folder)
    fetched = ModelRegistry(url).bundle(ModelRegistry(url).champion(), into=tmp_path / "fetched")
    assert fetched.manifest == again.manifest


@pytest.mark.parametrize(
    ("file", "winner"), [("catalogue/catalogue.json", "other"), ("scorer.onnx", "slow"), ("manifest.json", "slow")]
)
def test_of_two_catalogues_of_a_model_put_at_once_one_is_refused(url, bundle, tmp_path, file, winner):
    again = another_making(bundle, shutil.copytree(bundle.folder, tmp_path / "again"), vectors=True)
    refused = partial(pytest.raises, RegistryError, match="with another catalogue")
    overtaken = []

    def overtake():
        with nullcontext() if winner == "other" else refused():
            register_and_promote(url, again)
        overtaken.append(file)

    slow = ModelRegistry(url)
    slow.fs = Overtaken(slow.fs, file, overtake)
    with refused() if winner == "other" else nullcontext():
        slow.add(bundle.folder)
    assert overtaken
    fetched = ModelRegistry(url).bundle(bundle.model_id, into=tmp_path / "fetched")
    assert fetched.revision == (again if winner == "other" else bundle).revision


@pytest.mark.integration
@pytest.mark.parametrize("fault", [DROP, BUSY, DROP_ANSWER])
def test_a_network_that_fails_now_and_then_is_waited_out(bucket, bundle, tmp_path, monkeypatch, fault):
    """Every fifth connection fails. An event whose response was lost is written once."""
    with flaky(bucket.port, lambda n: fault if n % 5 == 2 else PASS) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment(port=network.port)["AWS_ENDPOINT_URL"])
        models = ModelRegistry(f"{bucket.url}/{uuid.uuid4().hex}")
        models.add(bundle.folder)
        models.append("registered", bundle.model_id, who="test", why="new")
        promote(models, bundle.model_id, expected_champion="")
        fetched = models.bundle(bundle.model_id, into=tmp_path / "fetched")
        kinds = [event.kind for event in models.history()]
    assert network.seen.count(fault) >= 3
    assert fetched.model_id == bundle.model_id
    assert kinds == ["registered", "promoted"]


def test_an_event_whose_answer_was_lost_is_written_once(bucket, monkeypatch):
    faults = {"until": 0}
    with flaky(bucket.port, lambda n: DROP_ANSWER if n < faults["until"] else PASS) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment(port=network.port)["AWS_ENDPOINT_URL"])
        models = ModelRegistry(f"{bucket.url}/{uuid.uuid4().hex}")
        models.champion()
        faults["until"] = len(network.seen) + 1
        assert models._create("events/1.json", b"mine")  # the first attempt was stored, its response lost
        assert DROP_ANSWER in network.seen
        assert not models._create("events/1.json", b"yours")


def test_a_store_that_is_down_is_one_message_in_bounded_time(bucket, bundle, monkeypatch):
    with flaky(bucket.port, lambda n: DROP) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment(port=network.port)["AWS_ENDPOINT_URL"])
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        began = time.monotonic()
        with pytest.raises(StorageError, match="does not respond as it should") as caught:
            ModelRegistry(f"{bucket.url}/x").champion()
        assert time.monotonic() - began < 30
        assert "where: rankline/x" in str(caught.value)
        assert len(network.seen) >= 3


def test_the_error_for_wrong_credentials_does_not_contain_the_secret(bucket, monkeypatch, bundle):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with pytest.raises(StorageError, match="refuses these credentials") as caught:
        ModelRegistry(f"{bucket.url}/x").append("evaluated", bundle.model_id, who="test", why="")
    assert "hunter2" not in str(caught.value)


def test_no_credentials(url, tmp_path, monkeypatch):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StorageError, match="there are no credentials for the store") as caught:
            ModelRegistry(url).champion()
        assert "cluster.secrets" in caught.value.hint
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_missing_bucket_is_an_error(bucket, bundle):
    models = ModelRegistry("s3://nobody-made-this/x")
    assert models.champion() == ""
    with pytest.raises(RegistryError, match="no such bucket"):
        models.add(bundle.folder)
    with pytest.raises(RegistryError, match="no such bucket"):
        models._create("events/1.json", json.dumps({}).encode())


def test_an_unknown_kind_of_store_is_an_error():
    with pytest.raises(StorageError, match="no installed package opens sky://"):
        ModelRegistry("sky://somewhere")
