"""Evaluate: replay the test requests through the real server, and score its lists beside champion and baselines.

Reads a `bundle` (and the champion's, if there is one), the snapshot requests in `features`, the rankings in `teacher`
(the teacher's and the untuned encoder's) and the torch logits in `student`. Writes report.json, report.html,
per_request.parquet, requests.parquet, slices.parquet, comparisons.json and the servers' logs to `report`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate import attributes, comparisons, label_heads, measure, replay, scores
from components.evaluate.attributes import Attribute
from components.evaluate.baselines.fusion import fusion
from components.evaluate.baselines.ranking import Baselines, learn
from components.evaluate.champion_for import rebuild_champion
from components.evaluate.config import EvaluateConfig
from components.evaluate.measure import Lists, Measurements, RunningServer
from components.evaluate.replay import ReplayRequest
from components.evaluate.report import Example, PageData, write_page
from components.evaluate.slices import slices
from rankline.errors import IntegrityError, ServerError, UsageError
from rankline.evaluation import metrics
from rankline.evaluation.report import (
    ANCHOR,
    CANDIDATE,
    CHAMPION,
    TEACHER,
    ModelFootprint,
    Report,
    SystemScores,
    write_report,
)
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.evidence.comparisons import write_comparisons
from rankline.model.bundle import Bundle, open_bundle
from rankline.runtime.progress import Progress

SPLIT = "test"  # the split that nothing was trained or chosen on
RANKINGS = "rankings.parquet"
TEACHER_SYSTEMS = (TEACHER, "untuned_encoder")


@dataclass(frozen=True)
class Replayed:
    """The requests, every system's lists for them in the same order, and what was measured on the server."""

    requests: Sequence[ReplayRequest]
    ranked: Mapping[str, Sequence[Sequence[str]]]
    measured: Measurements
    catalogues: Mapping[str, str]  # of champion and anchor

    @property
    def request_ids(self) -> list[str]:
        return [replayed.request_id for replayed in self.requests]

    @property
    def targets(self) -> list[list[str]]:
        return [request.targets for request in self.snapshots]

    @property
    def snapshots(self) -> list[SnapshotRequest]:
        """The requests as featurize wrote them, in order."""
        return [replayed.request for replayed in self.requests]


def evaluate(
    bundle: Path,
    features: Path,
    teacher: Path,
    student: Path,
    report: Path,
    *,
    config: EvaluateConfig,
    progress: Progress = Progress(),
    champion: Path | None = None,
    anchor: Path | None = None,
    run_id: str = "",
) -> dict[str, Any]:
    """Measure a candidate bundle beside the champion, the anchor, the teacher and the baselines, on the same requests.

    Raises:
        UsageError: ``bundle`` or ``champion`` is not a bundle.
        TooSmall: there are no requests to replay.
        IntegrityError: a bundle does not match its digests, or a system has no answer to a request.
        ServerError: a server does not start, dies, or gives an answer that cannot be scored.
    """
    report.mkdir(parents=True, exist_ok=True)
    candidate, champion_bundle = open_bundle(bundle), open_bundle(champion) if champion else None
    progress.phase("ranking by the baselines")
    baselines = learn(features, teacher, candidate if config.single_sources else None, config=config)
    requests, lists = _rank_by_baselines(baselines, features, teacher, config, progress)
    training_items, ids = baselines.items, [replayed.request_id for replayed in requests]
    others = {name: replay.ordered_answers(name, lists[name], ids, where=teacher) for name in sorted(lists)}

    with measure.running(candidate, requests, report / "servers" / CANDIDATE, config, progress) as replayer:
        measured = measure.measure_candidate(replayer, features=features, student=student)
        heads = label_heads.measure_labels(replayer, features=features, student=student, split=SPLIT)
    served, catalogues = _replay_others(champion_bundle, anchor, candidate, replayer, measured, report / "servers")
    ranked = {name: replay.ordered_answers(name, served[name], ids, where=report) for name in served} | others
    replayed = Replayed(requests, ranked, measured, catalogues)

    progress.phase("scoring")
    scored = scores.score(ranked, replayed.snapshots, config=config)
    items = _read_items(features)
    of_items = attributes.item_attributes(features)
    masks = slices(replayed.snapshots, training_items, of_items, config=config)
    counts = dict(zip(training_items.item_ids, training_items.counts_I.tolist()))
    systems = _system_scores(replayed, scored, items, counts, config)
    evaluation = Report(
        model_id=candidate.model_id,
        recipe=candidate.manifest.recipe,
        run_id=run_id,
        champion=champion_bundle.model_id if champion_bundle else "",
        anchor=open_bundle(anchor).model_id if anchor and ANCHOR in served else "",
        requests=len(requests),
        systems=systems,
        slices=scores.by_slice(masks, scored, config=config),
        latency=measured.latency,
        parity=measured.parity,
        model=_footprint(candidate, measured),
        calibration=measured.heads.numbers,
        heads=heads,
        exposure=scores.exposures(
            ranked[CANDIDATE], replayed.targets, training_items.item_ids, of_items, config=config
        ),
        details=_details(candidate, replayed, scored, of_items, config)
        | {"baselines": {"settings": baselines.settings, "left_out": baselines.left_out}}
        | {"items": comparisons.item_changes(items, training_items, champion_bundle)},
    )
    scores.write_tables(report, ids, replayed.snapshots, scored, masks)
    facts = comparisons.CatalogueFacts(items, training_items, candidate.manifest.features)
    write_comparisons(report, comparisons.compare(requests, ranked, scored, facts, metric=config.primary))
    write_report(report, evaluation)
    write_page(report, evaluation, _page_data(replayed, evaluation.strongest(config.primary), items, config))
    return _result(evaluation, config)


