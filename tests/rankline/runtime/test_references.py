"""On a cluster an output that the cache holds travels as a reference."""

import json
from pathlib import Path
from typing import Any

import pytest

from rankline.io.storage import StorageConfig, open_filesystem
from rankline.runtime import ledger, references
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step
from tests.rankline.runtime.test_remote_cache import only
from tests.rankline.runtime.test_run_step import Config, Work, seal


class Cluster:
    """Two steps, each in an empty workspace; what they pass on is in a folder of its own."""

    def __init__(self, folder: Path, artifacts: str) -> None:
        self.folder, self.artifacts, self.pods = folder, artifacts, 0
        self.first, self.second = Work(), Work()
        self.raw = folder / "raw"
        self.raw.mkdir()
        (self.raw / "number.txt").write_text("21")
        seal(self.raw)

    def step(
        self, name: str, work: Any, source: Path, *, workspace: str = "", **more: Any
    ) -> tuple[ledger.Entry, Path, RunContext]:
        self.pods += 1
        workspace = workspace or f"pod-{self.pods}"
        run = RunContext(self.folder / workspace, f"run-{self.pods}", StorageConfig(artifacts=self.artifacts))
        run.passes_references = True
        output = self.folder / "passed" / f"{self.pods}" / "output"
        spec = StepSpec(
            name, getattr(work, "step", work), Config(), inputs={"raw": source}, outputs={"output": output}, **more
        )
        run_step(spec, run)
        return ledger.read_entries(run.folder)[name], output, run


@pytest.fixture(params=["folder", "bucket"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Cluster:
    place = str(tmp_path / "remote") if request.param == "folder" else str(request.getfixturevalue("url"))
    return Cluster(tmp_path, place)


@pytest.mark.integration
def test_a_reference_is_passed_on_and_only_work_downloads_its_files(cluster: Cluster) -> None:
    first, output, run = cluster.step("ingest", cluster.first, cluster.raw)
    assert [path.name for path in output.iterdir()] == [references.FILE]
    assert references.read_file(output, "number.txt", run) == b"42"
    second, chained, _ = cluster.step("validate", cluster.second, output)
    assert (second.result, second.inputs["raw"]) == ({"value": 84}, first.outputs["output"])
    assert [path.name for path in chained.iterdir()] == [references.FILE]
    # another run: both are reused, and nothing is downloaded
    again, same_output, _ = cluster.step("ingest", cluster.first, cluster.raw)
    reused, _, pod = cluster.step("validate", cluster.second, same_output)
    assert [again.status, reused.status] == ["reused", "reused"]
    assert (again.outputs, reused.outputs) == (first.outputs, second.outputs)
    assert (cluster.first.done, cluster.second.done) == (1, 1)
    assert not pod.cache_folder("ingest").exists()
    assert references.read_file(same_output, "number.txt", pod) == b"42"  # one file alone


def test_an_evaluation_of_another_lineage_is_referred_to(cluster: Cluster) -> None:
    cluster.step("ingest", cluster.first, cluster.raw, lineage=lambda: {"champion": "a"})
    other: dict[str, Any] = {"lineage": lambda: {"champion": "b"}}
    assert cluster.step("ingest", cluster.first, cluster.raw, **other)[0].why == "champion changed"
    third = cluster.step(
        "ingest", cluster.first, cluster.raw, lineage=lambda: {"champion": "c"}, ignore_lineage=lambda: True
    )
    assert (third[0].status, cluster.first.done) == ("reused", 2)


@pytest.mark.parametrize("workspaces", [("", ""), ("a", "b")], ids=["of each pod", "of each run"])
def test_of_two_runs_of_a_step_at_once_both_go_on_with_the_result_of_the_first(
    cluster: Cluster, workspaces: tuple[str, str]
) -> None:
    own, other = workspaces

    def random(output: Path, value: int) -> dict[str, Any]:  # as training on several threads is
        output.mkdir(parents=True)
        (output / "number.txt").write_text(str(value))
        return {"value": value}

    def slow(*, output: Path, **arguments: Any) -> dict[str, Any]:
        uploaded.append(cluster.step("ingest", fast, cluster.raw, workspace=other))
        return random(output, 43)

    def fast(*, output: Path, **arguments: Any) -> dict[str, Any]:
        return random(output, 42)

    uploaded: list[tuple[ledger.Entry, Path, RunContext]] = []
    second, output, _ = cluster.step("ingest", slow, cluster.raw, workspace=own)
    ((first, first_output, _),) = uploaded
    assert (first.status, second.status) == ("done", "done")
    assert (second.result, second.outputs) == (first.result, first.outputs)
    assert "another run has finished it meanwhile" in second.why
    for source, workspace in ((first_output, other), (output, own)):
        assert cluster.step("validate", cluster.second, source, workspace=workspace)[0].result == {"value": 84}
    assert cluster.second.done == 1  # the same input: the second run reuses it


def test_the_result_of_another_run_that_cannot_be_read_is_not_referred_to(cluster: Cluster) -> None:
    cluster.step("ingest", cluster.first, cluster.raw)
    fs, file = only(cluster.artifacts, "entry.json")
    entry = json.loads(fs.cat_file(file))
    fs.pipe_file(file, json.dumps({**entry, "seal": "another"}).encode())
    again, output, _ = cluster.step("ingest", cluster.first, cluster.raw)
    assert (again.status, (output / "number.txt").read_text()) == ("done", "42")
    assert cluster.step("validate", cluster.second, output)[0].result == {"value": 84}


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_files_that_the_cache_no_longer_has_stop_the_step_that_needs_them(cluster: Cluster, damage: str) -> None:
    _, output, _ = cluster.step("ingest", cluster.first, cluster.raw)
    fs, file = only(cluster.artifacts, "number.txt")
    if damage == "removed":
        fs.rm(open_filesystem(cluster.artifacts)[1], recursive=True)
    else:
        fs.pipe_file(file, b"43")
    with pytest.raises(SystemExit, match="the cache no longer has the output output of ingest"):
        cluster.step("validate", cluster.second, output)
    # a new run makes them again
    again, output, _ = cluster.step("ingest", cluster.first, cluster.raw)
    assert (again.status, cluster.first.done) == ("done", 2)
    assert cluster.step("validate", cluster.second, output)[0].result == {"value": 84}


def test_what_could_not_be_uploaded_is_passed_on_whole(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("a file where a folder is expected")
    cluster = Cluster(tmp_path, str(tmp_path / "remote"))
    first, output, _ = cluster.step("ingest", cluster.first, cluster.raw)
    assert "not uploaded to" in first.why
    assert (output / "number.txt").read_text() == "42"
    assert cluster.step("validate", cluster.second, output)[0].result == {"value": 84}
