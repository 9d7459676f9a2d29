"""Which files a source has, and the one digest for what they hold."""

import functools
import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from rankline.errors import SourceError
from rankline.io import digest, sources
from rankline.io.sources import File, Source, mask_passwords, match_files
from tests.servers.process import free_port
from tests.servers.proxy import BUSY, DROP, PASS, flaky


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(folder: Path, files: sources.Files) -> dict[str, list[str]]:
    return {table: [str(Path(file.path).relative_to(folder)) for file in each] for table, each in files.items()}


@pytest.mark.parametrize(
    ("present", "settings", "expected"),
    [
        (("s.inter", "s.item"), {}, {"events": ["s.inter"], "items": ["s.item"]}),
        (("s.inter.gz", "s.item.gz"), {}, {"events": ["s.inter.gz"], "items": ["s.item.gz"]}),
        (("s.inter", "s.item", "s.user"), {}, {"events": ["s.inter"], "items": ["s.item"], "users": ["s.user"]}),
        (
            ("s.test.inter", "s.train.inter", "s.valid.inter", "s.item"),
            {},
            {"events": ["s.train.inter", "s.valid.inter", "s.test.inter"], "items": ["s.item"]},
        ),
        (("s.inter", "s.train.inter", "s.item"), {}, {"events": ["s.inter"], "items": ["s.item"]}),
        (("s.inter", "t.inter", "t.item"), {"name": "t"}, {"events": ["t.inter"], "items": ["t.item"]}),
        (("s.inter",), {"items_from_events": True}, {"events": ["s.inter"]}),
    ],
)  # fmt: skip
def test_the_files_of_a_recbole_set(tmp_path: Path, present: tuple[str, ...], settings: Any, expected: Any) -> None:
    touch(tmp_path, *present)
    assert names(tmp_path, sources.find_files(Source(source=str(tmp_path), **settings))) == expected


@pytest.mark.parametrize("path", ["s", "s.inter.gz", "s.item"])
def test_a_recbole_set_is_found_by_a_path_of_it(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "s.inter.gz", "s.item", "other.inter")
    files = sources.find_files(Source(source=str(tmp_path / path)))
    assert names(tmp_path, files) == {"events": ["s.inter.gz"], "items": ["s.item"]}


def test_a_table_is_a_file_a_pattern_or_a_folder(tmp_path: Path) -> None:
    touch(
        tmp_path, "a=0/log/day=1/x.csv", "a=0/log/day=2/b=%20/y.csv.gz", "a=0/log/_SUCCESS", "a=0/log/.x.csv", "i.csv"
    )
    base = str(tmp_path / "a=0")
    for place in ("log", "log/**/*.csv*", "log/day=*/**/[xy].csv*"):
        tables = {"events": place, "items": str(tmp_path / "i.csv")}
        events = sources.find_files(Source(source=base, format="tables", tables=tables))["events"]
        # only folders below the place are columns
        assert [dict(file.partitions) for file in events] == [{"day": "1"}, {"day": "2", "b": " "}], place
    assert [file.kind for file in events] == ["csv", "csv"]


def test_a_place_within_a_partition_keeps_its_column(tmp_path: Path) -> None:
    touch(tmp_path, "a=0/log/day=1/hour=2/x.csv")
    base = str(tmp_path / "a=0")
    inner = "log/day=1/hour=2"
    for place in (inner, f"{inner}/", f"{inner}/*.csv", f"{inner}/x.csv", "log/day=1", f"{base}/{inner}"):
        (file,) = sources.find_files(Source(source=base, format="tables", tables={"events": place, "items": "log"}))[
            "events"
        ]
        assert dict(file.partitions) == {"day": "1", "hour": "2"}, place


def test_the_digest_is_of_contents_wherever_they_lie(tmp_path: Path) -> None:
    def of(folder: str, **settings: Any) -> str:
        return sources.source_digest(Source(source=str(tmp_path / folder), **settings))

    for folder in ("one", "two", "three"):
        touch(tmp_path / folder, "s.inter", "s.item")
    (tmp_path / "three/s.item").write_text("other")
    # the digest of a plain set is what it always was
    held = {
        "events": digest.file_digest(tmp_path / "one/s.inter"),
        "items": digest.file_digest(tmp_path / "one/s.item"),
    }
    assert of("one") == of("two") == digest.json_digest(held) != of("three")
    assert of("one", changing=True) != of("one", changing=True)
    tables: dict[str, Any] = {"format": "tables", "tables": {"events": "log", "items": "items.csv"}}
    for folder, day in (("four", 1), ("five", 2)):
        touch(tmp_path / folder, "items.csv")
        (tmp_path / folder / f"log/day={day}").mkdir(parents=True)
        (tmp_path / folder / f"log/day={day}/x.csv").write_text("the same")
    assert of("four", **tables) != of("five", **tables)


