import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from lxml import html

from components.promote.config import DecideConfig, PromoteConfig
from components.promote.online import materialize_online
from components.promote.step import decide, promote
from rankline.announcer import Announcer
from rankline.errors import IntegrityError, RegistryError, StaleEvidence, UsageError
from rankline.evaluation.report import Report, read_report, write_report
from rankline.features import transforms as names
from rankline.io import digest
from rankline.io.files import write_json
from rankline.mirror.sync import sync
from rankline.model.bundle import Bundle, open_bundle
from rankline.notifications.config import NotifyConfig, Webhook
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from rankline.train import champion_weights
from tests.conftest import once
from tests.race import race
from tests.rankline.notifications.receivers import web_server
from tests.rankline.registry.test_model_registry import tiny_bundle

END = datetime(1998, 4, 20, 18, 30, tzinfo=UTC)  # when the newest event became known
TODAY = END.replace(hour=0, minute=0)


def evaluation_of(bundle: Bundle, folder: Path, *, lift: float = 0.1, champion: str = "", requests: int = 120) -> Path:
    """An evaluation in which the candidate is ``lift`` above popularity, and the champion between the two."""
    folder.mkdir(parents=True)
    base = np.random.default_rng(0).uniform(0.1, 0.6, requests)
    scores = {"candidate": base + lift, "popularity": base}
    if champion:
        scores["champion"] = base + 0.05
    rows = [(f"r{i}", system, float(v)) for system, of in scores.items() for i, v in enumerate(of)]
    columns = dict(zip(("request_id", "system", "ndcg@10"), zip(*rows)))
    parquet.write_table(
        pa.table({name: list(values) for name, values in columns.items()}), folder / "per_request.parquet"
    )
    report = {
        "model_id": bundle.model_id,
        "recipe": "smoke",
        "run_id": "run-1",
        "champion": champion,
        "requests": requests,
        "systems": {
            s: {"metrics": {"ndcg@10": {"mean": float(v.mean()), "low": 0.1, "high": 0.9}}} for s, v in scores.items()
        },
        "latency": {"p95_ms": 12.0},
        "parity": {"served_max_abs_difference": 1e-6, "same_top10_share": 1.0},
        "model": {"size_bytes": 1000},
    }
    write_report(folder, Report.model_validate(report))
    return folder


def features_of(folder: Path, *, end: datetime = END, events_7d: float = 7.0) -> Path:
    """A run's feature sources: two users, two items, and one row that was known only after the end."""
    sources = folder / "feast" / "sources"
    sources.mkdir(parents=True)
    stamp = pa.timestamp("us", tz="UTC")

    def write(view: str, key: str, ids: list[str], columns: dict, instants: list[datetime], known: list[datetime]):
        times = {"event_timestamp": pa.array(instants, stamp), "known_at": pa.array(known, stamp)}
        parquet.write_table(pa.table({key: ids, **columns, **times}), sources / f"{view}.parquet")

    day = end.replace(hour=0, minute=0)
    write("user_activity", "user_id", ["u1", "u2"], {n: [1.0, 2.0] for n in names.USER}, [day] * 2, [day] * 2)
    shares = {
        "affinity_categories": [["Drama"], ["Comedy"]],
        "affinity_shares": pa.array([[1.0], [1.0]], pa.list_(pa.float32())),
    }
    write("user_category_affinity", "user_id", ["u1", "u2"], shares, [day] * 2, [day] * 2)
    popular = [n for n in names.ITEM if n.startswith(("item_events", "item_rating", "item_trend"))]
    values = {n: [events_7d, 3.0, 999.0] for n in popular}
    # the third row happened before the end but was learnt of a day later
    write(
        "item_popularity",
        "item_id",
        ["i1", "i2", "i1"],
        values,
        [day, day, end],
        [day, day, end + timedelta(days=1)],
    )
    content = {n: [1.0, 2.0] for n in names.ITEM if n not in popular}
    write("item_content", "item_id", ["i1", "i2"], content, [day] * 2, [day] * 2)
    history = {
        "history_items": [["i1"], ["i2"]],
        "history_times": [[1.0], [2.0]],
        "history_ratings": pa.array([[5.0], [4.0]], pa.list_(pa.float32())),
        "seen_items": [["i1"], ["i2"]],
    }
    write("user_history", "user_id", ["u1", "u2"], history, [day, end], [day, end])
    (folder / "summary.json").write_text(json.dumps({"service": names.SERVICE}))
    return folder


