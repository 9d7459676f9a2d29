import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rankline.features.bm25 import Bm25

WORDS = ["red running shoes", "blue shoes for rain", "我喜欢这本书", "ein rotes Buch", ""]


def index(stemmer: str = "") -> Bm25:
    return Bm25.from_texts(WORDS, stemmer=stemmer, k1=0.9, b=0.4)


def test_items_that_share_words_with_a_query_score_and_others_do_not() -> None:
    scores = index().scores("Blue SHOES")
    assert scores[1] > scores[0] > 0
    assert scores[2:].tolist() == [0, 0, 0]


def test_chinese_is_found_by_words_inside_a_sentence() -> None:
    scores = index().scores("喜欢 书本")
    assert np.flatnonzero(scores).tolist() == [2]


@pytest.mark.parametrize(
    ("query", "matches"), [("茶", [0, 3]), ("茶叶", [0]), ("咖啡", [1]), ("コーヒー", [4, 5]), ("靴", [4])]
)
def test_words_of_one_character_are_found_and_longer_ones_are_not_taken_apart(query: str, matches: list[int]) -> None:
    words = ["绿茶叶", "咖啡杯", "运动鞋女款", "茶", "コーヒー色の靴", "ヒーター"]
    scores = Bm25.from_texts(words, stemmer="", k1=0.9, b=0.4).scores(query)
    assert np.flatnonzero(scores).tolist() == matches


def test_a_stemmer_finds_other_forms_of_a_word() -> None:
    assert index().scores("run shoe").sum() == 0
    assert np.flatnonzero(index("english").scores("run shoe")).tolist() == [0, 1]


@pytest.mark.parametrize("query", ["", "unheard of", "!?"])
def test_a_query_without_a_known_word_scores_nothing(query: str) -> None:
    assert index().scores(query).tolist() == [0] * len(WORDS)


def test_a_saved_index_scores_alike_once_loaded(tmp_path: Path) -> None:
    index("english").save(tmp_path / "bm25")
    loaded = Bm25.load(tmp_path / "bm25")
    for query in ("running", "rotes Buch", "这本", "nothing"):
        np.testing.assert_array_equal(loaded.scores(query), index("english").scores(query))


def test_a_catalogue_without_a_single_word_can_be_asked() -> None:
    assert Bm25.from_texts(["", ""], stemmer="", k1=0.9, b=0.4).scores("shoes").tolist() == [0, 0]


SAVED = """
import sys
from pathlib import Path
from rankline.features.bm25 import Bm25
words = ["red running shoes", "blue shoes for rain", "a long road out of town", ""]
Bm25.from_texts(words, stemmer="english", k1=0.9, b=0.4).save(Path(sys.argv[1]))
"""


@pytest.mark.integration
def test_the_same_words_are_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    """A catalogue's revision is a digest of them, and Python orders a set anew in each process."""
    saved = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", SAVED, str(folder)], check=True, env=environment)
        saved.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert saved[0] == saved[1]
    assert len(saved[0]) > 4
