"""The checks that a new catalogue must pass before it is served.

Shapes: I items, D vector size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.catalogue.config import CatalogueConfig
from components.catalogue.merge import MergeResult
from components.catalogue.rejected import join_names
from rankline.contracts import FrozenModel
from rankline.errors import ServerError
from rankline.model import catalogue as catalogues
from rankline.model.bundle import CATALOGUE, Bundle
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import Server, serving

EXAMPLES = "examples.jsonl"
TIE_TOLERANCE = 1e-3  # logits that are closer than this are ties


class Check(FrozenModel):
    name: str
    met: bool
    value: float | None
    sentence: str


def check_counts(merged: MergeResult, config: CatalogueConfig) -> Iterator[Check]:
    """The refresh neither removes nor adds too many items, and enough are available."""
    removed = [*merged.gone, *merged.withdrawn]
    share = len(removed) / max(merged.available_before, 1)
    yield Check(
        name="gone",
        met=share <= config.max_gone_share,
        value=share,
        sentence=f"{len(removed)} of {merged.available_before} available items would be removed or withdrawn "
        f"({share:.1%}, allowed: {config.max_gone_share:.1%}, catalogue.max_gone_share){_examples(removed)}.",
    )
    share = len(merged.added) / max(merged.before, 1)
    yield Check(
        name="added",
        met=share <= config.max_new_share,
        value=share,
        sentence=f"{len(merged.added)} items would be added to {merged.before} ({share:.1%}, "
        f"allowed: {config.max_new_share:.1%}, catalogue.max_new_share){_examples(merged.added)}.",
    )
    remaining = sum(row is not False for row in merged.items["available"].to_pylist())
    yield Check(
        name="available",
        met=remaining >= config.min_available,
        value=remaining,
        sentence=f"{remaining} items would be available (needed: {config.min_available}, catalogue.min_available).",
    )


def check_words(current: Any, merged: MergeResult, config: CatalogueConfig) -> Check:
    """Most items keep their words; the canaries would not notice, since they test the scorer."""
    before = catalogues.item_texts(current)
    now = catalogues.item_texts(merged.items)
    changed = [item for item, words in before.items() if now.get(item, words) != words]
    share = len(changed) / max(len(before), 1)
    return Check(
        name="words",
        met=share <= config.max_changed_share,
        value=share,
        sentence=f"The words of {len(changed)} of {len(before)} items would change ({share:.1%}, "
        f"allowed: {config.max_changed_share:.1%}, catalogue.max_changed_share){_examples(changed)}"
        + ("." if share <= config.max_changed_share else _override_hint("max_changed_share", 1)),
    )


def check_vectors(folder: Path, bundle: Bundle, *, items: int) -> Iterator[Check]:
    """Every precision has one finite vector of the model's size per item."""
    ids = catalogues.read_item_ids(folder)
    expected = (items, bundle.manifest.vector_size)
    for name, vectors_ID in catalogues.load_vectors(folder, bundle.manifest.precisions).items():
        if vectors_ID.shape != expected:
            bad, summary = [], f"{vectors_ID.shape}, expected {expected}"
        else:
            bad = [ids[row] for row in np.flatnonzero(~np.isfinite(vectors_ID).all(1))]
            summary = (
                f"{len(bad)} vectors are not finite{_examples(bad)}"
                if bad
                else f"{items} of {expected[1]} numbers each"
            )
        yield Check(
            name=f"vectors {name}",
            met=vectors_ID.shape == expected and not bad,
            value=float(len(bad)),
            sentence=f"{name} vectors: {summary}.",
        )


def check_norms(folder: Path, bundle: Bundle, config: CatalogueConfig) -> Iterator[Check]:
    """No vector is far longer than those that the model was exported with: it would match every request."""
    ids = catalogues.read_item_ids(folder)
    own = catalogues.load_vectors(bundle.folder / CATALOGUE, bundle.manifest.precisions)
    for name, vectors_ID in catalogues.load_vectors(folder, bundle.manifest.precisions).items():
        longest = float(np.linalg.norm(own[name], axis=1).max(initial=0.0))
        lengths_I = np.linalg.norm(vectors_ID, axis=1)
        ratios_I = lengths_I / longest if longest else lengths_I
        far = [ids[row] for row in np.argsort(-ratios_I, kind="stable") if ratios_I[row] > config.max_norm]
        most = float(ratios_I.max(initial=0.0))
        yield Check(
            name=f"lengths {name}",
            met=not far,
            value=most,
            sentence=f"The longest {name} vector is {most:.3g} times the longest of the model's own catalogue "
            f"(allowed: {config.max_norm:g}, catalogue.max_norm){_examples(far)}"
            + (_override_hint("max_norm", math.ceil(most)) if far else "."),
        )