def _rank_by_baselines(
    baselines: Baselines, features: Path, teacher: Path, config: EvaluateConfig, progress: Progress
) -> tuple[list[ReplayRequest], dict[str, Lists]]:
    """The requests to replay, in order, and the list of every baseline and of the teacher per request."""
    chosen = replay.sample_requests(features, split=SPLIT, max_requests=config.max_requests, seed=config.seed)
    requests: list[ReplayRequest] = []
    lists: dict[str, Lists] = {}
    for replayed, state in replay.read_requests(features, split=SPLIT, chosen=chosen):
        requests.append(replayed)
        ranked = baselines.lists(state, replayed.request.query or "", count=config.top_k)
        for name, best in ranked.items():
            lists.setdefault(name, {})[replayed.request_id] = best
        progress.update(len(requests), len(chosen))
    lists |= _read_rankings(teacher / RANKINGS)
    return requests, lists | _fused(lists, requests, config)


def _fused(lists: dict[str, Lists], requests: Sequence[ReplayRequest], config: EvaluateConfig) -> dict[str, Lists]:
    """The reciprocal-rank fusion of the baselines, where there are two to fuse."""
    kinds = {
        each.request_id: (bool(each.request.query), bool(each.request.state.history.item_ids)) for each in requests
    }
    fused = fusion(lists, kinds, count=config.top_k)
    return {"rank_fusion": fused} if fused else {}


def _replay_others(
    champion: Bundle | None,
    anchor: Path | None,
    candidate: Bundle,
    replayer: RunningServer,
    measured: Measurements,
    folder: Path,
) -> tuple[dict[str, Lists], dict[str, str]]:
    """System -> the lists of candidate, champion and anchor, and descriptions of the catalogues of the last two."""
    served, catalogues = {CANDIDATE: measured.lists}, {}
    if champion:
        served[CHAMPION], catalogues[CHAMPION] = _replay_model(
            champion, candidate, replayer, measured, folder / CHAMPION
        )
    if anchor:
        answers, catalogues[ANCHOR] = _replay_anchor(anchor, candidate, replayer, measured, folder / ANCHOR)
        served |= {ANCHOR: answers} if answers else {}
    return served, catalogues


def _replay_anchor(
    anchor: Path, candidate: Bundle, replayer: RunningServer, measured: Measurements, folder: Path
) -> tuple[Lists, str]:
    """The same of the anchor; no lists, and the reason, where a model that old cannot answer the requests any more."""
    try:
        return _replay_model(open_bundle(anchor), candidate, replayer, measured, folder)
    except (IntegrityError, ServerError, UsageError) as error:
        return {}, f"not replayed: {error.message} ({error.found})"


def _replay_model(
    model: Bundle, candidate: Bundle, replayer: RunningServer, measured: Measurements, folder: Path
) -> tuple[Lists, str]:
    """Another model's lists for the requests that the candidate replayed, and a description of its catalogue."""
    if (model.model_id, model.revision) == (candidate.model_id, candidate.revision):
        return measured.lists, "the candidate's own"
    requests, config, progress = replayer.requests, replayer.config, replayer.progress
    with tempfile.TemporaryDirectory(prefix="rankline-", dir=folder.parents[1]) as scratch:
        progress.phase(f"embedding the items with the {folder.name}")
        rebuilt, catalogue = rebuild_champion(model, candidate, Path(scratch), progress=progress)
        progress.phase(f"replaying: {folder.name}")
        with measure.running(rebuilt, requests, folder, config, progress) as server:
            return server.recommend(), catalogue