def teacher_of(folder: Path) -> Path:
    """A teacher that began with model m0; nobody looks inside its weights."""
    (folder / "encoder").mkdir(parents=True)
    for name in ("teacher.json", "items.parquet", "weights.safetensors"):
        (folder / name).write_text(name)
    origin = {"encoder": {"own": False}, "data_digest": "d", "offered": "m0", "began_from": "m0"}
    (folder / "origin.json").write_text(json.dumps(origin))
    return folder


class Workshop:
    """A workspace in which candidates are decided on and promoted as the flow would."""

    def __init__(self, root: Path, database: Path) -> None:
        self.root, self.workspace = root, root / "workspace"
        self.workspace.mkdir()
        shutil.copy(database, self.workspace / "mlflow.db")
        self.repository = ModelRegistry(self.workspace / "repository")
        self.features = features_of(root / "features")

    def created(self, name: str, **numbers) -> tuple[Path, Path]:
        bundle = tiny_bundle(self.root / name / "bundle", weights=name.encode())
        evaluation = evaluation_of(bundle, self.root / name / "evaluation", **numbers)
        return bundle.folder, evaluation

    def decide(
        self,
        bundle: Path,
        evaluation: Path,
        teacher: Path | None = None,
        announcer: Announcer | None = None,
        ledger_folder: Path | None = None,
        **gates,
    ) -> tuple[Path, dict]:
        verdict = bundle.parent / "verdict"
        shutil.rmtree(verdict, ignore_errors=True)
        result = decide(
            bundle=bundle, evaluation=evaluation, verdict=verdict, config=DecideConfig(**gates),
            repository=str(self.workspace / "repository"), run_id="run-1", teacher=teacher, started_by="ann@laptop",
            announcer=announcer, ledger_folder=ledger_folder,
        )  # fmt: skip
        return verdict, result

    def promote(
        self,
        bundle: Path,
        evaluation: Path,
        verdict: Path,
        *,
        features: Path | None = None,
        **config,
    ) -> dict:
        return promote(
            bundle=bundle, evaluation=evaluation, verdict=verdict, features=features or self.features,
            config=PromoteConfig(**config), repository=str(self.workspace / "repository"),
            workspace=self.workspace, run_id="run-1",
            announcer=Announcer(self.workspace, PromoteConfig(**config).tracking),
        )  # fmt: skip

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.repository.history()]


def _sync_at_once(gate, workspace: Path, name: str) -> int:
    models = ModelRegistry(workspace / name / "repository")
    bundle = tiny_bundle(workspace / name / "bundle", weights=name.encode())
    models.add(bundle.folder)
    for kind in ("registered", "evaluated", "promoted"):
        models.append(kind, bundle.model_id, who="test", why="test")
    gate.wait()
    return sync(models, config=PromoteConfig(), workspace=workspace).versions[bundle.model_id]


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """An MLflow database that two processes made together, each with a candidate of another registry."""

    def create(workspace):
        assert set(race("spawn", _sync_at_once, [(workspace, name) for name in ("one", "two")])) == {1, 2}

    return once(tmp_path_factory, "mlflow", create) / "mlflow.db"


@pytest.fixture
def shop(tmp_path, database):
    return Workshop(tmp_path, database)


def trained(root: Path) -> Path:
    """The folder of a run whose distill step logged a curve."""
    (root / "student").mkdir(parents=True)
    curve = [{"epoch": 0, "valid_ndcg@10": 0.1}, {"epoch": 1, "valid_ndcg@10": 0.2}]
    (root / "student" / "curve.json").write_text(json.dumps({"towers": curve}))
    ledger.write_entry(
        root, ledger.Entry(step="distill", status="done", started=0, paths={"student": str(root / "student")})
    )
    return root


