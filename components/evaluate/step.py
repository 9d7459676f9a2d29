"""Evaluate: the very bytes that would be served, asked over HTTP what they would have answered then.

Reads a `bundle` (and the champion's, if there is one), the frozen requests of `features`, the rankings in
`teacher` (its own and the untuned encoder's) and the torch logits in `student`. Writes into `report`:
report.json, report.html, per_request.parquet, slices.parquet and the servers' logs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate import baselines, measure, replay, scores
from components.evaluate.baselines import Catalogue, Scorer
from components.evaluate.champion_for import rebuild_champion
from components.evaluate.config import EvaluateConfig
from components.evaluate.measure import Lists, Measurements
from components.evaluate.replay import ReplayRequest
from components.evaluate.report import Example, PageData, write_page
from components.evaluate.slices import slices
from rankline.errors import UsageError
from rankline.evaluation.report import CANDIDATE, CHAMPION, ModelFootprint, Report, SystemScores, write_report
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.model.bundle import Bundle, open_bundle
from rankline.runtime.progress import Progress

SPLIT = "test"  # the split nothing was trained or chosen on
RANKINGS = "rankings.parquet"
TEACHER_SYSTEMS = ("teacher", "untuned_encoder")


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
    run_id: str = "",
) -> dict[str, Any]:
    """Measure a candidate bundle beside the champion, the teacher and plain baselines, on the same requests.

    Raises:
        UsageError: ``bundle`` or ``champion`` is no bundle.
        TooSmall: there is no request to replay.
        IntegrityError: a bundle's bytes are not what they were, or a system has no answer to some request.
        ServerError: a server does not start, dies, or gives an answer that cannot be scored.
    """
    report.mkdir(parents=True, exist_ok=True)
    candidate = open_bundle(bundle)
    champion_bundle = open_bundle(champion) if champion else None

    progress.phase("ranking by the baselines")
    catalogue, scorers = baselines.scorers(
        features,
        keep=config.knn_neighbours,
        shrink=config.knn_shrink,
        last=config.knn_last,
        decay=config.knn_decay,
        stemmer=config.stemmer,
    )
    requests, other_lists = _rank_by_baselines(features, catalogue, scorers, config, progress)
    other_lists |= _read_rankings(teacher / RANKINGS)
    ids = [one.request_id for one in requests]
    baseline_lists = {
        name: replay.ordered_answers(name, other_lists[name], ids, where=teacher) for name in sorted(other_lists)
    }

    measured = measure.measure_candidate(
        candidate,
        requests,
        features=features,
        student=student,
        folder=report / "servers" / CANDIDATE,
        config=config,
        progress=progress,
    )
    ranked = {CANDIDATE: replay.ordered_answers(CANDIDATE, measured.lists, ids, where=report)}
    champion_catalogue = ""
    if champion_bundle:
        lists, champion_catalogue = _champion_lists(
            champion_bundle, candidate, measured, requests, report / "servers" / CHAMPION, config, progress
        )
        ranked[CHAMPION] = replay.ordered_answers(CHAMPION, lists, ids, where=report)
    ranked |= baseline_lists

    progress.phase("scoring")
    scored = scores.score(ranked, [one.request.targets for one in requests], config=config)
    estimates = scores.estimates(scored, config=config)
    items = _read_items(features)
    categories = {item: row["category"] or [] for item, row in items.items()}
    counts = dict(zip(catalogue.item_ids, catalogue.counts_I.tolist()))
    masks = slices([one.request for one in requests], catalogue, categories, config=config)
    evaluation = Report(
        model_id=candidate.model_id,
        recipe=candidate.manifest.recipe,
        run_id=run_id,
        champion=champion_bundle.model_id if champion_bundle else "",
        requests=len(requests),
        systems={
            name: SystemScores(
                metrics=estimates[name], lists=scores.list_statistics(ranked[name], categories, counts, config=config)
            )
            for name in ranked
        },
        slices=scores.by_slice(masks, scored, config=config),
        latency=measured.latency,
        parity=measured.parity,
        model=ModelFootprint(
            size_bytes=sum((candidate.folder / name).stat().st_size for name in candidate.manifest.files),
            memory_bytes=measured.memory_bytes,
        ),
        calibration=measured.heads.numbers,
        details={
            "split": SPLIT,
            "primary": config.primary,
            "precision": config.precision,
            "train_end": candidate.manifest.train_end,
            "catalogue_revision": candidate.revision,
            "champion_catalogue": champion_catalogue,
            "lean_latency": measured.lean.model_dump(),
            "differences": scores.differences(scored, config=config),
            "settings": config.model_dump(mode="json"),
        },
    )
    scores.write_tables(report, ids, scored, masks)
    write_report(report, evaluation)
    write_page(report, evaluation, _page_data(measured, requests, ranked, items, config))
    return {
        "model_id": evaluation.model_id,
        "champion": evaluation.champion,
        "requests": evaluation.requests,
        config.primary: {name: system.metrics[config.primary].mean for name, system in evaluation.systems.items()},
        "p95_ms": evaluation.latency.p95_ms,
        "throughput_rps": evaluation.latency.throughput_rps,
        "served_max_abs_difference": evaluation.parity.served_max_abs_difference,
        "same_top10_share": evaluation.parity.same_top10_share,
    }


def _champion_lists(
    champion: Bundle,
    candidate: Bundle,
    measured: Measurements,
    requests: Sequence[ReplayRequest],
    folder: Path,
    config: EvaluateConfig,
    progress: Progress,
) -> tuple[Lists, str]:
    """The champion's lists, and over which catalogue it gave them."""
    if (champion.model_id, champion.revision) == (candidate.model_id, candidate.revision):
        return measured.lists, "the candidate's own"
    with tempfile.TemporaryDirectory(prefix="rankline-", dir=folder.parents[1]) as scratch:
        progress.phase("embedding the items with the champion")
        refreshed, champion_catalogue = rebuild_champion(champion, candidate, Path(scratch), progress=progress)
        progress.phase("replaying: champion")
        return measure.replay_lists(
            refreshed, requests, folder=folder, config=config, progress=progress
        ), champion_catalogue


