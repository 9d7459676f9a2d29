"""How an item reads, and how text becomes tokens."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from rankline.text import Tokenizer, batches_by_length, item_text, lexemes, query_text


def written(folder: Path, words: list[str]) -> Path:
    """A tokenizer of whole words, saved; the words' places are their ids."""
    backend = Backend(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=words[1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.enable_padding(length=12)  # as some saved tokenizers do; it must not be taken over
    backend.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(written(tmp_path, ["[PAD]", "[UNK]", "[MASK]", "red", "shoe"]), max_tokens=4)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"title": "Heat", "category": ["Action", "Crime"], "text": "A film."}, "Heat. Action, Crime. A film."),
        ({"title": "Heat", "category": None, "text": None}, "Heat"),
        ({"title": None, "category": ["Action"]}, "Action"),
        ({"item_id": "i7", "title": "", "category": [], "text": ""}, "i7"),
    ],
)
def test_an_item_reads_title_categories_text(item: dict, words: str) -> None:
    assert item_text(item) == words


def test_texts_are_cut_and_padded_to_the_longest(tokenizer: Tokenizer) -> None:
    ids_BT, mask_BT = tokenizer(["red shoe red shoe red", "shoe", "blue"])
    assert ids_BT.tolist() == [[3, 4, 3, 4], [4, 0, 0, 0], [1, 0, 0, 0]]
    assert mask_BT.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert ids_BT.dtype == mask_BT.dtype == "int64"


def test_an_empty_text_still_has_a_place(tokenizer: Tokenizer) -> None:
    ids_BT, mask_BT = tokenizer([""])
    assert ids_BT.tolist() == [[0]]
    assert mask_BT.tolist() == [[0]]


def test_a_text_alone_reads_as_it_does_in_company(tokenizer: Tokenizer) -> None:
    together = tokenizer(["red", "red shoe red"])[0]
    alone = tokenizer(["red"])[0]
    assert together[0, :1].tolist() == alone[0].tolist()


def test_special_tokens_are_found_under_both_families_names(tmp_path: Path, tokenizer: Tokenizer) -> None:
    roberta = Tokenizer(written(tmp_path, ["<s>", "<unk>", "</s>", "<pad>", "<mask>", "red"]), max_tokens=4)
    assert (tokenizer.pad_id, tokenizer.mask_id, sorted(tokenizer.special_ids)) == (0, 2, [0, 1, 2])
    assert (roberta.pad_id, roberta.mask_id, sorted(roberta.special_ids)) == (3, 4, [0, 1, 2, 3, 4])
    assert roberta(["red red", "red"])[0].tolist() == [[5, 5], [5, 3]]


def test_a_tokenizer_without_a_mask_says_so(tmp_path: Path) -> None:
    assert Tokenizer(written(tmp_path, ["[PAD]", "[UNK]", "red"]), max_tokens=4).mask_id is None


def test_batches_hold_every_text_once_beside_its_likes() -> None:
    texts = ["x" * n for n in (9, 1, 5, 2, 8, 1, 7)]
    batches = batches_by_length(texts, 3)
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert [[len(texts[row]) for row in batch] for batch in batches] == [[1, 1, 2], [5, 7, 8], [9]]


def test_the_newest_turn_of_a_conversation_comes_first() -> None:
    turns = ["hello", "my order is late", "", "where is it?"]
    assert query_text(None, turns, last=2) == "where is it?\nmy order is late"
    assert query_text("a text", None, last=2) == "a text"
    assert query_text("a text", [], last=2) == "a text"
    assert query_text(None, None, last=2) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cars, CARS & c++", ["cars", "cars", "c"]),
        ("我喜欢书", ["我喜", "喜欢", "欢书"]),
        ("书", ["书"]),
        ("コーヒー、ｺｰﾋｰ。", ["コー", "ーヒ", "ヒー"] * 2),
        ("らーめん", ["らー", "ーめ", "めん"]),
        ("時々", ["時々"]),
        ("ไทย", ["ไท", "ทย"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ﬁne Straße １２", ["fine", "strasse", "12"]),
        ("iPhone15手机", ["手机", "iphone15"]),
        ("", []),
    ],
)
def test_words_are_found_in_any_script(text: str, expected: list[str]) -> None:
    assert lexemes(text) == expected


def test_what_can_be_found_has_its_characters_beside_its_pairs() -> None:
    assert lexemes("绿茶叶 tea 书", unigrams=True) == ["绿茶", "茶叶", "绿", "茶", "叶", "书", "tea"]


def test_a_stemmer_brings_forms_together() -> None:
    assert lexemes("running runs", stemmer="english") == ["run", "run"]