def online(shop: Workshop, *features: str, user: str = "u1", item: str = "i1") -> dict:
    from feature_repo.store import open_store

    folder = shop.workspace / "online" / names.SERVICE
    requests = open_store(folder).get_online_features(
        features=list(features), entity_rows=[{"user_id": user, "item_id": item}]
    )
    return {name: values[0] for name, values in requests.to_dict().items()}


# -- decide --------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_good_candidate_is_registered_with_its_evidence(shop):
    bundle, evaluation = shop.created("a")
    verdict, result = shop.decide(bundle, evaluation)
    assert result["outcome"] == "promote"
    assert shop.kinds == ["registered", "evaluated"]
    event = shop.repository.history()[1]
    saved = Path(shop.repository.evidence(event.digests["evaluation"]))
    assert read_report(saved) == read_report(evaluation)
    assert open_bundle(shop.workspace / "repository" / "bundles" / event.model_id).model_id == event.model_id
    assert json.loads((verdict / "verdict.json").read_text())["outcome"] == "promote"
    page = (verdict / "verdict.md").read_text()
    assert page.startswith("# Promote\n")
    assert "| met | beats the strongest baseline |" in page
    assert shop.repository.champion() == ""


@pytest.mark.parametrize(
    ("numbers", "gates", "outcome", "kind"),
    [
        ({"lift": -0.1}, {}, "refused", "rejected"),
        ({}, {"mode": "review"}, "pending", "pending"),
        ({}, {"min_requests": 1000}, "insufficient_data", "rejected"),
    ],
)
def test_what_is_not_promoted_says_why_in_the_history(shop, numbers, gates, outcome, kind):
    bundle, evaluation = shop.created("a", **numbers)
    verdict, result = shop.decide(bundle, evaluation, **gates)
    assert result["outcome"] == outcome
    assert shop.kinds == ["registered", "evaluated", kind]
    event = shop.repository.history()[-1]
    assert result["sentence"].startswith(event.why)
    command = f"`rankline review approve {event.model_id} --evidence {event.digests['verdict'][:12]}`"
    assert (command in result["sentence"]) is (outcome == "pending")
    assert ("beside" in event.details) is (outcome == "pending")
    assert {name: value for name, value in event.details.items() if name != "beside"} == {
        "outcome": outcome, "failures": result["failures"], "recipe": "smoke", "started_by": "ann@laptop"
    }  # fmt: skip
    assert ("rankline review show" in (verdict / "verdict.md").read_text()) is (outcome == "pending")
    saved = Path(shop.repository.evidence(event.digests["verdict"]))
    assert (saved / "verdict.json").read_bytes() == (verdict / "verdict.json").read_bytes()
    with pytest.raises(UsageError, match="does not promote"):
        shop.promote(bundle, evaluation, verdict)
    assert shop.repository.champion() == ""


@pytest.mark.parametrize(("gates", "stored"), [({}, True), ({"mode": "review"}, True), ({"min_requests": 1000}, False)])
def test_weights_of_what_may_come_to_serve_are_kept_and_its_start_is_recorded(shop, tmp_path, gates, stored):
    bundle, evaluation = shop.created("a")
    teacher = teacher_of(tmp_path / "teacher")
    shop.decide(bundle, evaluation, teacher=teacher, **gates)
    registered = next(event for event in shop.repository.history() if event.kind == "registered")
    assert registered.details == {"began_from": "m0"}
    assert registered.why.endswith("started from model m0")
    metadata = champion_weights.read_metadata(shop.repository, registered.model_id)
    assert (metadata.get("offered") == "m0") is stored
    assert sorted(metadata.get("files", [])) == (
        ["items.parquet", "origin.json", "teacher.json", "weights.safetensors"] if stored else []
    )


