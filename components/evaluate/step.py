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
from components.evaluate.baselines import Catalogue, Score
from components.evaluate.champion_for import beside
from components.evaluate.config import EvaluateConfig
from components.evaluate.measure import Lists, Measured
from components.evaluate.replay import Asked
from components.evaluate.report import Example, Shown, write_page
from components.evaluate.slices import slices
from rankline.errors import UsageError
from rankline.evaluation.report import CANDIDATE, CHAMPION, Model, Report, System, write_report
from rankline.evaluation.snapshot_requests import FrozenRequest
from rankline.model.bundle import Bundle, open_bundle
from rankline.runtime.progress import Progress

SPLIT = "test"  # the split nothing was trained or chosen on
RANKINGS = "rankings.parquet"
TRAINED = ("teacher", "untuned_encoder")


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
    rival = open_bundle(champion) if champion else None

    progress.phase("ranking by the baselines")
    catalogue, scorers = baselines.scorers(
        features,
        keep=config.knn_neighbours,
        shrink=config.knn_shrink,
        last=config.knn_last,
        decay=config.knn_decay,
        stemmer=config.stemmer,
    )
    asked, others = _baselines(features, catalogue, scorers, config, progress)
    others |= _rankings(teacher / RANKINGS)
    ids = [one.request_id for one in asked]
    plain = {name: replay.in_order(name, others[name], ids, where=teacher) for name in sorted(others)}

    measured = measure.candidate(
        candidate,
        asked,
        features=features,
        student=student,
        folder=report / "servers" / CANDIDATE,
        config=config,
        progress=progress,
    )
    ranked = {CANDIDATE: replay.in_order(CANDIDATE, measured.lists, ids, where=report)}
    over = ""
    if rival:
        lists, over = _champions(rival, candidate, measured, asked, report / "servers" / CHAMPION, config, progress)
        ranked[CHAMPION] = replay.in_order(CHAMPION, lists, ids, where=report)
    ranked |= plain

    progress.phase("scoring")
    scored = scores.score(ranked, [one.request.targets for one in asked], config=config)
    estimates = scores.estimates(scored, config=config)
    items = _items(features)
    categories = {item: row["category"] or [] for item, row in items.items()}
    counts = dict(zip(catalogue.item_ids, catalogue.counts_I.tolist()))
    masks = slices([one.request for one in asked], catalogue, categories, config=config)
    told = Report(
        model_id=candidate.model_id,
        recipe=candidate.manifest.recipe,
        run_id=run_id,
        champion=rival.model_id if rival else "",
        requests=len(asked),
        systems={
            name: System(metrics=estimates[name], lists=scores.shape(ranked[name], categories, counts, config=config))
            for name in ranked
        },
        slices=scores.by_slice(masks, scored, config=config),
        latency=measured.latency,
        parity=measured.parity,
        model=Model(
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
            "champion_catalogue": over,
            "lean_latency": measured.lean.model_dump(),
            "differences": scores.differences(scored, config=config),
            "settings": config.model_dump(mode="json"),
        },
    )
    scores.write_tables(report, ids, scored, masks)
    write_report(report, told)
    write_page(report, told, _shown(measured, asked, ranked, items, config))
    return {
        "model_id": told.model_id,
        "champion": told.champion,
        "requests": told.requests,
        config.primary: {name: system.metrics[config.primary].mean for name, system in told.systems.items()},
        "p95_ms": told.latency.p95_ms,
        "throughput_rps": told.latency.throughput_rps,
        "served_max_abs_difference": told.parity.served_max_abs_difference,
        "same_top10_share": told.parity.same_top10_share,
    }


def _champions(
    rival: Bundle,
    candidate: Bundle,
    measured: Measured,
    asked: Sequence[Asked],
    folder: Path,
    config: EvaluateConfig,
    progress: Progress,
) -> tuple[Lists, str]:
    """The champion's lists, and over which catalogue it gave them."""
    if (rival.model_id, rival.revision) == (candidate.model_id, candidate.revision):
        return measured.lists, "the candidate's own"
    with tempfile.TemporaryDirectory(prefix="rankline-", dir=folder.parents[1]) as scratch:
        progress.phase("embedding the items with the champion")
        refreshed, over = beside(rival, candidate, Path(scratch), progress=progress)
        progress.phase("replaying: champion")
        return measure.lists_of(refreshed, asked, folder=folder, config=config, progress=progress), over


def _baselines(
    features: Path,
    catalogue: Catalogue,
    scorers: Mapping[str, Score],
    config: EvaluateConfig,
    progress: Progress,
) -> tuple[list[Asked], dict[str, Lists]]:
    """The requests to replay, in order, and every baseline's list for each of them."""
    chosen = replay.sample(features, split=SPLIT, most=config.max_requests, seed=config.seed)
    asked: list[Asked] = []
    lists: dict[str, Lists] = {name: {} for name in scorers}
    for one, state in replay.read(features, split=SPLIT, chosen=chosen):
        asked.append(one)
        words = one.request.query or ""
        for name, score in scorers.items():
            lists[name][one.request_id] = catalogue.best(score(state, words), seen=state.seen, count=config.top_k)
        progress.update(len(asked), len(chosen))
    return asked, lists


def _who(request: FrozenRequest) -> str:
    """Who asks, and in which words."""
    user = f"user {request.user_id}" if request.user_id is not None else ""
    return ": ".join(part for part in (user, request.query) if part)


def _rankings(path: Path) -> dict[str, Lists]:
    """The lists that finetune wrote, a system each."""
    import pyarrow.parquet as parquet

    lists: dict[str, Lists] = {name: {} for name in TRAINED}
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


def _items(features: Path) -> dict[str, dict[str, Any]]:
    """Item id -> what people see of it."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(features / "items.parquet", columns=["item_id", "title", "category"])
    return {row["item_id"]: row for row in table.to_pylist()}


def _shown(
    measured: Measured,
    asked: Sequence[Asked],
    ranked: Mapping[str, Sequence[Sequence[str]]],
    items: Mapping[str, Mapping[str, Any]],
    config: EvaluateConfig,
) -> Shown:
    """What only the page shows: single timings, the calibration's bins, and some users' lists with titles."""
    rng = np.random.default_rng(config.seed)
    rows = rng.choice(len(asked), min(config.example_users, len(asked)), replace=False)

    def titles(ids: Sequence[str]) -> list[str]:
        return [items[item]["title"] or item if item in items else item for item in ids]

    examples = [
        Example(
            who=_who(asked[row].request),
            history=titles(asked[row].request.state.history.item_ids[-5:]),
            targets=titles(asked[row].request.targets),
            lists={
                name: [
                    (title, item in asked[row].request.targets)
                    for item, title in zip(ranked[name][row][:10], titles(ranked[name][row][:10]))
                ]
                for name in (CANDIDATE, CHAMPION, "item_knn_decay")
                if name in ranked
            },
        )
        for row in rows
    ]
    return Shown(measured.latency_ms, measured.heads.reliability, examples)
