"""The nearest centroid of the untuned encoder: the mean of a label's texts, where items are labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.finetune.centroids import TEXTS_PER_LABEL, centroids
from components.finetune.soft_labels import UntunedVectors


def encode(texts: Sequence[str]) -> Any:
    """The shares of the letters a and b, as a unit vector."""
    counts = np.array([[text.count("a"), text.count("b")] for text in texts], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def data(texts: Sequence[tuple[str, int]], *, labels: int = 2, users: bool = False) -> Any:
    queries = [text for text, _ in texts]
    train = SimpleNamespace(
        queries=queries, query_rows=np.arange(len(texts)), targets=[np.array([row]) for _, row in texts]
    )
    return SimpleNamespace(splits={"train": train}, item_ids=[f"i{n}" for n in range(labels)], has_users=users)


TEXTS = [("aaa", 0), ("aab", 0), ("bbb", 1), ("abb", 1)] * TEXTS_PER_LABEL


def test_a_query_is_of_the_label_whose_texts_are_closest_on_average() -> None:
    centres = centroids(data(TEXTS), encode, seed=0)
    assert centres is not None
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1.0, rtol=1e-6)
    # by their names the labels are the other way round
    untuned = UntunedVectors(encode(["b", "a"]), encode(["aaab"]), centres)
    orders = {name: order.tolist() for name, order in untuned.rankings(0).items()}
    assert orders == {"untuned_encoder": [1, 0], "untuned_centroid": [0, 1]}
    assert set(dataclasses.replace(untuned, centroids_IT=None).rankings(0)) == {"untuned_encoder"}


def test_a_label_without_a_training_text_has_zeros() -> None:
    centres = centroids(data(TEXTS, labels=3), encode, seed=0)
    assert centres is not None
    assert not centres[2].any()


@pytest.mark.parametrize("changes", [{"users": True}, {"labels": 21}, {"labels": 201}, {"labels": 1}])
def test_items_that_are_no_labels_have_no_centroids(changes: dict[str, Any]) -> None:
    texts = TEXTS * 50 if changes.get("labels") == 201 else TEXTS
    assert centroids(data(texts, **changes), encode, seed=0) is None
