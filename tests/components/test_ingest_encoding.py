"""What a text file is encoded in: texts of many languages in the encodings that people keep them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.ingest.config import IngestConfig
from components.ingest.readers.encoding import guess_encoding
from components.ingest.step import ingest
from rankline.errors import SourceError

FRENCH = "Crème brûlée à la vanille, très légère. L'été dernier, nous étions prêts à goûter ce gâteau: ça coûte 3 €."
GERMAN = "Größe und Maß der Tür: für Möbel, schöne Stühle und Käse aus Österreich. Wohnfläche 80 m², Preis 12 €."
POLISH = "Książka była bardzo dobra, polecam każdemu, kto lubi dłuższe powieści. Łódź i Kraków są piękne, już wiem."
CZECH = "Kniha se mi velmi líbila, děti ji četly každý večer před spaním. Příliš žluťoučký kůň úpěl ďábelské ódy."
CHINESE = "北京的秋天非常漂亮我们都很喜欢去那里旅游，这本书写得很好。"
JAPANESE = "この本はとても面白かったです。子供と一緒に読みました。東京の天気は良いです。"


def reported(text: str, encoding: str, rows: int = 3) -> str:
    """The text as the guessed encoding reads it, in a small table."""
    stored = "".join(f"i{row};{text}\n" for row in range(rows)).encode(encoding)
    return stored.decode(guess_encoding(stored).name).partition("\n")[0].partition(";")[2]


@pytest.mark.parametrize("rows", [1, 60])
@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", FRENCH),
        ("cp1252", GERMAN),
        ("cp1252", "El niño comió una piña. ¿Qué más quieres, señor? Aquí está el jamón."),
        ("cp1252", "Crème brûlée – für später, señor: Smörgåsbord, São Paulo, façade, Größe, à bientôt, El Niño"),
        ("cp1250", POLISH),
        ("cp1250", CZECH),
        ("cp1250", "Děti při hře"),  # each word alone would do in cp1252, but in no one language of it
        ("cp1250", "Árvíztűrő tükörfúrógép. Őszintén ajánlom minden szülőnek."),
        ("iso8859-2", POLISH),
        ("cp1254", "Kitap çok güzeldi, çocuklar her akşam okudu. İstanbul'da şişe ve ağaç."),
        ("cp1251", "Это очень хорошая книга, мне понравилось читать её вечером"),
        ("koi8-r", "это очень хорошая книга мне понравилось читать её вечером"),
        ("cp1253", "Το βιβλίο ήταν πολύ καλό και μου άρεσε."),
        ("gb18030", CHINESE),
        ("big5", "這本書寫得很好，我們都很喜歡去那裡旅遊。"),
        ("shift_jis", JAPANESE),
        ("euc_kr", "이 책은 정말 재미있었습니다. 아이들과 함께 읽었어요."),
        ("utf-8", CZECH),
        ("utf-16", GERMAN),
        ("utf-16", CHINESE),
        ("utf-16-le", GERMAN),  # without a mark
    ],
)
def test_texts_are_read_as_they_were_written(encoding: str, text: str, rows: int) -> None:
    assert reported(text, encoding, rows) == text


def test_a_byte_order_mark_is_not_a_part_of_the_text(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu1,Größe,1600000000\n", encoding="utf-8-sig")
    assert guess_encoding((tmp_path / "events.csv").read_bytes()).name == "utf-8"
    columns = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp", "labels": {}}
    config = {"source": str(tmp_path), "format": "tables", "items_from_events": True, "columns": columns}
    ingest(tmp_path / "raw", config=IngestConfig(tables={"events": "events.csv"}, **config))
    assert pq.read_table(tmp_path / "raw/events.parquet")["item_id"].to_pylist() == ["Größe"]
    assert pq.read_table(tmp_path / "raw/events.parquet")["user_id"].to_pylist() == ["u1"]


def test_the_most_common_of_equal_encodings_is_taken() -> None:
    actual = guess_encoding("name\nCafé Größe\n".encode("cp1250"))  # the same bytes in both
    assert (actual.name, actual.runner_up) == ("cp1252", "cp1250")
    assert guess_encoding(f"{CZECH}\n".encode("cp1250")).runner_up == "iso8859-2"
    assert guess_encoding(f"{GERMAN}\n".encode()).runner_up == ""


def test_a_megabyte_that_ends_within_a_character() -> None:
    for encoding, text in (("utf-8", CHINESE), ("gb18030", CHINESE), ("shift_jis", JAPANESE)):
        whole = (f"{text}\n" * 40).encode(encoding)
        assert whole.decode(guess_encoding(whole[:-2]).name) == f"{text}\n" * 40


def test_the_only_word_that_tells_is_the_last() -> None:
    assert guess_encoding("id,name\n1,Tea\n2,Größe".encode("cp1252")).name == "cp1252"


def test_bytes_that_are_no_text_have_no_encoding() -> None:
    assert guess_encoding(bytes(range(128, 256)) * 8).name == ""
    assert guess_encoding(bytes(range(256)) * 40).name == ""


def test_the_refusal_names_both(tmp_path: Path) -> None:
    rows = "".join(f"i{n},Größe Käse Tür\n" for n in range(20))
    (tmp_path / "items.csv").write_bytes(f"item_id,title\n{rows}".encode("cp1252"))
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu1,i1,1600000000\n")
    tables = {"events": "events.csv", "items": "items.csv"}
    columns = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp", "title": "title", "labels": {}}
    config = IngestConfig(source=str(tmp_path), format="tables", tables=tables, columns=columns)
    with pytest.raises(SourceError, match=r"ingest\.files\.encoding=cp1252, which fits \(or cp1250\)"):
        ingest(tmp_path / "raw", config=config)
    config = config.model_copy(update={"files": config.files.model_copy(update={"encoding": "utf-16"})})
    with pytest.raises(SourceError, match=r"found: utf-8|ingest\.files\.encoding=(utf-8|cp1252 \(or cp1250\))"):
        ingest(tmp_path / "raw", config=config)


@pytest.mark.parametrize(("text", "other"), [(FRENCH, "cp1252"), (POLISH, "cp1250"), (CHINESE, "gb18030")])
def test_one_row_in_another_encoding_is_no_reason_to_read_all_in_it(text: str, other: str) -> None:
    rows = "".join(f"i{row};{text}\n" for row in range(36)).encode() + f"i37;{text}\n".encode(other)
    assert guess_encoding(rows).name == "utf-8"
