"""Delta tables are read by their log; Iceberg and Hudi are refused: what was deleted never comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankline.errors import SourceError
from rankline.io.sources import Source, Tables, find_files


def write_table(folder: Path, names: list[str], commits: list[list[dict[str, Any]]]) -> Path:
    """A Delta table with these files and commits."""
    (folder / "_delta_log").mkdir(parents=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"user_id": [name]}), folder / name)
    for version, actions in enumerate(commits):
        (folder / f"_delta_log/{version:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    return folder


def add(path: str, **more: Any) -> dict[str, Any]:
    return {"add": {"path": path, "dataChange": True, **more}}


def remove(path: str) -> dict[str, Any]:
    return {"remove": {"path": path}}


def live(source: Path, place: str = "events") -> dict[str, dict[str, str | None]]:
    config = Source(source=str(source), format="tables", tables=Tables(events=place), items_from_events=True)
    return {Path(file.path).name: dict(file.partitions) for file in find_files(config)["events"]}


def refused(source: Path, place: str = "events") -> str:
    with pytest.raises(SourceError) as error:
        live(source, place)
    return str(error.value)


@pytest.mark.parametrize("place", ["events", "events/*.parquet", "**/*.parquet"])
def test_files_that_the_log_has_removed_are_not_read(tmp_path: Path, place: str) -> None:
    commits = [[add("a.parquet")], [remove("a.parquet"), add("b.parquet")], [add("c.parquet")]]
    write_table(tmp_path / "events", ["a.parquet", "b.parquet", "c.parquet", "never.parquet"], commits)
    assert set(live(tmp_path, place)) == {"b.parquet", "c.parquet"}
    assert "no files of events" in refused(tmp_path, "events/a.parquet")


def test_partitions_come_from_the_log(tmp_path: Path) -> None:
    given = [add("day=2024-01-01/a%20b.parquet", partitionValues={"day": "2024-01-01"})]
    given += [add("xy/c.parquet", partitionValues={"day": None})]
    write_table(tmp_path / "events", ["day=2024-01-01/a b.parquet", "xy/c.parquet", "xy/d.parquet"], [given])
    assert live(tmp_path) == {"a b.parquet": {"day": "2024-01-01"}, "c.parquet": {"day": None}}


def test_a_checkpoint_stands_for_the_commits_before_it(tmp_path: Path) -> None:
    folder = write_table(tmp_path / "events", ["a.parquet", "b.parquet", "c.parquet"], [[]] * 3)
    log = folder / "_delta_log"
    adds = pa.table({"add": pa.array([{"path": "a.parquet"}, {"path": "b.parquet"}]), "txn": pa.array([1, 2])})
    pq.write_table(adds, log / f"{1:020d}.checkpoint.parquet")
    (log / f"{2:020d}.json").write_text(json.dumps(remove("a.parquet")) + "\n" + json.dumps(add("c.parquet")))
    (log / f"{0:020d}.json").unlink()
    assert set(live(tmp_path)) == {"b.parquet", "c.parquet"}
    (log / f"{2:020d}.json").rename(log / f"{3:020d}.json")
    assert "the log of a Delta table is not complete" in refused(tmp_path)
    # of a checkpoint in two parts one is missing
    (log / f"{1:020d}.checkpoint.parquet").rename(log / f"{1:020d}.checkpoint.{1:010d}.{2:010d}.parquet")
    assert "not complete" in refused(tmp_path)


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ([add("a.parquet", deletionVector={"storageType": "u"})], "deletion vectors"),
        ([{"metaData": {"configuration": {"delta.columnMapping.mode": "name"}}}], "column mapping"),
        ([{"protocol": {"minReaderVersion": 3, "readerFeatures": ["deletionVectors", "brandNew"]}}], "brandNew"),
        ([{"protocol": {"minReaderVersion": 4}}], "reader version 4"),
        ([add("gone.parquet")], r"no file gone\.parquet"),
        (["not an action"], "not complete"),
    ],
)
def test_what_a_log_asks_for_and_nothing_does_is_refused(tmp_path: Path, actions: list[Any], reason: str) -> None:
    write_table(tmp_path / "events", ["a.parquet"], [[add("a.parquet")], actions])
    with pytest.raises(SourceError, match=reason):
        live(tmp_path)


def test_a_log_that_cannot_be_parsed_is_damaged(tmp_path: Path) -> None:
    folder = write_table(tmp_path / "events", ["a.parquet"], [[add("a.parquet")]])
    (folder / f"_delta_log/{1:020d}.json").write_text('{"add": {"pa')
    assert "not complete" in refused(tmp_path)


@pytest.mark.parametrize("place", ["events", "events/data", "events/data/*.parquet", "events/data/day=1/a.parquet"])
@pytest.mark.parametrize(
    ("log", "kind"), [("metadata/00001-ab.metadata.json", "Iceberg"), (".hoodie/hoodie.properties", "Hudi")]
)
def test_tables_of_other_formats_are_refused(tmp_path: Path, place: str, log: str, kind: str) -> None:
    for name in ("data/day=1/a.parquet", "data/b.parquet", log):
        (tmp_path / "events" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "events" / name).write_text("{}")
    message = refused(tmp_path, place)
    assert f"{kind} table cannot be read" in message
    assert "its files alone may hold rows that were deleted" in message


def test_a_folder_called_metadata_is_no_log(tmp_path: Path) -> None:
    for name in ("events/a.parquet", "metadata/readme.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    assert set(live(tmp_path)) == {"a.parquet"}