def test_the_same_verdict_on_the_same_evidence_is_recorded_once(shop):
    bundle, evaluation = shop.created("a", lift=-0.1)
    shop.decide(bundle, evaluation)
    (evaluation / "files.json").write_text("{}")  # a component's digests are not evidence
    _, result = shop.decide(bundle, evaluation)
    assert result["events"] == []
    assert len(shop.kinds) == 3
    evidence = sorted((shop.workspace / "repository" / "evidence").iterdir())
    _, result = shop.decide(bundle, evaluation, ledger_folder=trained(shop.root))  # another run: another page
    assert result["events"] == []
    assert sorted((shop.workspace / "repository" / "evidence").iterdir()) == evidence
    assert shop.decide(bundle, evaluation, margin=0.5)[1]["events"] == ["4 rejected"]


def test_the_evidence_page_and_the_model_card_are_evidence_and_show_the_run(shop):
    bundle, evaluation = shop.created("a", lift=-0.1)
    teacher = teacher_of(shop.root / "teacher")
    _, result = shop.decide(bundle, evaluation, teacher=teacher, ledger_folder=trained(shop.root))
    event = shop.repository.history()[-1]
    stored = Path(shop.repository.evidence(event.digests["verdict"]))
    assert {path.name for path in stored.iterdir()} == {"verdict.json", "verdict.md", "evidence.html", "MODEL_CARD.md"}
    page = html.document_fromstring((stored / "evidence.html").read_text())
    (first, *_), (header,) = page.xpath("//main/section"), page.xpath("//header")
    assert result["sentence"] in header.text_content()
    failed = [row.xpath("./th")[0].text_content() for row in first.xpath(".//tr[@class='fail']")]
    assert failed == result["failures"]
    sections = page.xpath("//main/section/@id")
    assert {"training", "cost", "lineage"} <= set(sections)
    assert not {"comparisons", "data", "reproduce"} & set(sections)
    assert "m0" in page.xpath("//section[@id='lineage']")[0].text_content()
    assert f"# Model `{result['model_id']}`" in (stored / "MODEL_CARD.md").read_text()


def test_outputs_of_steps_that_cannot_be_read_leave_a_page_without_curves(shop):
    bundle, evaluation = shop.created("a")
    folder = trained(shop.root)
    (shop.root / "student" / "curve.json").write_text("{")
    (evaluation / "comparisons.json").write_text("{")
    verdict, result = shop.decide(bundle, evaluation, ledger_folder=folder)
    assert result["outcome"] == "promote"
    sections = html.document_fromstring((verdict / "evidence.html").read_text()).xpath("//main/section/@id")
    assert "cost" in sections
    assert not {"training", "comparisons"} & set(sections)


def test_an_evaluation_of_another_model_is_refused(shop):
    bundle, _ = shop.created("a")
    _, evaluation = shop.created("b")
    with pytest.raises(UsageError, match="of another model"):
        shop.decide(bundle, evaluation)
    assert shop.kinds == []


def test_a_changed_bundle_is_refused(shop):
    bundle, evaluation = shop.created("a")
    (bundle / "scorer.onnx").write_bytes(b"?")
    with pytest.raises(IntegrityError, match=r"scorer\.onnx"):
        shop.decide(bundle, evaluation)
    assert shop.kinds == []


