"""Small sources as users have them: unusual names, encodings and times."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb


def german_shop(folder: Path) -> Path:
    """CSV as Excel writes it in Germany: semicolons, cp1252, decimal commas, local times, keys under other names."""
    folder.mkdir(parents=True, exist_ok=True)
    orders = ["KundenNr;ArtikelNr;Datum;action"]
    for n in range(3000):
        at = f"{n % 28 + 1:02d}.{n // 28 % 12 + 1:02d}.2023 {n % 24:02d}:15"
        orders.append(f"K{n * 5 % 301};A{n * 11 % 120};{at};{('view', 'view', 'purchase')[n % 3]}")
    articles = ["id;Name;Beschreibung;Preis;aktiv"]
    for n in range(120):
        articles.append(
            f"A{n};Tür für Küche {n};Eine Tür für die Küche, die aus Holz ist und nicht aus Glas {n};{n},5;yes"
        )
    (folder / "shop_orders.csv").write_bytes("\n".join(orders).encode("cp1252"))
    (folder / "artikel.csv").write_bytes("\n".join(articles).encode("cp1252"))
    return folder


def shop_database(path: Path) -> Path:
    """A DuckDB file: searches by users, milliseconds, a price, stock, vectors, personal data."""
    with duckdb.connect(str(path)) as db:
        db.execute(
            "CREATE TABLE clicks AS SELECT 'u' || (i % 311) AS user_id, 'p' || (i * 7 % 97) AS sku, "
            "1700000000000 + i * 60000 AS ts_ms, CAST(i % 3 = 0 AS INTEGER) AS clicked, "
            "'red shoes ' || (i % 50) AS search_term FROM range(5000) AS t(i)"
        )
        db.execute(
            "CREATE TABLE products AS SELECT 'p' || i AS sku, 'Nice shoe ' || i AS product_name, 9.5 + i AS price, "
            "i % 2 = 0 AS in_stock, [0.1 * i, 0.2, 0.3]::FLOAT[] AS image_vec, 'https://example.org/' || i AS url, "
            "'en' AS lang FROM range(97) AS t(i)"
        )
        db.execute(
            "CREATE TABLE customers AS SELECT 'u' || i AS id, 20 + i % 50 AS age, 'someone@example.org' || i AS email "
            "FROM range(311) AS t(i)"
        )
    return path


def reviews(folder: Path, labels: tuple[str, ...] = ("positive", "negative")) -> Path:
    """Texts with few distinct labels, in Chinese."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"这个产品很好我们都很喜欢 {n},{labels[n % len(labels)]}" for n in range(600)]
    (folder / "reviews.csv").write_text("\n".join(["review,sentiment", *rows]), encoding="utf-8")
    return folder


def ratings(folder: Path, times: list[object] | None = None, rating: int | None = None) -> Path:
    """JSON lines of ratings and books; ``times`` are written as they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    log = [
        {
            "userId": f"u{n % 250}",
            "bookId": n * 3 % 90,
            "stars": rating if rating is not None else n % 5 + 1,
            "when": times[n % len(times)] if times is not None else 1_600_000_000 + n * 977,
        }
        for n in range(2000)
    ]
    books = [{"bookId": n, "title": f"The book of {n}", "genres": f"drama|number {n % 4}"} for n in range(90)]
    for name, rows in (("ratings", log), ("books", books)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def beir(folder: Path) -> Path:
    """A BEIR folder of a few documents."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{n}", "title": f"Title {n}", "text": f"The words of document {n}"} for n in range(30)]
    queries = [{"_id": f"q{n}", "text": f"which document is {n}"} for n in range(20)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    for split, some in (("train", range(10)), ("test", range(10, 20))):
        rows = [f"q{n}\td{n}\t1" for n in some]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def recbole(folder: Path) -> Path:
    """A RecBole set."""
    folder.mkdir(parents=True)
    inter = [f"{n % 40}\t{n * 3 % 25}\t{n % 5 + 1}\t{880_000_000 + n * 50}" for n in range(600)]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "toy.inter").write_text("\n".join([head, *inter]) + "\n")
    item = [f"{n}\tA film of {n}\t{1990 + n % 9}\tDrama Comedy" for n in range(25)]
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (folder / "toy.item").write_text("\n".join([head, *item]) + "\n")
    return folder
