"""The tables of an evaluation as arrays, whatever the order of their rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from rankline.errors import IntegrityError
from rankline.gates.evidence import read_evidence

ROWS = [("r2", "candidate", 0.2), ("r1", "candidate", 0.1), ("r1", "popularity", 0.3), ("r2", "popularity", None)]


def write(folder, rows=ROWS, columns=("request_id", "system", "ndcg@10")):
    table = {name: [row[n] for row in rows] for n, name in enumerate(columns)}
    parquet.write_table(pa.table(table), folder / "per_request.parquet")


def test_scores_are_in_the_order_of_the_requests(tmp_path):
    write(tmp_path)
    evidence = read_evidence(tmp_path)
    assert (evidence.request_ids, evidence.clusters, evidence.until) == (["r1", "r2"], ["r1", "r2"], 0.0)
    assert evidence.scores["ndcg@10"]["candidate"].tolist() == [0.1, 0.2]
    assert evidence.scores["ndcg@10"]["popularity"][0] == 0.3
    assert np.isnan(evidence.scores["ndcg@10"]["popularity"][1])
    assert evidence.slices == {}


@pytest.mark.parametrize("others", [["r1"], ["r1", "r3"], ["r1", "r2", "r3"]])
def test_a_system_with_other_requests_is_left_out(tmp_path, others):
    write(tmp_path, [*ROWS[:2], *((request, "champion", 0.5) for request in others)])
    assert list(read_evidence(tmp_path).scores["ndcg@10"]) == ["candidate"]


def test_clusters_times_and_slices_are_matched_by_request(tmp_path):
    write(tmp_path)
    requests = {"request_id": ["r2", "r9"], "cluster": ["user 7", "user 9"], "at": [5.0, 9.0]}
    parquet.write_table(pa.table(requests), tmp_path / "requests.parquet")
    members = {"request_id": ["r2", "r9", "r1", "r2"], "slice": ["new", "new", "old", "old"]}
    parquet.write_table(pa.table(members), tmp_path / "slices.parquet")
    evidence = read_evidence(tmp_path)
    assert (evidence.clusters, evidence.at_R.tolist()) == (["r1", "user 7"], [0.0, 5.0])
    assert {name: inside.tolist() for name, inside in evidence.slices.items()} == {
        "new": [False, True], "old": [True, True],
    }  # fmt: skip


def test_tables_without_rows_are_empty(tmp_path):
    write(tmp_path)
    for name, columns in (("requests", ("request_id", "cluster")), ("slices", ("request_id", "slice"))):
        table = pa.table({each: pa.array([], pa.string()) for each in columns})
        table = table if name == "slices" else table.append_column("at", pa.array([], pa.float64()))
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    evidence = read_evidence(tmp_path)
    assert (evidence.clusters, evidence.slices) == (["r1", "r2"], {})


def test_scores_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(IntegrityError, match="per-request scores cannot be read"):
        read_evidence(tmp_path)
    (tmp_path / "per_request.parquet").write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="per-request scores cannot be read"):
        read_evidence(tmp_path)
    write(tmp_path, columns=("request", "system", "ndcg@10"))
    with pytest.raises(IntegrityError, match="per-request scores cannot be read") as refusal:
        read_evidence(tmp_path)
    assert "request_id" in refusal.value.found


@pytest.mark.parametrize("system", ["candidate", "popularity"])
def test_a_request_that_is_scored_twice_is_refused(tmp_path, system):
    write(tmp_path, [*ROWS, ("r1", system, 0.6)])
    with pytest.raises(IntegrityError, match="scored twice") as refusal:
        read_evidence(tmp_path)
    assert f"request r1 of {system}" in refusal.value.found
