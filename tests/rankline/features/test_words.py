"""The words of items, and what resembles those of a history."""

from __future__ import annotations

import numpy as np
import pytest

from rankline.features.words import history_scores, word_vectors

TEXTS = ["red wool hat", "red hat", "blue mug", "", "热水壶 红色", "红色 帽子"]


def test_rows_have_length_one_and_no_words_give_zeros() -> None:
    words_IV = word_vectors(TEXTS, stemmer="")
    lengths_I = np.sqrt(np.asarray(words_IV.multiply(words_IV).sum(axis=1)).ravel())
    np.testing.assert_allclose(lengths_I, [1, 1, 1, 0, 1, 1], atol=1e-6)
    assert words_IV.dtype == np.float32


def test_scikit_learn_agrees() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["red red wool hat", "red hat", "blue mug", "mug of wool"]
    expected = TfidfVectorizer(analyzer=str.split, sublinear_tf=True).fit_transform(texts)
    np.testing.assert_allclose(word_vectors(texts, stemmer="").toarray(), expected.toarray(), atol=1e-6)


def test_the_same_words_are_nearest_in_any_script() -> None:
    words_IV = word_vectors(TEXTS, stemmer="")
    for item, nearest in ((0, 1), (1, 0), (4, 5)):
        scores_I = history_scores(words_IV, np.array([item]), decay=0.9, last=5)
        assert np.argsort(-scores_I)[:2].tolist() == [item, nearest]
        assert scores_I[2] == scores_I[3] == 0


def test_later_events_weigh_more_and_only_the_last_count() -> None:
    words_IV = word_vectors(TEXTS, stemmer="")
    scores_I = history_scores(words_IV, np.array([1, 2]), decay=0.5, last=5)
    assert scores_I[2] == pytest.approx(2 * scores_I[1])
    assert history_scores(words_IV, np.array([1, 2]), decay=0.5, last=1)[1] == 0
    assert history_scores(words_IV, np.array([], np.int64), decay=0.5, last=5).tolist() == [0] * len(TEXTS)


def test_a_stemmer_joins_forms_of_a_word() -> None:
    words_IV = word_vectors(["red hats", "a hat", "blue mug"], stemmer="english")
    assert history_scores(words_IV, np.array([0]), decay=1, last=1)[1] > 0


def test_a_catalogue_without_words() -> None:
    assert word_vectors(["", "?"], stemmer="").shape == (2, 1)
