"""export: the graphs compute what torch computes, and the same student gives the same bytes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow.parquet as parquet
import pytest
import torch

from components.distill import scorer
from components.distill.candidate_table import CandidateDrawer
from components.export import parity
from components.export.config import ExportConfig
from components.export.step import export
from components.export.student import Student
from rankline.contracts import FrozenState
from rankline.errors import IntegrityError, UsageError
from rankline.evaluation import snapshot_requests
from rankline.model import bundle as bundles
from rankline.model import catalogue as catalogues
from rankline.model.bundle import Bundle
from rankline.runtime.progress import Progress
from rankline.text import item_text
from serving.engine import BundleEngine, EngineRequest
from tests.conftest import SmokeRun

GRAPHS = ("text", "side", "user", "scorer")
PRECISIONS = ("fp32", "int8", "fp16")
SIZES = {"text": (1, 2, 16, 64), "side": (1,), "user": (1, 5, 20), "scorer": (1, 20, 500)}  # tokens, events, candidates
TOLERANCE = 2e-5  # torch and ONNX Runtime add in different orders
Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def bundle(smoke: SmokeRun) -> Bundle:
    return bundles.open_bundle(smoke.artifact("export", "bundle"))


@pytest.fixture(scope="module")
def student(smoke: SmokeRun) -> Student:
    return Student.load(smoke.artifact("distill", "student"))


@pytest.fixture(scope="module")
def words(features: Path) -> list[str]:
    return [item_text(item) for item in parquet.read_table(features / "items.parquet").to_pylist()]


def onnx_of(bundle: Bundle, graph: str, precision: str) -> Path:
    return bundle.folder / getattr(bundle.manifest.precisions[precision], graph)


def text_vectors(bundle: Bundle, precision: str, student: Student, words: list[str]) -> npt.NDArray[np.float32]:
    """The vectors that the text tower of a precision gives to some texts."""
    session = catalogues.cpu_session(onnx_of(bundle, "text", precision))
    return catalogues.embed(session, student.tokenizer, words, size=student.tower.size)


def inputs(student: Student, graph: str, batch: int, length: int) -> Arrays:
    """Random inputs of one size; ``length`` is tokens, events or candidates."""
    rng = np.random.default_rng(batch * 1000 + length)
    size, features = student.tower.size, len(student.scorer.standardize.mean_F)
    floats = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    if graph == "text":
        ids_BW = rng.integers(5, student.tokenizer.vocabulary_size, (batch, length))
        real_BW = np.arange(length) < rng.integers(1, length + 1, (batch, 1))
        return {"input_ids": ids_BW * real_BW, "attention_mask": real_BW.astype(np.int64)}
    if graph == "side":
        return {"side_IS": floats(batch, student.side.in_features)}
    if graph == "user":
        lengths_B = rng.integers(1, length + 1, batch)
        ratings_BL = rng.integers(0, 6, (batch, length))
        return {"items_BLD": floats(batch, length, size), "ratings_BL": ratings_BL, "lengths_B": lengths_B}
    features_BCF = 3 * floats(batch, length, features)
    return {"left_BD": floats(batch, size), "items_BCD": floats(batch, length, size), "features_BCF": features_BCF}


def torch_output(student: Student, graph: str, given: Arrays) -> npt.NDArray[Any]:
    module = {
        "text": student.text, "side": student.side, "user": student.tower, "scorer": student.scorer,
    }[graph]  # fmt: skip
    with torch.no_grad():
        answer: npt.NDArray[Any] = module(*(torch.from_numpy(value) for value in given.values())).numpy()
    return answer


# The graphs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize(
    ("graph", "length"),
    [(graph, n) for graph, sizes in SIZES.items() for n in sizes],
)
def test_torch_and_onnx_agree_at_any_size(
    bundle: Bundle, student: Student, graph: str, length: int, batch: int
) -> None:
    given = inputs(student, graph, batch, length)
    expected = torch_output(student, graph, given)
    session = catalogues.cpu_session(onnx_of(bundle, graph, "fp32"))
    np.testing.assert_allclose(session.run(None, given)[0], expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert expected.std() > 1e-3  # the outputs are not constant


def test_the_history_graph_knows_an_empty_history(bundle: Bundle, student: Student) -> None:
    given = inputs(student, "user", 3, 4) | {"lengths_B": np.array([0, 2, 0])}
    actual = catalogues.cpu_session(onnx_of(bundle, "user", "fp32")).run(None, given)[0]
    assert actual[[0, 2]].tolist() == np.zeros((2, student.tower.size)).tolist()
    assert np.abs(actual[1]).max() > 0.1


def test_the_longest_history_is_the_manifests(bundle: Bundle, student: Student) -> None:
    assert bundle.manifest.max_history == student.tower.max_history == 20


def test_the_text_tower_is_fused(bundle: Bundle, student: Student) -> None:
    counts = Counter((node.domain, node.op_type) for node in onnx.load(onnx_of(bundle, "text", "fp32")).graph.node)
    layers = student.text.encoder.backbone.config.num_hidden_layers
    assert counts["com.microsoft", "Attention"] == layers == 1
    assert counts["com.microsoft", "SkipLayerNormalization"] == 2 * layers
    assert counts["com.microsoft", "BiasGelu"] == layers
    assert counts["", "Softmax"] == 0


@pytest.mark.parametrize("graph", ["text", "user", "scorer"])
def test_fp16_takes_and_gives_fp32(bundle: Bundle, student: Student, graph: str) -> None:
    path = onnx_of(bundle, graph, "fp16")
    stored = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 2}
    assert onnx.TensorProto.FLOAT16 in stored
    assert onnx.TensorProto.FLOAT not in stored
    session, given = catalogues.cpu_session(path), inputs(student, graph, 4, 9)
    assert {entry.type for entry in [*session.get_inputs(), *session.get_outputs()]} <= {
        "tensor(float)",
        "tensor(int64)",
    }
    actual = session.run(None, given)[0]
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, torch_output(student, graph, given), atol=0.02, rtol=0.02)


def test_the_int8_text_tower_points_the_same_way(bundle: Bundle, student: Student, words: list[str]) -> None:
    path = onnx_of(bundle, "text", "int8")
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    whole, small = (text_vectors(bundle, precision, student, words) for precision in ("fp32", "int8"))
    cosine_I = (whole * small).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(small, axis=1)
    assert cosine_I.min() > 0.98
    assert cosine_I.min() < 1 - 1e-7  # it is a different graph
    assert path.stat().st_size < onnx_of(bundle, "text", "fp32").stat().st_size


def test_the_item_vectors_are_each_precisions_own(bundle: Bundle, student: Student, words: list[str]) -> None:
    with torch.no_grad():
        ids_BW, mask_BW = (torch.from_numpy(part) for part in student.tokenizer(words))
        expected = student.text(ids_BW, mask_BW).numpy() + student.non_text_ID
    for precision in PRECISIONS:
        actual = np.load(bundle.folder / bundle.manifest.precisions[precision].item_vectors)
        beside_ID = student.non_text_ID
        np.testing.assert_allclose(actual, text_vectors(bundle, precision, student, words) + beside_ID, atol=1e-5)
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE if precision == "fp32" else 0.02)


# Parity -------------------------------------------------------------------------------------------


def test_parity_is_recorded_for_every_graph_and_precision(bundle: Bundle) -> None:
    entries = {(each.graph, each.precision): each for each in bundle.manifest.parity}
    assert entries.keys() == {(graph, precision) for graph in GRAPHS for precision in PRECISIONS}
    assert len(bundle.manifest.parity) == len(entries)
    for (graph, precision), each in entries.items():
        assert each.samples >= 32
        assert each.max_abs_difference < (TOLERANCE if precision == "fp32" else 0.05)
        assert (each.min_cosine is None) == (graph == "scorer")
        assert each.min_cosine is None or each.min_cosine > 0.98
    assert entries["text", "int8"].max_abs_difference > entries["text", "fp32"].max_abs_difference


@pytest.mark.parametrize("part", GRAPHS)
def test_a_graph_that_differs_is_refused(bundle: Bundle, smoke: SmokeRun, words: list[str], part: str) -> None:
    """A weight of the graph changes between export and comparison."""
    other = Student.load(smoke.artifact("distill", "student"))

    def differences() -> list[Any]:
        return parity.measure(other, bundle.folder, {"fp32": bundle.manifest.precisions["fp32"]}, words, samples=32)

    parity.check_parity(differences(), limit=1e-3)
    weight = {
        "text": other.text.project.weight, "side": other.side.weight, "user": other.tower.norm.weight,
        "scorer": other.scorer.wide.weight,
    }[part]  # fmt: skip
    weight.data.view(-1)[0] += 0.05
    with pytest.raises(IntegrityError, match=f"exported {part} graph does not compute") as caught:
        parity.check_parity(differences(), limit=1e-3)
    assert "export.fuse=false" in caught.value.hint


def test_a_difference_that_is_no_number_is_refused(bundle: Bundle) -> None:
    broken = bundle.manifest.parity[0].model_copy(update={"max_abs_difference": float("nan")})
    with pytest.raises(IntegrityError):
        parity.check_parity([broken], limit=1e-3)


@pytest.fixture(scope="module")
def refused_export(
    features: Path, smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, IntegrityError]:
    """The same student exported again to another folder, with a limit that no graph meets."""
    folder = tmp_path_factory.mktemp("again") / "somewhere" / "bundle"
    config = ExportConfig(recipe="smoke", parity_samples=32, max_difference=1e-12)
    with pytest.raises(IntegrityError) as caught:
        export(features, smoke.artifact("distill", "student"), folder, config=config, progress=Progress())
    return folder, caught.value


@pytest.mark.integration
def test_the_step_refuses_what_parity_refuses(refused_export: tuple[Path, IntegrityError]) -> None:
    folder, error = refused_export
    assert "at most 1e-12" in error.expected
    with pytest.raises(UsageError, match="not a model bundle"):
        bundles.open_bundle(folder)


def test_the_same_student_gives_the_same_files_again(
    bundle: Bundle, refused_export: tuple[Path, IntegrityError]
) -> None:
    """The model id does not depend on the machine."""
    folder, _ = refused_export
    later = {"examples.jsonl"}  # written after the parity check
    assert len(bundle.manifest.files) - len(later) >= 9
    for name in bundle.manifest.files.keys() - later:
        assert (folder / name).read_bytes() == (bundle.folder / name).read_bytes(), name


def test_nothing_of_this_machine_is_in_a_bundle(bundle: Bundle) -> None:
    root = str(Path(__file__).parents[2]).encode()
    paths = [path for path in bundle.folder.rglob("*") if path.is_file()]
    assert {"text.onnx", "scorer.onnx", "manifest.json"} <= {path.name for path in paths}
    for path in paths:
        content = path.read_bytes()
        assert root not in content, path
        assert b"site-packages" not in content, path
        assert b"stack_trace" not in content, path


# The catalogue ----------------------------------------------------------------------------------------------------


def test_the_bundle_makes_the_same_catalogue_of_the_same_items(bundle: Bundle, features: Path, tmp_path: Path) -> None:
    """A refresh, without torch and the student, gives the revision of the export."""
    items = parquet.read_table(features / "items.parquet")
    built = catalogues.build(bundle, items, tmp_path / "catalogue")
    assert built.revision == bundle.revision
    assert built.embedded == len(items)
    assert catalogues.load_vectors(tmp_path / "catalogue", bundle.manifest.precisions).keys() == set(PRECISIONS)


# Serving -----------------------------------------------------------------------------------------------------------


def canaries(bundle: Bundle) -> Iterator[dict[str, Any]]:
    with (bundle.folder / "examples.jsonl").open() as stream:
        yield from map(json.loads, stream)


def test_canaries_have_a_logit_for_every_candidate(bundle: Bundle) -> None:
    listed = list(canaries(bundle))
    assert len(listed) == ExportConfig().canaries
    for each in listed:
        assert len(each["candidates"]) == len(each["logits"]) > 10
        assert not set(each["candidates"]) & set(each["frozen"]["seen"])


@pytest.fixture(scope="module")
def engines(bundle: Bundle) -> dict[str, BundleEngine]:
    return {p: BundleEngine.load(bundle, precision=p, provider="cpu", threads=1) for p in PRECISIONS}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("int8", 0.2), ("fp16", 0.05)])
def test_the_server_gives_the_canaries_logits(
    bundle: Bundle, engines: dict[str, BundleEngine], precision: str, tolerance: float
) -> None:
    engine = engines[precision]
    assert list(canaries(bundle))
    for each in canaries(bundle):
        state = FrozenState(**each["frozen"])
        asks = [EngineRequest("rank", state, candidates=each["candidates"]), EngineRequest("recommend", state)]
        prepared = [engine.prepare(ask) for ask in asks]
        ranked, recommended = (
            {item.item_id: item.logits["click"] for item in engine.finish(p, result).items}
            for p, result in zip(prepared, engine.run(prepared))
        )
        expected = dict(zip(each["candidates"], each["logits"]))
        assert ranked == pytest.approx(expected, abs=tolerance)
        if precision == "fp32":  # it draws the candidates of distillation
            assert recommended == pytest.approx(expected, abs=tolerance)


def test_a_student_with_a_shorter_history_is_served_as_trained(
    bundle: Bundle, student: Student, features: Path
) -> None:
    """The student reads three events of a longer history, in its features and in its tower."""
    short = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"max_history": 3}))
    engine = BundleEngine.load(short, precision="fp32", provider="cpu", threads=1)
    catalogue, _ = bundles.read_catalogue(short, "fp32")
    requests = list(snapshot_requests.read_snapshot_requests(features, "test"))[:10]
    assert min(len(request.state.history.item_ids) for request in requests) > 3
    drawer = CandidateDrawer(student.tower, catalogue, short.candidate_settings, short.manifest.features, {})
    table = drawer.draw(requests, progress=Progress())
    expected = scorer.logits(table, student.scorer, catalogue)
    for request, rows, logits_NH in zip(requests, table.rows, expected):
        prepared = engine.prepare(EngineRequest("recommend", request.state))
        result = engine.run([prepared])[0]
        assert result.rows_N.tolist() == rows.tolist()
        np.testing.assert_allclose(result.logits_NH, logits_NH, atol=1e-4)