def _rank_by_baselines(
    features: Path,
    catalogue: Catalogue,
    scorers: Mapping[str, Scorer],
    config: EvaluateConfig,
    progress: Progress,
) -> tuple[list[ReplayRequest], dict[str, Lists]]:
    """The requests to replay, in order, and every baseline's list for each of them."""
    chosen = replay.sample_requests(features, split=SPLIT, max_requests=config.max_requests, seed=config.seed)
    requests: list[ReplayRequest] = []
    lists: dict[str, Lists] = {name: {} for name in scorers}
    for one, state in replay.read_requests(features, split=SPLIT, chosen=chosen):
        requests.append(one)
        words = one.request.query or ""
        for name, score in scorers.items():
            lists[name][one.request_id] = catalogue.best(score(state, words), seen=state.seen, count=config.top_k)
        progress.update(len(requests), len(chosen))
    return requests, lists


def _request_label(request: SnapshotRequest) -> str:
    """Who asks, and in which words."""
    user = f"user {request.user_id}" if request.user_id is not None else ""
    return ": ".join(part for part in (user, request.query) if part)


def _read_rankings(path: Path) -> dict[str, Lists]:
    """The lists that finetune wrote, a system each."""
    import pyarrow.parquet as parquet

    lists: dict[str, Lists] = {name: {} for name in TEACHER_SYSTEMS}
    if not path.is_file():
        raise UsageError(
            "the teacher has left no rankings to compare with",
            expected=RANKINGS,
            found="no such file",
            where=str(path),
            hint="give the folder that `rankline step finetune` wrote",
        )
    for row in parquet.read_table(path).to_pylist():
        lists.setdefault(row["system"], {})[row["request_id"]] = row["item_ids"]
    return lists


def _read_items(features: Path) -> dict[str, dict[str, Any]]:
    """Item id -> what people see of it."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(features / "items.parquet", columns=["item_id", "title", "category"])
    return {row["item_id"]: row for row in table.to_pylist()}


def _page_data(
    measured: Measurements,
    requests: Sequence[ReplayRequest],
    ranked: Mapping[str, Sequence[Sequence[str]]],
    items: Mapping[str, Mapping[str, Any]],
    config: EvaluateConfig,
) -> PageData:
    """What only the page shows: single timings, the calibration's bins, and some users' lists with titles."""
    rng = np.random.default_rng(config.seed)
    rows = rng.choice(len(requests), min(config.example_users, len(requests)), replace=False)

    def titles(ids: Sequence[str]) -> list[str]:
        return [items[item]["title"] or item if item in items else item for item in ids]

    examples = [
        Example(
            who=_request_label(requests[row].request),
            history=titles(requests[row].request.state.history.item_ids[-5:]),
            targets=titles(requests[row].request.targets),
            lists={
                name: [
                    (title, item in requests[row].request.targets)
                    for item, title in zip(ranked[name][row][:10], titles(ranked[name][row][:10]))
                ]
                for name in (CANDIDATE, CHAMPION, "item_knn_decay")
                if name in ranked
            },
        )
        for row in rows
    ]
    return PageData(measured.latency_ms, measured.heads.reliability, examples)