def check_recall(folder: Path, config: CatalogueConfig) -> Check:
    """The index finds what exact search over the vectors finds."""
    recall = catalogues.index_recall(folder)
    return Check(
        name="recall",
        met=recall >= config.min_recall,
        value=recall,
        sentence=f"The index finds {recall:.1%} of the exact neighbours (needed: {config.min_recall:.1%}, "
        "catalogue.min_recall).",
    )


def check_canaries(
    bundle: Bundle, items: Any, *, folder: Path, config: CatalogueConfig, progress: Progress = Progress()
) -> Iterator[Check]:
    """A real server on the new catalogue answers the bundle's examples as in training."""
    examples = [json.loads(line) for line in (bundle.folder / EXAMPLES).read_text().splitlines()]
    rows = zip(items["item_id"].to_pylist(), items["available"].to_pylist())
    available = {item: flag is not False for item, flag in rows}
    failures: list[str] = []
    agreements: list[float] = []
    try:
        with serving(
            bundle.folder,
            folder=folder / "server",
            precision=config.precision,
            start_timeout_s=config.start_timeout_s,
            request_timeout_s=config.request_timeout_s,
            connections=1,
        ) as server:
            for done, example in enumerate(examples):
                if problem := _problem(server, bundle, example, available, k=config.canary_k):
                    failures.append(f"canary {done + 1}: {problem}")
                candidates = [item for item in example["candidates"] if item in available]
                if len(candidates) > 1:
                    agreements += _agreement(server, bundle, example, candidates)
                progress.update(done + 1, len(examples))
    except ServerError as error:
        failures.append(error.one_line)
    yield Check(
        name="canaries",
        met=not failures,
        value=float(len(failures)),
        sentence=f"Canaries with a wrong answer: {'; '.join(failures[:3])}."
        if failures
        else f"All {len(examples)} canaries were answered correctly.",
    )
    agreement = float(np.mean(agreements)) if agreements else None
    summary = "No canary has two candidates left to compare"
    if agreement is not None:
        summary = f"{agreement:.1%} of the canaries' pairs of candidates are in training's order"
    yield Check(
        name="agreement",
        met=(agreement or 0.0) >= config.min_agreement,
        value=agreement,
        sentence=f"{summary} (needed: {config.min_agreement:.1%}, catalogue.min_agreement).",
    )


def _problem(server: Server, bundle: Bundle, example: dict[str, Any], available: dict[str, bool], *, k: int) -> str:
    """What is wrong with the answer to a canary; empty for nothing."""
    payload = {"frozen": example["frozen"], "k": k, "exclude_seen": True}
    query = {"query": example["query"]} if example["query"] else {}
    response = server.post("/v1/search" if query else "/v1/recommend", json.dumps({**payload, **query}).encode())
    item_ids = [item["item_id"] for item in response["items"]]
    seen = set(example["frozen"]["seen"])
    available_unseen = sum(flag for item, flag in available.items() if item not in seen)
    if (response["model_id"], response["revision"]) != (bundle.model_id, bundle.revision):
        return f"answered by {response['model_id']} over {response['revision']}"
    if not item_ids and available_unseen:
        return "the list is empty"
    if unavailable := [item for item in item_ids if not available.get(item)]:
        return f"it holds {unavailable[0]}, which is not available"
    if len(set(item_ids)) < len(item_ids) or seen & set(item_ids):
        return "it holds an item twice, or one that was seen"
    return ""


def _agreement(server: Server, bundle: Bundle, example: dict[str, Any], candidates: Sequence[str]) -> list[float]:
    """The share of pairs of candidates that are still in training's order; empty if all are ties."""
    query = {"query": example["query"]} if example["query"] else {}
    body = {"frozen": example["frozen"], "candidates": list(candidates), **query}
    response = server.post("/v1/rank", json.dumps(body).encode())
    head = bundle.manifest.heads[0]
    logits = {item["item_id"]: item["logits"][head] for item in response["items"]}
    expected = dict(zip(example["candidates"], example["logits"]))
    scored = [item for item in candidates if item in logits]
    actual_N, expected_N = np.array([logits[item] for item in scored]), np.array([expected[item] for item in scored])
    apart_NN = np.triu(np.abs(expected_N[:, None] - expected_N) > TIE_TOLERANCE, 1)
    same_NN = np.sign(actual_N[:, None] - actual_N) == np.sign(expected_N[:, None] - expected_N)
    return [float(same_NN[apart_NN].mean())] if apart_NN.any() else []


def _override_hint(setting: str, value: float) -> str:
    return f". If this is intended: --set catalogue.{setting}={value}"


def _examples(items: Sequence[str]) -> str:
    return f", such as {join_names(items)}" if items else ""
