"""A baseline of text classification: TF-IDF of words and characters, and logistic regression.

Shapes: N training queries, I labels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.baselines.items import Floats, Scorer, TrainingItems
from rankline.contracts import FrozenState
from rankline.evaluation.snapshot_requests import REQUESTS
from rankline.text import lexemes

TEXTS_PER_LABEL = 5  # fewest on average: with fewer, items are answers and no labels
LARGEST_CORPUS = 50_000  # texts that the classifier learns from
PENALTIES = (4.0, 1.0, 16.0)  # C of the logistic regression, the default first
CHARACTERS = (1, 4)
MAX_CHARACTER_FEATURES = 100_000
UNSEEN = -1e3  # the score of a label that no training text has


@dataclass(frozen=True)
class LabelledTexts:
    """The training queries, and the row of the label of each."""

    texts: list[str]
    rows: list[int]


def labelled_texts(features: Path, items: TrainingItems, *, largest: int) -> LabelledTexts | None:
    """The training texts where the items are labels: few, with many texts each and no users; else None."""
    import pyarrow.parquet as parquet

    known = parquet.read_schema(features / REQUESTS).names
    if not 2 <= len(items.item_ids) <= largest or "targets" not in known:
        return None
    columns = [name for name in ("user_id", "query", "targets") if name in known]
    table = parquet.read_table(features / REQUESTS, columns=columns, filters=[("split", "=", "train")])
    if "user_id" in columns and table["user_id"].null_count < len(table):
        return None
    rows = [row for row in table.to_pylist() if row["query"]]
    pairs = [(row["query"], items.index[item]) for row in rows for item in row["targets"] if item in items.index]
    if len(pairs) < TEXTS_PER_LABEL * len(items.item_ids) or len({row for _, row in pairs}) < 2:
        return None
    if len(pairs) > LARGEST_CORPUS:
        chosen = np.random.default_rng(0).choice(len(pairs), LARGEST_CORPUS, replace=False)
        pairs = [pairs[n] for n in np.sort(chosen)]
    return LabelledTexts([text for text, _ in pairs], [row for _, row in pairs])


def logistic_options(corpus: LabelledTexts, items: int, *, stemmer: str) -> Iterator[tuple[float, Scorer]]:
    """C and the classifier with it, one after another."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    fewest = 2 if len(corpus.texts) >= 1000 else 1
    words = TfidfVectorizer(
        analyzer=functools.partial(lexemes, stemmer=stemmer, unigrams=True),
        sublinear_tf=True, min_df=fewest, dtype=np.float32,
    )  # fmt: skip
    characters = TfidfVectorizer(
        analyzer="char", ngram_range=CHARACTERS, sublinear_tf=True, min_df=fewest,
        max_features=MAX_CHARACTER_FEATURES, dtype=np.float32,
    )  # fmt: skip
    vectorizer = make_union(*([words] if any(map(words.analyzer, corpus.texts)) else []), characters)
    vectors_NW = vectorizer.fit_transform(corpus.texts)
    for penalty in PENALTIES:
        classifier = LogisticRegression(C=penalty, max_iter=300, tol=1e-3).fit(vectors_NW, corpus.rows)
        yield penalty, _of_text(vectorizer, classifier, items)


def _of_text(vectorizer: Any, classifier: Any, items: int) -> Scorer:
    def score(state: FrozenState, query: str) -> Floats:
        scores_I = np.full(items, UNSEEN, np.float32)
        if query:
            scores_I[classifier.classes_] = classifier.predict_log_proba(vectorizer.transform([query]))[0]
        return scores_I

    return score
