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
from components.catalogue.merge import Merged
from rankline.contracts import Frozen
from rankline.errors import ServerError
from rankline.model import catalogue as catalogues
from rankline.model.bundle import CATALOGUE, Bundle
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import Server, serving

EXAMPLES = "examples.jsonl"
TIE = 1e-3  # logits that are closer than this have no order
NAMED = 5  # items that a sentence names


class Check(Frozen):
    """One thing that was looked at."""

    name: str
    met: bool
    value: float | None
    sentence: str


def of_counts(merged: Merged, config: CatalogueConfig) -> Iterator[Check]:
    """Neither too much taken away nor too much added, and something is left."""
    lost = [*merged.gone, *merged.withdrawn]
    share = len(lost) / max(merged.available_before, 1)
    yield Check(
        name="gone",
        met=share <= config.max_gone_share,
        value=share,
        sentence=f"{len(lost)} of {merged.available_before} available items would no longer be had ({share:.1%}, "
        f"allowed: {config.max_gone_share:.1%}, catalogue.max_gone_share){_such_as(lost)}.",
    )
    share = len(merged.added) / max(merged.before, 1)
    yield Check(
        name="added",
        met=share <= config.max_new_share,
        value=share,
        sentence=f"{len(merged.added)} items would come to {merged.before} ({share:.1%}, "
        f"allowed: {config.max_new_share:.1%}, catalogue.max_new_share){_such_as(merged.added)}.",
    )
    left = sum(row is not False for row in merged.items["available"].to_pylist())
    yield Check(
        name="available",
        met=left >= config.min_available,
        value=left,
        sentence=f"{left} items would be available (needed: {config.min_available}, catalogue.min_available).",
    )


def of_words(present: Any, merged: Merged, config: CatalogueConfig) -> Check:
    """Most items are still called what they were called; the canaries would not see it, who look at the scorer."""
    before = catalogues.words_of(present)
    now = catalogues.words_of(merged.items)
    other = [item for item, words in before.items() if now.get(item, words) != words]
    share = len(other) / max(len(before), 1)
    return Check(
        name="words",
        met=share <= config.max_changed_share,
        value=share,
        sentence=f"The words of {len(other)} of {len(before)} items would change ({share:.1%}, "
        f"allowed: {config.max_changed_share:.1%}, catalogue.max_changed_share){_such_as(other)}"
        + ("." if share <= config.max_changed_share else _if_meant("max_changed_share", 1)),
    )


def of_vectors(folder: Path, bundle: Bundle, *, items: int) -> Iterator[Check]:
    """Every precision's vectors: one an item, of the model's size, each of them numbers."""
    ids = catalogues.item_ids_of(folder)
    for name, vectors_ID in catalogues.vectors_of(folder, bundle.manifest.precisions).items():
        wanted = (items, bundle.manifest.vector_size)
        whole = vectors_ID.shape == wanted
        bad = np.flatnonzero(~np.isfinite(vectors_ID).all(1)) if whole else np.arange(0)
        found = f"{len(bad)} vectors are no numbers{_such_as([ids[row] for row in bad])}" if whole else vectors_ID.shape
        yield Check(
            name=f"vectors {name}",
            met=whole and not len(bad),
            value=float(len(bad)),
            sentence=f"{name} vectors: {found if not whole or len(bad) else f'{wanted[0]} of {wanted[1]} numbers each'}"
            f"{'' if whole else f', expected {wanted}'}.",
        )


def of_norms(folder: Path, bundle: Bundle, config: CatalogueConfig) -> Iterator[Check]:
    """No vector is far longer than those that the model was exported with: it would be near to everybody."""
    ids = catalogues.item_ids_of(folder)
    own = catalogues.vectors_of(bundle.folder / CATALOGUE, bundle.manifest.precisions)
    for name, vectors_ID in catalogues.vectors_of(folder, bundle.manifest.precisions).items():
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
            f"(allowed: {config.max_norm:g}, catalogue.max_norm){_such_as(far)}"
            + (_if_meant("max_norm", math.ceil(most)) if far else "."),
        )


