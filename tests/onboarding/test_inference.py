"""Proposals for sources of every kind: the map, which ingest itself reads with, and the gaps."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tomllib
from pathlib import Path

import duckdb
import pytest

from onboarding.inference.dry_run import dry_run
from onboarding.inference.proposal import Proposal, propose
from onboarding.inference.render import render_map, render_recipe
from onboarding.inference.vocabulary import is_id, name_score, name_tokens
from onboarding.survey.survey import survey
from pipelines.recipes import interactions
from rankline.errors import SourceError, UsageError
from tests.onboarding import odd_sources
from tests.servers.postgres import PASSWORD, Postgres


def proposed(source: Path, **overrides: object) -> Proposal:
    return propose(survey(str(source)), name="mine", **overrides)  # type: ignore[arg-type]


def columns(proposal: Proposal) -> dict[str, object]:
    settings: dict[str, object] = tomllib.loads(render_map(proposal)).get("columns", {})
    return settings


def rejected(proposal: Proposal, folder: Path) -> dict[str, dict[str, int]]:
    """What ingest rejects when it reads the source as the map says."""
    path = folder / "map.toml"
    path.write_text(render_map(proposal))
    return {t: r for t, r in dry_run(interactions(proposal.survey.source, str(path)).ingest).rejected.items() if r}


@pytest.mark.integration
def test_a_german_shop_in_csv(tmp_path: Path) -> None:
    proposal = proposed(odd_sources.german_shop(tmp_path / "shop"))
    assert proposal.roles == {"events": "shop_orders", "items": "artikel"}
    assert proposal.kind == "interactions"
    assert columns(proposal) == {
        "user_id": "KundenNr", "item_id": "ArtikelNr", "item_key": "id", "timestamp": "Datum",
        "timestamp_unit": "%d.%m.%Y %H:%M", "event_type": "action",
        "event_types": {"view": "view", "purchase": "purchase"}, "labels": {}, "title": "Name",
        "text": ["Beschreibung"], "price": "Preis",
    }  # fmt: skip
    files = tomllib.loads(render_map(proposal))["files"]
    assert files == {"encoding": "cp1252", "decimal": ","}
    assert proposal.languages["items"] == "de"
    assert [gap.flag for gap in proposal.gaps if gap.flag] == ["--time-zone"]
    with pytest.raises(SourceError, match="time without a zone 3000"):
        rejected(proposal, tmp_path)
    proposal = proposed(tmp_path / "shop", time_zone="UTC")
    assert not [gap for gap in proposal.gaps if gap.flag]
    assert "unknown item" not in rejected(proposal, tmp_path).get("events", {})


@pytest.mark.integration
def test_a_database_of_searches_by_users(tmp_path: Path) -> None:
    proposal = proposed(odd_sources.shop_database(tmp_path / "shop.duckdb"))
    assert proposal.roles == {"events": "clicks", "items": "products", "users": "customers"}
    assert proposal.kind == "shop"
    settings = columns(proposal)
    assert (settings["timestamp"], settings["timestamp_unit"]) == ("ts_ms", "ms")
    assert settings["labels"] == {"click": "clicked"}
    assert (settings["query_text"], settings["title"], settings["price"]) == ("search_term", "product_name", "price")
    assert (settings["available"], settings["item_vectors"], settings["user_key"]) == ("in_stock", ["image_vec"], "id")
    assert "email" not in str(settings)  # personal data is not a feature
    assert "url" not in str(settings)
    assert rejected(proposal, tmp_path) == {}


def test_texts_with_few_labels(tmp_path: Path) -> None:
    proposal = proposed(odd_sources.reviews(tmp_path / "texts"))
    assert (proposal.kind, columns(proposal)["query_text"], columns(proposal)["item_id"]) == (
        "labels",
        "review",
        "sentiment",
    )
    assert proposal.languages["events"] == "zh"
    assert proposal.gaps == []
    assert rejected(proposal, tmp_path) == {}


def test_a_single_label_is_a_gap(tmp_path: Path) -> None:
    proposal = proposed(odd_sources.reviews(tmp_path / "texts", labels=("positive",)), kind="labels")
    assert "all texts have the same label" in [gap.what for gap in proposal.gaps]


@pytest.mark.integration
def test_ratings_in_json_lines(tmp_path: Path) -> None:
    proposal = proposed(odd_sources.ratings(tmp_path / "books"))
    settings = columns(proposal)
    assert proposal.roles == {"events": "ratings", "items": "books"}
    assert (settings["user_id"], settings["item_id"], settings["labels"]) == ("userId", "bookId", {"rating": "stars"})
    assert (settings["timestamp"], settings["timestamp_unit"]) == ("when", "s")
    assert (settings["category"], settings["category_separator"]) == ("genres", "|")
    assert proposal.gaps == []
    assert rejected(proposal, tmp_path) == {}


@pytest.mark.integration
def test_known_layouts(tmp_path: Path) -> None:
    proposal = proposed(odd_sources.beir(tmp_path / "beir"))
    assert (proposal.kind, tomllib.loads(render_map(proposal))) == ("search", {"format": "beir"})
    assert rejected(proposal, tmp_path) == {}
    proposal = proposed(odd_sources.recbole(tmp_path / "set"))
    assert (proposal.survey.format, proposal.survey.name, columns(proposal)["title"]) == (
        "recbole",
        "toy",
        "movie_title",
    )
    assert "few" not in columns(proposal)
    assert rejected(proposal, tmp_path) == {}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("times", "unit", "flags"),
    [
        ([1_600_000_000, 1_650_000_000], "s", []),
        ([1_600_000_000_000, 1_650_000_000_000], "ms", []),
        ([1_600_000_000_000_000, 1_650_000_000_000_000], "us", []),
        ([1_600_000_000_000_000_000, 1_650_000_000_000_000_000], "ns", []),
        (["2021-03-04T10:00:00Z", "2021-05-06T10:00:00+02:00"], "iso", []),
        (["2021-03-04 10:00:00", "2021-05-06 10:00:00"], "iso", ["--time-zone"]),
        (["24/03/2021 10:00", "25/04/2021 11:00"], "%d/%m/%Y %H:%M", ["--time-zone"]),
        (["03/24/2021 10:00", "04/25/2021 11:00"], "%m/%d/%Y %H:%M", ["--time-zone"]),
        # half past ten at night; a zone by its name
        (["2021-03-04 10:30:00 PM", "2021-05-06 10:30:00 AM"], "%Y-%m-%d %I:%M:%S %p", ["--time-zone"]),
        (["2021-03-04 10:30:00 EST", "2021-12-06 10:30:00 EST"], "%Y-%m-%d %H:%M:%S %Z", []),
        # the third of April or the fourth of March: it is asked
        (["03/04/2021 10:00", "05/06/2021 11:00"], "", ["--column timestamp_unit=…", "--time-zone"]),
    ],
)
def test_times(tmp_path: Path, times: list[object], unit: str, flags: list[str]) -> None:
    proposal = proposed(odd_sources.ratings(tmp_path / "books", times=times))
    assert columns(proposal)["timestamp"] == "when"
    assert proposal.time_unit == unit
    assert [gap.flag for gap in proposal.gaps if gap.flag] == flags


@pytest.mark.integration
def test_each_time_without_a_zone_is_a_gap_of_its_own(tmp_path: Path) -> None:
    def gaps(at: str, created: str) -> tuple[list[str], object]:
        with duckdb.connect() as db:
            for name, query in (
                ("log", f"SELECT 'u' || (i % 300) AS user_id, 'p' || (i % 90) AS item_id, {at} AS at FROM t"),
                ("items", f"SELECT 'p' || i AS item_id, 'Thing ' || i AS title, {created} AS created FROM t LIMIT 90"),
            ):
                table = query.replace("FROM t", "FROM range(2000) AS t(i)")
                db.execute(f"COPY ({table}) TO '{tmp_path / name}.parquet'")
        proposal = proposed(tmp_path)
        return [gap.what for gap in proposal.gaps if gap.flag], columns(proposal).get("time_zone")

    zoned = "TIMESTAMPTZ '2023-01-01 00:00:00+00' + to_minutes(i)"
    naive = "TIMESTAMP '2023-01-01' + to_minutes(i)"
    asked = "{} has no time zone, and it cannot be inferred"
    # dates of items need no zone
    assert gaps(zoned, "DATE '2020-01-01' + i::INTEGER") == ([], "UTC")
    assert gaps(zoned, naive) == ([asked.format("created of items")], None)
    both = [asked.format("at of events"), asked.format("created of items")]
    assert gaps(naive, "DATE '2020-01-01' + i::INTEGER") == (both, None)


@pytest.mark.integration
def test_kinds_of_events_are_known_by_their_values(tmp_path: Path) -> None:
    source = odd_sources.german_shop(tmp_path / "shop")
    log = source / "shop_orders.csv"
    log.write_bytes(log.read_bytes().replace(b";action", b";kind", 1))
    settings = columns(proposed(source, time_zone="UTC"))
    assert (settings["event_type"], settings["event_types"]) == ("kind", {"view": "view", "purchase": "purchase"})


def test_an_exact_name_goes_before_a_similar_one(tmp_path: Path) -> None:
    source = odd_sources.ratings(tmp_path / "books")
    books = [
        {"bookId": n, "title": f"The book of {n}", "Section": f"shelf {n % 12}", "Category": f"sort {n % 4}"}
        for n in range(90)
    ]
    (source / "books.jsonl").write_text("\n".join(map(json.dumps, books)))
    assert columns(proposed(source))["category"] == "Category"


@pytest.mark.integration
def test_overrides_are_taken(tmp_path: Path) -> None:
    source = odd_sources.ratings(tmp_path / "books")
    proposal = proposed(source, overrides={"title": "genres", "text": "title", "item_id": "bookId"})
    assert (columns(proposal)["title"], columns(proposal)["text"]) == ("genres", ["title"])
    proposal = proposed(source, overrides={"timestamp": ""})
    assert columns(proposal)["timestamp"] == ""
    assert any("no times" in gap.what for gap in proposal.gaps)
    with pytest.raises(UsageError, match="no table of items has a column 'titel'"):
        proposed(source, overrides={"title": "titel"})
    with pytest.raises(UsageError, match="no setting 'name'"):
        proposed(source, overrides={"name": "title"})
    with pytest.raises(UsageError, match="no table 'films'"):
        proposed(source, roles={"items": "films"})


def test_gaps(tmp_path: Path) -> None:
    source = odd_sources.ratings(tmp_path / "books", rating=5)
    (source / "books.jsonl").unlink()
    gaps = " ".join(gap.what for gap in proposed(source).gaps)
    assert "no table of items" in gaps
    assert "every event has the same stars" in gaps
    few = odd_sources.recbole(tmp_path / "few")
    assert any("only 40 users" in gap.what for gap in proposed(few).gaps)


def test_an_unknown_kind_of_event_is_a_gap(tmp_path: Path) -> None:
    source = odd_sources.german_shop(tmp_path / "shop")
    log = source / "shop_orders.csv"
    log.write_bytes(log.read_bytes() + b"\nK1;A1;01.02.2023 10:15;frobnicate")
    proposal = proposed(source, time_zone="UTC")
    assert columns(proposal)["event_types"]["frobnicate"] == ""  # type: ignore[index]
    assert ["frobnicate" in gap.what for gap in proposal.gaps] == [False, True]
    assert "no event is a negative" in proposal.gaps[0].what


def test_names_in_any_script_have_words() -> None:
    assert name_tokens("userID") == name_tokens("user_id") == name_tokens("user.id") == ["user", "id"]
    assert name_tokens("Verfügbar") == ["verfügbar"]
    assert name_score("Verfügbar", "available") > 0.9
    assert is_id("用户_id")
    assert not is_id("用户")


@pytest.mark.integration
def test_values_that_toml_has_to_quote_are_unchanged(tmp_path: Path) -> None:
    source = odd_sources.german_shop(tmp_path / "shop")
    log = source / "shop_orders.csv"
    odd = ["add to cart", "a.b = [c]", "50 %", "Größe\\"]
    rows = "".join(f"\nK1;A1;01.02.2023 10:15;{kind}" for kind in odd)
    log.write_bytes(log.read_bytes() + rows.encode("cp1252"))
    kinds = columns(proposed(source, time_zone="UTC"))["event_types"]
    assert set(odd) <= set(kinds)  # type: ignore[arg-type]
    assert kinds["add to cart"] == "cart"  # type: ignore[index]


def test_files_that_one_encoding_fits_are_read_in_it(tmp_path: Path) -> None:
    """German has the same bytes in the Western and the Central European code page; beside Polish it is the latter."""
    (tmp_path / "items-1.csv").write_bytes("id;name\n1;Größe und Maß\n".encode("cp1250") * 5)
    polish = "1;Książka była dłuższa, już wiem; Łódź i Kraków są piękne\n".replace("; ", ", ")
    (tmp_path / "items-2.csv").write_bytes(f"id;name\n{polish}".encode("cp1250"))
    surveyed = survey(str(tmp_path))
    assert (surveyed.files.encoding, surveyed.encoding.runner_up) == ("cp1250", "cp1252")


@pytest.mark.integration
def test_the_recipe_is_python_that_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.recipes import named

    for kind, source in (
        ("interactions", odd_sources.ratings(tmp_path / "books")),
        ("labels", odd_sources.reviews(tmp_path / "texts")),
        ("search", odd_sources.beir(tmp_path / "beir")),
        ("shop", odd_sources.shop_database(tmp_path / "shop.duckdb")),
    ):
        proposal = propose(survey(str(source)), name=kind)  # a recipe may have the name of the one it is based on
        assert proposal.kind == kind
        (tmp_path / f"{kind}.toml").write_text(render_map(proposal))
        (tmp_path / f"{kind}.py").write_text(render_recipe(proposal, map_name=f"{kind}.toml"))
        monkeypatch.syspath_prepend(tmp_path)
        recipe = named(f"{kind}:{kind}")
        assert sys.modules.pop(kind).__file__ == str(tmp_path / f"{kind}.py")
        assert (recipe.name, recipe.export.catalogue) == (kind, kind)
        assert recipe.ingest.format == proposal.survey.format
        if kind == "shop":
            assert recipe.finetune.encoder != "tiny"  # natural language needs a pretrained encoder


@pytest.mark.integration
def test_attributes_of_users_become_features_by_a_line_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.recipes import named

    source = odd_sources.ratings(tmp_path / "books")
    plain = proposed(source)
    assert (plain.user_features_setting, "user_features" in render_recipe(plain, map_name="x.toml")) == ("", False)
    users = [{"userId": f"u{n}", "gender": "fmd"[n % 3], "city": f"town {n % 7}"} for n in range(250)]
    (source / "users.jsonl").write_text("\n".join(map(json.dumps, users)))
    proposal = propose(survey(str(source)), name="of_users")
    names = ("gender", "city")
    assert proposal.user_features_setting == f"featurize.user_features={json.dumps(names)}"
    (tmp_path / "of_users.toml").write_text(render_map(proposal))
    recipe = render_recipe(proposal, map_name="of_users.toml")
    monkeypatch.syspath_prepend(tmp_path)
    for text, read in ((recipe, ()), (recipe.replace("            # ", "            "), names)):
        (tmp_path / "of_users.py").write_text(text)
        importlib.invalidate_caches()
        assert named("of_users:of_users").featurize.user_features == read
        sys.modules.pop("of_users")
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)


def refused(source: Path, **more: str) -> str:
    with pytest.raises(SourceError) as error:
        survey(str(source), **more)  # type: ignore[arg-type]
    return str(error.value)


def test_bad_sources(tmp_path: Path) -> None:
    assert "the source does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no table that can be read" in refused(tmp_path / "empty")
    (tmp_path / "empty/README.md").write_text("nothing")
    assert "README.md" in refused(tmp_path / "empty")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert "the file is not a table" in refused(tmp_path / "photo.jpg")
    (tmp_path / "photo.csv").write_bytes(bytes(range(256)) * 40)
    assert "cannot be read as text" in refused(tmp_path / "photo.csv")
    (tmp_path / "photo.parquet").write_bytes(b"PAR1 but not really")
    assert "cannot be read to its end" in refused(tmp_path / "photo.parquet")
    (tmp_path / "header.csv").write_text("user,item\n")
    assert "no row that can be read" in refused(tmp_path / "header.csv")
    (tmp_path / "twice.csv").write_text("user,user\n1,2\n")
    assert "names every column once" in refused(tmp_path / "twice.csv")
    (tmp_path / "array.json").write_text('[{"a": 1}]')
    assert "one array, not lines" in refused(tmp_path / "array.json")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "a.csv").write_bytes("id;name\n1;Größe und Maß\n".encode("cp1252") * 5)
    (mixed / "b.csv").write_bytes("id;name\n1;Größe und Maß\n".encode())
    assert "different encodings" in refused(mixed)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Crème brûlée – für später, señor"),
        ("utf-8", "Łódź i Kraków są piękne"),
        ("cp1251", "Это очень хорошая книга, мне понравилось читать её вечером"),
        ("gb18030", "北京的秋天非常漂亮我们都很喜欢去那里旅游"),
        ("utf-16", "Größe und Maß"),
    ],
)
def test_encodings_are_detected(tmp_path: Path, encoding: str, text: str) -> None:
    rows = "".join(f"i{n};{text} {n}\n" for n in range(60))
    (tmp_path / "items.csv").write_bytes(f"id;name\n{rows}".encode(encoding))
    surveyed = survey(str(tmp_path / "items.csv"))
    assert surveyed.tables["items"].columns["name"].examples[0].startswith(text[:40]), surveyed.files.encoding


def test_many_files_are_one_table(tmp_path: Path) -> None:
    for month in range(3):
        (tmp_path / f"log-2021-{month}.csv").write_text(
            "user_id,item_id,timestamp\n" + "".join(f"u{n},i{n % 7},{1_600_000_000 + n}\n" for n in range(50))
        )
    surveyed = survey(str(tmp_path))
    assert [(table.place, table.files, table.rows) for table in surveyed.tables.values()] == [("log-*-*.csv", 3, 150)]


@pytest.mark.parametrize("days", [1, 4])
def test_folders_that_name_a_column_are_one_table(tmp_path: Path, days: int) -> None:
    for day in range(days):
        folder = tmp_path / f"log/date=2024-01-0{day + 1}"
        folder.mkdir(parents=True)
        rows = "".join(f"u{n},i{n % 7},{1_704_067_200 + day * 86_400 + n}\n" for n in range(100))
        (folder / "part-00000.csv").write_text("user_id,item_id,timestamp\n" + rows)
    for source, place in ((tmp_path, "log"), (tmp_path / "log", "date=*/**")):
        (table,) = survey(str(source)).tables.values()
        assert (table.place, table.files, table.rows) == (place, days, 100 * days)
        assert table.columns["date"].examples[0] == "2024-01-01"


def test_the_first_rows_are_enough(tmp_path: Path) -> None:
    odd_sources.ratings(tmp_path / "books")
    surveyed = survey(str(tmp_path / "books"), rows=500)
    assert (surveyed.tables["ratings"].rows, surveyed.tables["ratings"].is_complete) == (500, False)
    assert (surveyed.tables["books"].rows, surveyed.tables["books"].is_complete) == (90, True)


@pytest.mark.integration
def test_a_postgres_server(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    with psycopg.connect(postgres.secret_url) as connection:
        connection.execute(
            "CREATE TABLE clicks AS SELECT 'u' || (i % 301) AS user_id, 'p' || (i % 90) AS item_id, "
            "TIMESTAMPTZ '2023-01-01' + i * INTERVAL '1 minute' AS at FROM generate_series(1, 3000) AS i"
        )
        connection.execute(
            "CREATE TABLE products AS SELECT 'p' || i AS id, 'Product number ' || i AS title "
            "FROM generate_series(0, 89) AS i"
        )
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    proposal = proposed(postgres.url)
    assert proposal.roles == {"events": "clicks", "items": "products"}
    assert (columns(proposal)["timestamp"], columns(proposal)["item_key"], proposal.gaps) == ("at", "id", [])
    assert rejected(proposal, tmp_path) == {}
    monkeypatch.setenv("SHOP_URL", postgres.secret_url)
    proposal = propose(survey("", connection="SHOP_URL"), name="mine")
    assert proposal.roles == {"events": "clicks", "items": "products"}
    assert rejected(proposal, tmp_path) == {}
    assert PASSWORD not in render_map(proposal) + render_recipe(proposal, map_name="mine.toml")
    with pytest.raises(UsageError, match="must not contain a password") as error:
        survey(postgres.secret_url)
    assert PASSWORD not in str(error.value)
    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert "cannot be reached" in refused(postgres.url)


def test_a_url_is_surveyed_like_a_folder(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in odd_sources.ratings(tmp_path / "books").iterdir():
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    proposal = proposed("memory://bucket")  # type: ignore[arg-type]
    assert proposal.roles == {"events": "ratings", "items": "books"}
    assert rejected(proposal, tmp_path) == {}


def test_the_dry_run_reads_only_the_first_events(tmp_path: Path) -> None:
    proposal = proposed(odd_sources.ratings(tmp_path / "books"))
    (tmp_path / "books.toml").write_text(render_map(proposal))
    result = dry_run(interactions(proposal.survey.source, str(tmp_path / "books.toml")).ingest, events=500)
    assert (result.rows_read["events"], result.rows_kept["events"], result.rows_read["items"]) == (500, 500, 90)
    assert result.tables_over_limit == []