# -- promote -------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_promotion_brings_features_online_then_commits_then_mirrors(shop):
    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    trained(shop.workspace / "runs" / "run-1")
    result = shop.promote(bundle, evaluation, verdict)
    model_id = open_bundle(bundle).model_id
    assert shop.repository.champion() == model_id
    assert shop.kinds == ["registered", "evaluated", "promoted"]
    event = shop.repository.history()[-1]
    assert set(event.digests) == {"manifest", "catalogue", "evaluation", "verdict"}
    # the evidence is what `decide` had put there, not a second copy
    assert event.digests["evaluation"] == shop.repository.history()[1].digests["evaluation"]

    folder = shop.workspace / "online" / names.SERVICE
    assert json.loads((folder / "watermark.json").read_text())["until"] == END.isoformat()
    assert result["online"]["moved"]
    # what was known by then is online; what was learnt of a day later is not
    assert online(shop, "item_popularity:item_events_7d")["item_events_7d"] == 7.0
    assert online(shop, "user_history:history_items")["history_items"] == ["i1"]
    # the store stands on its own: the run's artifact may go
    shutil.rmtree(shop.features)
    assert online(shop, "user_activity:user_events_7d", user="u2")["user_events_7d"] == 2.0

    from mlflow import MlflowClient

    uri = f"sqlite:///{shop.workspace / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version_by_alias("rankline", "champion")
    assert version.tags["model_id"] == model_id
    assert int(version.version) == result["mlflow"]["version"]
    run = client.get_run(version.run_id)
    assert run.data.metrics["ndcg_at_10"] == read_report(evaluation).systems["candidate"].metrics["ndcg@10"].mean
    assert run.data.metrics["latency/p95_ms"] == 12.0
    assert run.data.params["recipe"] == "smoke"
    pages = [a.path for a in client.list_artifacts(version.run_id)]
    assert pages == ["MODEL_CARD.md", "evidence.html", "report.json", "verdict.json", "verdict.md"]
    curve = client.get_metric_history(version.run_id, "distill/towers/valid_ndcg_at_10")
    assert [(point.step, point.value) for point in curve] == [(0, 0.1), (1, 0.2)]

    # called again, as a retry would: nothing is done twice
    again = shop.promote(bundle, evaluation, verdict, features=features_of(shop.root / "again"))
    assert (again["event"], again["mlflow"]["version"]) == (result["event"], result["mlflow"]["version"])
    assert len(shop.kinds) == 3
    assert shop.decide(bundle, evaluation)[1]["outcome"] == "already_serving"
    assert len(shop.kinds) == 3

    # the next one takes over
    bundle, evaluation = shop.created("b", champion=model_id)
    verdict, _ = shop.decide(bundle, evaluation)
    result = shop.promote(bundle, evaluation, verdict, features=features_of(shop.root / "next", events_7d=8.0))
    assert result["champion_before"] == model_id
    assert "cannot be determined" in result["warning"]  # these catalogues have no items
    assert online(shop, "item_popularity:item_events_7d")["item_events_7d"] == 8.0
    now = client.get_model_version_by_alias("rankline", "champion")
    assert now.tags["model_id"] == open_bundle(bundle).model_id != model_id


@pytest.mark.integration
@pytest.mark.parametrize("content", ['{"until": "nonsense"}', "[1]", '{"until": 7}'])
def test_a_damaged_watermark_does_not_stand_in_the_way(shop, content):
    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    saved = shop.workspace / "online" / names.SERVICE / "watermark.json"
    saved.parent.mkdir(parents=True)
    saved.write_text(content)
    assert shop.promote(bundle, evaluation, verdict)["online"]["moved"]
    assert json.loads(saved.read_text())["until"] == END.isoformat()


def test_a_promotion_that_fails_on_its_way_has_changed_nothing(shop):
    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    broken = features_of(shop.root / "broken")
    source = broken / "feast" / "sources" / "item_popularity.parquet"
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(RegistryError, match="could not be materialized online"):
        shop.promote(bundle, evaluation, verdict, features=broken)
    assert shop.repository.champion() == ""
    assert shop.kinds == ["registered", "evaluated"]
    assert not (shop.workspace / "online" / names.SERVICE / "watermark.json").exists()

    assert shop.promote(bundle, evaluation, verdict)["event"] == 3
    assert shop.repository.champion() == open_bundle(bundle).model_id


def test_a_bundle_that_rotted_in_the_repository_is_not_promoted(shop):
    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    saved = shop.workspace / "repository" / "bundles" / open_bundle(bundle).model_id / "scorer.onnx"
    saved.write_bytes(b"?")
    with pytest.raises(IntegrityError, match=r"scorer\.onnx"):
        shop.promote(bundle, evaluation, verdict)
    assert shop.repository.champion() == ""


