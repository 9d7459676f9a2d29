"""The systems of a report in words."""

from __future__ import annotations

from rankline.evaluation.report import CONTROL, SOURCE

NAMES = {
    "untuned_encoder": "untuned encoder",
    "untuned_centroid": "nearest centroid of the untuned encoder",
    "item_knn": "item-kNN",
    "item_knn_decay": "item-kNN with decay",
    "ease": "EASE with decay",
    "tfidf": "TF-IDF of the history",
    "tfidf_logistic": "TF-IDF with logistic regression",
    "rank_fusion": "reciprocal-rank fusion",
    "bm25": "BM25",
}
KINDS = {SOURCE: "source", CONTROL: "control"}


def display_name(name: str) -> str:
    """A system's name in words."""
    for prefix, kind in KINDS.items():
        if name.startswith(prefix):
            return f"{kind}: {name.removeprefix(prefix).replace('_', ' ')}"
    return NAMES.get(name, name.replace("_", " "))
