"""Ids that two tables write in two ways: which are alike anyway, and which setting makes the others so."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.ingest.config import Columns
from components.ingest.ids import find_meeting
from onboarding.inference.proposal import propose
from onboarding.survey.survey import survey
from tests.components.test_ingest_text import refused, run, table


def write(folder: Path, events: list[str], items: list[Any], *, suffix: str = "csv") -> dict[str, Any]:
    """A log that names ``events``, and a table of ``items``; the settings that read them."""
    log = "".join(f"{n},{each},{1_680_000_000 + n}\n" for n, each in enumerate(events))
    (folder / "log.csv").write_text("user_id,item_id,timestamp\n" + log)
    if suffix == "parquet":
        titles = [f"Thing {n}" for n in range(len(items))]
        pq.write_table(pa.table({"item_id": items, "title": titles}), folder / "items.parquet")
    else:
        rows = "".join(f"{each},Thing {n}\n" for n, each in enumerate(items))
        (folder / f"items.{suffix}").write_text("item_id,title\n" + rows)
    return {"tables": {"items": f"items.{suffix}"}, "columns": {"title": "title"}}


# normalisation -> how the events write an id, how the items do
SPELLINGS = {
    "zeros": ("0{n}", "{n}"),
    "case": ("Sku-{n}", "SKU-{n}"),
    "blanks": ("AB {n}", "AB{n}"),
    "blanks at the end": ("AB{n}\t", "AB{n}"),
    "accents": ("cafe\u0301{n}", "café{n}"),
    "prefix": ("gid://shopify/Product/{n}", "{n}"),
    "prefix of a name": ("{n}", "product-{n}"),
    "fraction": ("{n}.00", "{n}"),
    "accents, case": ("Cafe\u0301{n}", "café{n}"),
    "guid": ("{{6F9619FF-8B86-D011-B42D-00CF4FC9{n}}}", "6f9619ff-8b86-d011-b42d-00cf4fc9{n}"),
    "guid without dashes": ("6F9619FF8B86D011B42D00CF4FC9{n}", "6f9619ff-8b86-d011-b42d-00cf4fc9{n}"),
    "guid as a name": ("urn:uuid:6F9619FF-8B86-D011-B42D-00CF4FC9{n}", "{{6f9619ff-8b86-d011-b42d-00cf4fc9{n}}}"),
    "prefix, zeros": ("SKU-000{n}", "{n}"),
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", SPELLINGS)
def test_what_makes_ids_meet_is_named_and_does(tmp_path: Path, kind: str) -> None:
    left, right = SPELLINGS[kind]
    numbers = [1000 + n for n in range(20)]
    events, items = ([form.format(n=n) for n in numbers] for form in (left, right))
    given = write(tmp_path, events * 5, items)
    names = [name.split(" ")[0] for name in kind.split(", ")]
    message = refused(tmp_path, **given)
    assert "unknown item 100" in message
    assert f"the events say {events[0].strip(' ')!r}, the items {items[0]!r}" in message
    assert f"ingest.columns.normalise_ids={json.dumps(names)}" in message
    assert "100% of these" in message
    given["columns"] |= {"normalise_ids": names}
    result = run(tmp_path, **given)
    assert (result["rows"]["events"], result["rows"]["items"], result["rejected"]["events"]) == (100, 20, {})
    proposal = propose(survey(str(tmp_path), only=("log.csv", "items.csv")), name="mine", time_zone="UTC")
    assert proposal.settings["columns"]["normalise_ids"] == names


def test_ids_that_have_nothing_in_common_are_shown(tmp_path: Path) -> None:
    message = refused(tmp_path, **write(tmp_path, ["a1", "a2"], ["77", "78"]))
    assert "the events say 'a1', the items '77'" in message
    assert "ingest.columns.item_key" in message
    assert "normalise_ids" not in message


def test_whole_numbers_stay_whole_and_zeros_stay(tmp_path: Path) -> None:
    given = write(tmp_path, ["1037.0", "1038.0", "0108"], [1037, 1038, 0o154], suffix="parquet")
    result = run(tmp_path, max_rejected_share=0.5, **given)
    assert [event["item_id"] for event in table(tmp_path, "events")] == ["1037", "1038"]
    assert result["rejected"]["events"] == {"unknown item": 1}  # 0108 is not 108
    given = write(tmp_path, ["v1.0", "1.50", "1.0.0"], ["v1.0", "1.50", "1.0.0"])
    run(tmp_path, **given)
    assert [event["item_id"] for event in table(tmp_path, "events")] == ["v1.0", "1.50", "1.0.0"]


def test_ids_that_a_sheet_has_rounded_are_no_ids(tmp_path: Path) -> None:
    given = write(tmp_path, ["1.08775E+08", "1E5"], ["1.08775E+08", "1E5"])
    result = run(tmp_path, max_rejected_share=0.5, **given)
    assert result["rejected"]["items"] == {"item_id of more digits than its type can hold": 1}
    assert [event["item_id"] for event in table(tmp_path, "events")] == ["1E5"]


def test_ids_of_users_are_normalised_too(tmp_path: Path) -> None:
    given = write(tmp_path, ["i1"] * 3, ["i1"])
    (tmp_path / "users.csv").write_text("user_id,age\n00,20\n01,21\n")
    given["tables"] |= {"users": "users.csv"}
    given["columns"] |= {"user_attributes": ("age",), "normalise_ids": ("zeros",)}
    run(tmp_path, **given)
    assert [(user["user_id"], user["age"]) for user in table(tmp_path, "users")] == [
        ("0", "20"),
        ("1", "21"),
        ("2", None),
    ]


def test_ids_that_become_the_same_are_duplicates(tmp_path: Path) -> None:
    given = write(tmp_path, ["a1", "A1"], ["a1", "A1"])
    given["columns"] |= {"normalise_ids": ("case",)}
    assert run(tmp_path, max_rejected_share=0.5, **given)["rejected"]["items"] == {"duplicate item": 1}


def test_only_known_normalisations_are_settings() -> None:
    with pytest.raises(ValidationError, match="there are accents, blanks, guid, case"):
        Columns(normalise_ids=("upper",))


def test_the_fewest_normalisations_are_taken() -> None:
    with duckdb.connect() as db:
        left, right = "SELECT 'A' || i AS id FROM range(9) AS t(i)", "SELECT 'a' || i AS id FROM range(9) AS t(i)"
        assert find_meeting(db, left, right) == (("case",), 1.0, "A0", "a0")
        assert find_meeting(db, "SELECT NULL::VARCHAR AS id", right) == ((), 0.0, "", "")