def of_recall(folder: Path, config: CatalogueConfig) -> Check:
    """The index that was written, against exact search over the vectors that were written."""
    recall = catalogues.recall_of(folder)
    return Check(
        name="recall",
        met=recall >= config.min_recall,
        value=recall,
        sentence=f"The index finds {recall:.1%} of the exact neighbours (needed: {config.min_recall:.1%}, "
        "catalogue.min_recall).",
    )


def of_canaries(
    bundle: Bundle, items: Any, *, folder: Path, config: CatalogueConfig, progress: Progress = Progress()
) -> Iterator[Check]:
    """The bundle's own examples, asked of a real server on the new catalogue."""
    examples = [json.loads(line) for line in (bundle.folder / EXAMPLES).read_text().splitlines()]
    rows = zip(items["item_id"].to_pylist(), items["available"].to_pylist())
    available = {item: flag is not False for item, flag in rows}
    wrong: list[str] = []
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
                    wrong.append(f"canary {done + 1}: {problem}")
                there = [item for item in example["candidates"] if item in available]
                if len(there) > 1:
                    agreements += _agreement(server, bundle, example, there)
                progress.update(done + 1, len(examples))
    except ServerError as error:
        wrong.append(f"{error.message}: {error.found}")
    yield Check(
        name="canaries",
        met=not wrong,
        value=float(len(wrong)),
        sentence=f"Canaries not answered as they should be: {'; '.join(wrong[:3])}."
        if wrong
        else f"All {len(examples)} canaries were answered as they should be.",
    )
    agreement = float(np.mean(agreements)) if agreements else None
    told = "No canary has two candidates left that could be compared"
    if agreement is not None:
        told = f"{agreement:.1%} of the canaries' pairs of candidates are in the order that training left them in"
    yield Check(
        name="agreement",
        met=(agreement or 0.0) >= config.min_agreement,
        value=agreement,
        sentence=f"{told} (needed: {config.min_agreement:.1%}, catalogue.min_agreement).",
    )


def _problem(server: Server, bundle: Bundle, example: dict[str, Any], available: dict[str, bool], *, k: int) -> str:
    """What is wrong with the list that a canary is given; empty for nothing."""
    asked = {"frozen": example["frozen"], "k": k, "exclude_seen": True}
    query = {"query": example["query"]} if example["query"] else {}
    answer = server.post("/v1/search" if query else "/v1/recommend", json.dumps({**asked, **query}).encode())
    told = [item["item_id"] for item in answer["items"]]
    seen = set(example["frozen"]["seen"])
    to_be_had = sum(flag for item, flag in available.items() if item not in seen)
    if (answer["model_id"], answer["revision"]) != (bundle.model_id, bundle.revision):
        return f"answered by {answer['model_id']} over {answer['revision']}"
    if not told and to_be_had:
        return "an empty list"
    if strange := [item for item in told if not available.get(item)]:
        return f"it holds {strange[0]}, which is not to be had"
    if len(set(told)) < len(told) or seen & set(told):
        return "an item twice, or one that was seen"
    return ""


def _agreement(server: Server, bundle: Bundle, example: dict[str, Any], there: Sequence[str]) -> list[float]:
    """For some candidates that training scored, the share of pairs that are in its order still."""
    query = {"query": example["query"]} if example["query"] else {}
    body = {"frozen": example["frozen"], "candidates": list(there), **query}
    answer = server.post("/v1/rank", json.dumps(body).encode())
    head = bundle.manifest.heads[0]
    logits = {item["item_id"]: item["logits"][head] for item in answer["items"]}
    then = dict(zip(example["candidates"], example["logits"]))
    both = [item for item in there if item in logits]
    now_N, then_N = np.array([logits[item] for item in both]), np.array([then[item] for item in both])
    apart_NN = np.triu(np.abs(then_N[:, None] - then_N) > TIE, 1)
    same_NN = np.sign(now_N[:, None] - now_N) == np.sign(then_N[:, None] - then_N)
    return [float(same_NN[apart_NN].mean())] if apart_NN.any() else []


def _if_meant(knob: str, value: float) -> str:
    return f". If that is meant: --set catalogue.{knob}={value}"


def _such_as(items: Sequence[str]) -> str:
    return f", such as {', '.join(items[:NAMED])}" if items else ""