def _system_scores(
    replayed: Replayed,
    scored: scores.Scores,
    items: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, float],
    config: EvaluateConfig,
) -> dict[str, SystemScores]:
    categories = {item: row["category"] or [] for item, row in items.items()}
    estimates = scores.estimates(scored, replayed.snapshots, config=config)
    histories_R = metrics.log_popularity([request.state.history.item_ids for request in replayed.snapshots], counts)
    return {
        name: SystemScores(
            metrics=estimates[name],
            lists=scores.list_statistics(lists, categories, counts, histories_R, config=config),
        )
        for name, lists in replayed.ranked.items()
    }


def _footprint(candidate: Bundle, measured: Measurements) -> ModelFootprint:
    return ModelFootprint(
        size_bytes=sum((candidate.folder / name).stat().st_size for name in candidate.manifest.files),
        memory_bytes=measured.memory_bytes,
    )


def _details(
    candidate: Bundle,
    replayed: Replayed,
    scored: scores.Scores,
    of_items: Mapping[str, Attribute],
    config: EvaluateConfig,
) -> dict[str, Any]:
    grouped = {**of_items, **attributes.request_attributes(replayed.snapshots)}
    return {
        "split": SPLIT,
        "primary": config.primary,
        "precision": config.precision,
        "train_end": candidate.manifest.train_end,
        "catalogue_revision": candidate.revision,
        **{f"{name}_catalogue": replayed.catalogues.get(name, "") for name in (CHAMPION, *replayed.catalogues)},
        "quarters": {name: list(each.edges) for name, each in grouped.items() if each.edges},
        "lean_latency": replayed.measured.lean_latency.model_dump(),
        "differences": scores.differences(scored, replayed.snapshots, config=config),
        "settings": config.model_dump(mode="json"),
    }


def _result(evaluation: Report, config: EvaluateConfig) -> dict[str, Any]:
    """What the run's ledger shows of the evaluation."""
    return {
        "model_id": evaluation.model_id,
        "champion": evaluation.champion,
        "requests": evaluation.requests,
        config.primary: {name: system.metrics[config.primary].mean for name, system in evaluation.systems.items()},
        **({"heads": {name: head.metrics for name, head in evaluation.heads.items()}} if evaluation.heads else {}),
        "p95_ms": evaluation.latency.p95_ms,
        "throughput_rps": evaluation.latency.throughput_rps,
        "served_max_abs_difference": evaluation.parity.served_max_abs_difference,
        "same_top10_share": evaluation.parity.same_top10_share,
    }


def _request_label(request: SnapshotRequest) -> str:
    """The user, the query, or both."""
    user = f"user {request.user_id}" if request.user_id is not None else ""
    return ": ".join(part for part in (user, request.query) if part)


def _read_rankings(path: Path) -> dict[str, Lists]:
    """The lists that finetune wrote, by system."""
    import pyarrow.parquet as parquet

    lists: dict[str, Lists] = {name: {} for name in TEACHER_SYSTEMS}
    if not path.is_file():
        raise UsageError(
            "the teacher folder has no rankings",
            expected=RANKINGS,
            found="no such file",
            where=str(path),
            hint="pass the folder that `rankline step finetune` wrote",
        )
    for row in parquet.read_table(path).to_pylist():
        lists.setdefault(row["system"], {})[row["request_id"]] = row["item_ids"]
    return lists


def _read_items(features: Path) -> dict[str, dict[str, Any]]:
    """Item id -> its title, categories and language."""
    import pyarrow.parquet as parquet

    path = features / "items.parquet"
    known = {"item_id", "title", "category", "language"}
    table = parquet.read_table(path, columns=[name for name in parquet.read_schema(path).names if name in known])
    return {row["item_id"]: row for row in table.to_pylist()}


def _page_data(
    replayed: Replayed, strongest: str, items: Mapping[str, Mapping[str, Any]], config: EvaluateConfig
) -> PageData:
    """What only the page shows: single timings, calibration bins, and some requests' lists with titles."""
    rng = np.random.default_rng(config.seed)
    count = len(replayed.requests)
    rows = rng.choice(count, min(config.example_users, count), replace=False)

    def titles(ids: Sequence[str]) -> list[str]:
        return [items[item]["title"] or item if item in items else item for item in ids]

    def example(row: int) -> Example:
        request = replayed.requests[row].request
        shown = [name for name in (CANDIDATE, CHAMPION, strongest) if name in replayed.ranked]
        return Example(
            label=_request_label(request),
            history=titles(request.state.history.item_ids[-5:]),
            targets=titles(request.targets),
            lists={
                name: [
                    (title, item in request.targets)
                    for item, title in zip(replayed.ranked[name][row][:10], titles(replayed.ranked[name][row][:10]))
                ]
                for name in shown
            },
        )

    measured = replayed.measured
    return PageData(measured.latency_ms, measured.heads.reliability, [example(row) for row in rows])