def test_a_database_file_is_known_by_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    settings: dict[str, Any] = {"source": str(path), "format": "sql", "tables": {"events": "e", "items": "i"}}
    with duckdb.connect(str(path)) as db:
        db.execute("CREATE TABLE e AS SELECT 1 AS n")
    before = sources.source_digest(Source(**settings))
    assert before == sources.source_digest(Source(**settings))
    with duckdb.connect(str(path)) as db:
        db.execute("INSERT INTO e VALUES (2)")
        # it is in the write-ahead log now, and in the file later
        assert sources.source_digest(Source(**settings)) != before
    assert sources.source_digest(Source(**settings)) != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "tables"}, "no table of events"),
        ({"format": "tables", "tables": {"events": "e.csv"}}, "no table of items"),
        ({"format": "tables", "tables": {"events": "gone.csv", "items": "e.csv"}}, "no files of events"),
        ({"format": "tables", "tables": {"events": "memory://gone/*", "items": "e.csv"}}, "no files of events"),
        ({"format": "tables", "tables": {"events": "empty.csv", "items": "e.csv"}}, "is empty"),
        ({"format": "sql", "tables": {"events": "e"}}, "no table of items"),
        ({"format": "tables", "tables": {"events": "zip://e.csv::file:///a.zip", "items": "e.csv"}}, "chained URLs"),
        ({"format": "beir"}, "no file of items"),
        ({"format": "recbole"}, "holds no events"),
    ],
)
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    touch(tmp_path, "e.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(SourceError, match=message):
        sources.find_files(Source(source=str(tmp_path), **settings))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s:e/c@ret@host/db", "postgresql://me:***@host/db"),
        ("could not connect to postgres://:secret@host/db now", "could not connect to postgres://:***@host/db now"),
        ("host=h password=secret user=u", "host=h password=*** user=u"),
        ("host=h password='a secret' user=u", "host=h password=*** user=u"),
        ("postgresql://host/db?user=u&password=secret&x=1", "postgresql://host/db?user=u&password=***&x=1"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("s3://bucket/a:b/c@d", "s3://bucket/a:b/c@d"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert mask_passwords(text) == shown


def test_a_stored_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"words"))
    file = File(str(tmp_path / "x.csv.gz"))
    assert file.digest() == digest.file_digest(tmp_path / "x.csv.gz")
    assert file.size() == (tmp_path / "x.csv.gz").stat().st_size


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server of a folder, on this port; who has to wait does not wait long."""
    monkeypatch.setattr("random.uniform", lambda _, most: most / 100)
    touch(tmp_path / "web", "log.csv")
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_web_server_that_fails_now_and_then_is_asked_again(tmp_path: Path, web: int) -> None:
    with flaky(web, lambda number: (BUSY, DROP, PASS)[number % 3]) as proxy:
        file = File(f"http://127.0.0.1:{proxy.port}/log.csv")
        assert file.digest() == digest.file_digest(tmp_path / "web/log.csv")
        assert file.size() == len("log.csv")
        assert {BUSY, DROP, PASS} <= set(proxy.seen)


@pytest.mark.parametrize(
    ("plan", "path", "message"),
    [
        (lambda _: BUSY, "log.csv", r"does not respond[^$]*within 5 attempts[^$]*503"),
        (lambda number: PASS if number < 1 else BUSY, "log.csv", r"does not respond[^$]*503"),  # away while it is read
        (lambda _: DROP, "log.csv", r"does not respond[^$]*(ServerDisconnected|ClientOSError)"),
        (lambda _: PASS, "gone.csv", r"cannot be opened[^$]*404"),
    ],
)
def test_a_web_server_that_is_away_is_one_message(
    web: int, plan: Callable[[int], str], path: str, message: str
) -> None:
    with flaky(web, plan) as proxy, pytest.raises(SourceError, match=message):
        File(f"http://127.0.0.1:{proxy.port}/{path}").digest()


def test_an_unreachable_host_is_one_message(web: int) -> None:
    with pytest.raises(SourceError, match=r"does not respond[^$]*Cannot connect"):
        File(f"http://127.0.0.1:{free_port()}/log.csv").size()


def test_a_bucket_that_is_away_or_wants_credentials_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs", reason="no client for S3 here: `pip install s3fs`")

    def refusal(place: str) -> str:
        s3fs.S3FileSystem.clear_instance_cache()  # a client remembers the endpoint it was made for
        with pytest.raises(SourceError, match="does not respond") as error:
            sources.find_files(
                Source(source="s3://nowhere", format="tables", tables={"events": place}, items_from_events=True)
            )
        return str(error.value)

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert "NoCredentialsError" in refusal("log.csv")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "EndpointConnectionError" in refusal("log")
    assert "EndpointConnectionError" in refusal("log/*.csv")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("folder", ["shop [2023]", "what?", "all *"])
@pytest.mark.parametrize("place", ["log", "log/*.csv", "log/a[1].csv"])
def test_signs_of_patterns_in_a_name_are_letters(tmp_path: Path, folder: str, place: str) -> None:
    (tmp_path / folder / "log").mkdir(parents=True)
    (tmp_path / folder / "log/a[1].csv").write_text("x")
    (file,) = match_files(str(tmp_path / folder), place, "events")
    assert file.path == str(tmp_path / folder / "log/a[1].csv")