def test_a_mirror_that_fails_is_reported_and_undoes_nothing(shop, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    nobody_listens = "http://127.0.0.1:9"
    result = shop.promote(bundle, evaluation, verdict, tracking_uri=nobody_listens)
    assert "`rankline sync` mends it later" in result["mlflow"]["error"]
    assert shop.repository.champion() == open_bundle(bundle).model_id
    # a retry mends the mirror and leaves the history as it is
    assert "version" in shop.promote(bundle, evaluation, verdict)["mlflow"]
    assert len(shop.kinds) == 3


@pytest.mark.parametrize("in_pod", [False, True])
def test_stale_evidence_says_what_serves_and_what_to_try_where_it_runs(shop, monkeypatch, in_pod):
    if in_pod:
        monkeypatch.setenv("ARGO_NODE_ID", "rankline-smoke-v8n6p-1")
    first, second = shop.created("a"), shop.created("b")
    verdicts = [shop.decide(*one)[0] for one in (first, second)]
    shop.promote(*first, verdicts[0])
    champion = open_bundle(first[0]).model_id
    models = shop.repository

    def append():
        return models.append("promoted", open_bundle(second[0]).model_id, who="me", why="", expected_champion="")

    errors = []
    for late in (lambda: shop.promote(*second, verdicts[1]), lambda: shop.decide(*second), append):
        with pytest.raises(StaleEvidence) as refusal:
            late()
        errors.append(refusal.value)
    assert not [each for each in errors if "(none)" in str(each)]
    assert [champion in str(each) for each in errors] == [True] * 3
    assert ["no champion" in each.expected for each in errors] == [True, False, True]
    assert {each.hint.startswith("`rankline submit` again") for each in errors} == {in_pod}
    assert {"rankline runs retry" in each.hint for each in errors} == {in_pod}


@pytest.mark.integration
def test_what_waits_or_is_refused_is_announced_and_a_promotion_once_it_has_happened(shop):
    from mlflow import MlflowClient

    uri = f"sqlite:///{shop.workspace / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    with web_server([200]) as (url, received):
        announcer = Announcer(shop.workspace, notify=NotifyConfig(webhooks=(Webhook(url=url),)), recipe="smoke")
        refused, evaluation = shop.created("a", lift=-0.1)
        shop.decide(refused, evaluation)  # and killed, before it was announced
        shop.decide(refused, evaluation, announcer=announcer)
        waiting, evaluation = shop.created("b")
        result = shop.decide(waiting, evaluation, announcer=announcer, mode="review")[1]
        version = client.get_model_version_by_alias("rankline", "candidate")
        assert (version.tags["model_id"], int(version.version)) == (result["model_id"], result["mlflow"]["version"])
        bundle, evaluation = shop.created("c")
        verdict, result = shop.decide(bundle, evaluation, announcer=announcer)
        assert result["outcome"] == "promote"
        assert "mlflow" not in result
        promote(
            bundle, evaluation, verdict, shop.features, config=PromoteConfig(), announcer=announcer, run_id="run-1",
            repository=str(shop.workspace / "repository"), workspace=shop.workspace,
        )  # fmt: skip
    assert [json.loads(each.body)["event"] for each in received] == ["rejected", "pending", "promoted"]
    shown = {each.tags["model_id"]: each.tags["outcome"] for each in client.search_model_versions()
             if each.tags.get("rankline_run") == "run-1"}  # fmt: skip
    expected = {open_bundle(refused).model_id: "refused", open_bundle(waiting).model_id: "pending",
                open_bundle(bundle).model_id: "promoted"}  # fmt: skip
    assert shown == expected


def test_stale_evidence_is_refused_by_both_steps(shop):
    first, second = shop.created("a"), shop.created("b")
    verdicts = [shop.decide(*one)[0] for one in (first, second)]
    shop.promote(*first, verdicts[0])
    before = (shop.workspace / "online" / names.SERVICE / "watermark.json").stat().st_mtime_ns
    with pytest.raises(StaleEvidence, match="changed since the verdict"):
        shop.promote(*second, verdicts[1])
    with pytest.raises(StaleEvidence, match="changed since this model was evaluated"):
        shop.decide(*second)
    assert shop.repository.champion() == open_bundle(first[0]).model_id
    assert shop.kinds == ["registered", "evaluated"] * 2 + ["promoted"]
    assert (shop.workspace / "online" / names.SERVICE / "watermark.json").stat().st_mtime_ns == before


def test_of_two_promotions_at_once_one_wins(shop):
    """Whoever loses has written nothing: what is online is the winner's, though the loser's is as new."""
    candidates = [shop.created("a"), shop.created("b")]
    verdicts = [shop.decide(*one)[0] for one in candidates]
    features = [features_of(shop.root / f"of-{i}", events_7d=10.0 + i) for i in range(2)]
    gate = threading.Barrier(2)

    def race(i: int) -> str:
        gate.wait()
        try:
            shop.promote(*candidates[i], verdicts[i], features=features[i])
        except StaleEvidence:
            return "stale"
        return "promoted"

    with ThreadPoolExecutor(2) as racers:
        ended = list(racers.map(race, range(2)))
    assert sorted(ended) == ["promoted", "stale"]
    assert shop.kinds.count("promoted") == 1
    winner = ended.index("promoted")
    assert shop.repository.champion() == open_bundle(candidates[winner][0]).model_id
    assert online(shop, "item_popularity:item_events_7d")["item_events_7d"] == 10.0 + winner


def test_an_older_model_does_not_take_the_features_back(shop):
    folder = shop.workspace / "online" / names.SERVICE
    assert materialize_online(shop.features, folder)["moved"]
    older = features_of(shop.root / "older", end=END - timedelta(days=30), events_7d=1.0)
    assert not materialize_online(older, folder)["moved"]
    assert online(shop, "item_popularity:item_events_7d")["item_events_7d"] == 7.0


def test_a_promotion_that_waits_too_long_says_for_what(shop):
    from filelock import FileLock

    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    folder = shop.workspace / "online" / names.SERVICE
    folder.parent.mkdir(parents=True)
    with (
        FileLock(folder.with_name(f".{folder.name}.lock")),
        pytest.raises(RegistryError, match="another process is writing"),
    ):
        shop.promote(bundle, evaluation, verdict, lock_timeout_s=0.05)
    assert shop.repository.champion() == ""


def test_features_of_another_service_are_refused(shop):
    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    (shop.features / "summary.json").write_text('{"service": "ranking_v0"}')
    with pytest.raises(UsageError, match="another feature service"):
        shop.promote(bundle, evaluation, verdict)


@pytest.mark.parametrize("content", [None, "{", '{"outcome": "promote"}'])
def test_a_verdict_that_cannot_be_read_promotes_nothing(shop, content):
    bundle, evaluation = shop.created("a")
    verdict, _ = shop.decide(bundle, evaluation)
    (verdict / "verdict.json").unlink()
    if content is not None:
        (verdict / "verdict.json").write_text(content)
    with pytest.raises(IntegrityError, match=r"the verdict (cannot be read|is missing)"):
        shop.promote(bundle, evaluation, verdict)
    assert shop.repository.champion() == ""


# -- the components -----------------------------------------------------------------------------------------------


def test_the_components_run_with_the_pipelines_arguments(shop):
    """The components' own bodies, with artifacts that only have a path; whole numbers come as floats."""
    from types import SimpleNamespace

    from kfp.dsl import HTML, Metrics

    from components.promote import component

    bundle, evaluation = shop.created("a")
    for folder in (bundle, evaluation, shop.features, teacher_of(shop.root / "teacher")):
        write_json(folder / "files.json", digest.file_digests(folder))
    paths = {"bundle": bundle, "evaluation": evaluation, "verdict": shop.root / "verdict"}
    given = {name: SimpleNamespace(path=str(path)) for name, path in paths.items()}
    folders = (shop.features, shop.root / "teacher", checks_of(shop.root / "checks"))
    features, teacher, checks = (SimpleNamespace(path=str(path)) for path in folders)
    run, config = {"workspace": str(shop.workspace)}, {"min_requests": 100.0}
    metrics, page = Metrics(uri=str(shop.root / "metrics")), HTML(uri=str(shop.root / "pages" / "page"))
    shown = {"metrics": metrics, "page": page, "prices": {}}
    outcome = component.decide.python_func(
        **given, **shown, teacher=teacher, checks=checks, config=config, run=run, job="run-7"
    )
    assert outcome == "promote"
    assert Path(page.path).read_bytes() == (shop.root / "verdict" / "evidence.html").read_bytes()
    assert metrics.metadata["outcome"] == "promote"
    assert metrics.metadata["requests"] == 120
    assert metrics.metadata["candidate ndcg@10"] > metrics.metadata["popularity ndcg@10"]
    component.promote.python_func(**given, features=features, config={}, run=run, job="run-7")
    entries = ledger.read_entries(shop.workspace / "runs" / "run-7")
    assert entries["decide"].result["outcome"] == "promote"
    assert entries["promote"].why == "it always runs"
    assert entries["promote"].result["event"] == 3
    assert shop.repository.champion() == open_bundle(bundle).model_id


def checks_of(folder: Path) -> Path:
    """What validate reports of a run's data."""
    folder.mkdir(parents=True)
    write_json(folder / "measures.json", {})
    write_json(folder / "files.json", digest.file_digests(folder))
    return folder


def _decide_and_promote(gate, shop_root: Path, name: str) -> tuple[str, str, str]:
    """Decide on a candidate and, when the other process has decided, too, promote it; as the flow does."""
    from types import SimpleNamespace

    from kfp.dsl import HTML, Metrics

    from components.promote import component

    places = {
        "bundle": shop_root / name / "bundle",
        "evaluation": shop_root / name / "evaluation",
        "verdict": shop_root / name / "verdict",
    }
    given = {key: SimpleNamespace(path=str(path)) for key, path in places.items()}
    features = SimpleNamespace(path=str(shop_root / f"features-{name}"))
    run = {"workspace": str(shop_root / "workspace")}
    teacher = SimpleNamespace(path=str(shop_root / "teacher"))
    shown = {"metrics": Metrics(uri=str(shop_root / f"m{name}")), "page": HTML(uri=str(shop_root / f"p{name}"))}
    checks = SimpleNamespace(path=str(shop_root / "checks"))
    judged_with = {"teacher": teacher, "checks": checks, "prices": {}}
    outcome = component.decide.python_func(**given, **shown, **judged_with, config={}, run=run, job=f"run-{name}")
    gate.wait(120)
    try:
        component.promote.python_func(**given, features=features, config={}, run=run, job=f"run-{name}")
    except SystemExit as stop:
        return name, outcome, str(stop.code)
    return name, outcome, ""


@pytest.mark.integration
def test_of_two_processes_in_both_steps_one_promotes_and_the_other_is_stale(shop):
    checks_of(shop.root / "checks")
    write_json(teacher_of(shop.root / "teacher") / "files.json", digest.file_digests(shop.root / "teacher"))
    for name, events in (("a", 10.0), ("b", 11.0)):
        bundle, evaluation = shop.created(name)
        features_of(shop.root / f"features-{name}", events_7d=events)
        for folder in (bundle, evaluation, shop.root / f"features-{name}"):
            write_json(folder / "files.json", digest.file_digests(folder))
    outcomes = race("spawn", _decide_and_promote, [(shop.root, name) for name in "ab"])
    assert {outcome for _, outcome, _ in outcomes} == {"promote"}
    (winner,) = [name for name, _, message in outcomes if not message]
    (refusal,) = [message for _, _, message in outcomes if message]
    assert refusal.startswith("the champion changed since the verdict")
    assert "try: run the pipeline again" in refusal
    assert sorted(shop.kinds) == ["evaluated", "evaluated", "promoted", "registered", "registered"]
    assert shop.kinds[-1] == "promoted"
    assert shop.repository.champion() == open_bundle(shop.root / winner / "bundle").model_id
    # and what is online is the winner's
    requests = online(shop, "item_popularity:item_events_7d")
    assert requests["item_events_7d"] == {"a": 10.0, "b": 11.0}[winner]
