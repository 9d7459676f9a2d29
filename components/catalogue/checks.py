"""What a new catalogue has to be like before anybody is served from it.

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
from rankline.contracts import FrozenModel
from rankline.errors import ServerError
from rankline.model import catalogue as catalogues
from rankline.model.bundle import CATALOGUE, Bundle
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import Server, serving

EXAMPLES = "examples.jsonl"
TIE_TOLERANCE = 1e-3  # logits that are closer than this have no order
MAX_NAMED = 5  # items that a sentence names


class Check(FrozenModel):
    """One thing that was looked at."""

    name: str
    met: bool
    value: float | None
    sentence: str


def check_counts(merged: MergeResult, config: CatalogueConfig) -> Iterator[Check]:
    """Neither too much taken away nor too much added, and something is left."""
    removed = [*merged.gone, *merged.withdrawn]
    share = len(removed) / max(merged.available_before, 1)
    yield Check(
        name="gone",
        met=share <= config.max_gone_share,
        value=share,
        sentence=f"{len(removed)} of {merged.available_before} available items would no longer be had ({share:.1%}, "
        f"allowed: {config.max_gone_share:.1%}, catalogue.max_gone_share){_examples(removed)}.",
    )
    share = len(merged.added) / max(merged.before, 1)
    yield Check(
        name="added",
        met=share <= config.max_new_share,
        value=share,
        sentence=f"{len(merged.added)} items would come to {merged.before} ({share:.1%}, "
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
    """Most items are still called what they were called; the canaries would not see it, who look at the scorer."""
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
    """Every precision's vectors: one an item, of the model's size, each of them numbers."""
    ids = catalogues.read_item_ids(folder)
    for name, vectors_ID in catalogues.load_vectors(folder, bundle.manifest.precisions).items():
        expected_shape = (items, bundle.manifest.vector_size)
        right_shape = vectors_ID.shape == expected_shape
        bad = np.flatnonzero(~np.isfinite(vectors_ID).all(1)) if right_shape else np.arange(0)
        problem = (
            f"{len(bad)} vectors are no numbers{_examples([ids[row] for row in bad])}"
            if right_shape
            else vectors_ID.shape
        )
        yield Check(
            name=f"vectors {name}",
            met=right_shape and not len(bad),
            value=float(len(bad)),
            sentence=f"{name} vectors: {problem if not right_shape or len(bad) else f'{expected_shape[0]} of {expected_shape[1]} numbers each'}"
            f"{'' if right_shape else f', expected {expected_shape}'}.",
        )


def check_norms(folder: Path, bundle: Bundle, config: CatalogueConfig) -> Iterator[Check]:
    """No vector is far longer than those that the model was exported with: it would be near to everybody."""
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
    """The index that was written, against exact search over the vectors that were written."""
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
    """The bundle's own examples, asked of a real server on the new catalogue."""
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
        failures.append(f"{error.message}: {error.found}")
    yield Check(
        name="canaries",
        met=not failures,
        value=float(len(failures)),
        sentence=f"Canaries not answered as they should be: {'; '.join(failures[:3])}."
        if failures
        else f"All {len(examples)} canaries were answered as they should be.",
    )
    agreement = float(np.mean(agreements)) if agreements else None
    summary = "No canary has two candidates left that could be compared"
    if agreement is not None:
        summary = f"{agreement:.1%} of the canaries' pairs of candidates are in the order that training left them in"
    yield Check(
        name="agreement",
        met=(agreement or 0.0) >= config.min_agreement,
        value=agreement,
        sentence=f"{summary} (needed: {config.min_agreement:.1%}, catalogue.min_agreement).",
    )


def _problem(server: Server, bundle: Bundle, example: dict[str, Any], available: dict[str, bool], *, k: int) -> str:
    """What is wrong with the list that a canary is given; empty for nothing."""
    payload = {"frozen": example["frozen"], "k": k, "exclude_seen": True}
    query = {"query": example["query"]} if example["query"] else {}
    response = server.post("/v1/search" if query else "/v1/recommend", json.dumps({**payload, **query}).encode())
    item_ids = [item["item_id"] for item in response["items"]]
    seen = set(example["frozen"]["seen"])
    available_unseen = sum(flag for item, flag in available.items() if item not in seen)
    if (response["model_id"], response["revision"]) != (bundle.model_id, bundle.revision):
        return f"answered by {response['model_id']} over {response['revision']}"
    if not item_ids and available_unseen:
        return "an empty list"
    if unavailable := [item for item in item_ids if not available.get(item)]:
        return f"it holds {unavailable[0]}, which is not to be had"
    if len(set(item_ids)) < len(item_ids) or seen & set(item_ids):
        return "an item twice, or one that was seen"
    return ""


def _agreement(server: Server, bundle: Bundle, example: dict[str, Any], candidates: Sequence[str]) -> list[float]:
    """For some candidates that training scored, the share of pairs that are in its order still."""
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
    return f". If that is meant: --set catalogue.{setting}={value}"


def _examples(items: Sequence[str]) -> str:
    return f", such as {', '.join(items[:MAX_NAMED])}" if items else ""
