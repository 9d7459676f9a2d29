"""A tiny bundle that can be served: three graphs, a catalogue, a manifest.

The graphs are simple enough to check by hand. The user tower is the rating-weighted mean of the history, the text
tower the mean of its tokens' vectors, the scorer one linear layer over (left . item, features).
Shapes: B requests, L history events, T tokens, C candidates, D vector size, F features, H heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as parquet
import scipy.sparse as sparse

from rankline.contracts import Manifest, Parity, Precision, TextSettings
from rankline.features import candidate_sources
from rankline.features.bm25 import Bm25
from rankline.features.profile import ProfileEncoder
from rankline.model import scoring
from rankline.model.bundle import CATALOGUE, PROFILE_FILE, Bundle, write_bundle_manifest
from rankline.model.catalogue_files import write_catalogue_manifest
from rankline.model.policy import POLICY_FILE, ServingPolicy
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event

HEADS = ["click", "like"]
CATEGORIES = ["Action", "Comedy", "Drama", "Horror", "Romance"]
WORDS = ["[PAD]", "[UNK]", "space", "love", "story", "ship", "night", "dream", "river", "house"]
SIZE = 8
MAX_HISTORY = 10


def item_id(row: int) -> str:
    """The id of the item in a row of the tiny catalogue."""
    return f"i{row}"


def titles(count: int) -> list[str]:
    """The titles of the tiny catalogue."""
    return [f"The {WORDS[2 + row % 8]} of {row}" for row in range(count)]


def make_bundle(
    folder: Path,
    *,
    items: int = 40,
    seed: int = 0,
    precisions: tuple[str, ...] = ("fp32",),
    queries: bool = False,
    policy: ServingPolicy = ServingPolicy(),  # noqa: B008 (a frozen value)
    withdrawn: tuple[int, ...] = (),
    profile: ProfileEncoder | None = None,
) -> Bundle:
    """Write a tiny bundle to ``folder``; another seed gives another model id.

    With ``queries`` it has a BM25 index, which dominates the scores; ``withdrawn`` rows are not available. With a
    ``profile`` each place of the declared fields adds the vector of the item in its row, tenfold.
    """
    rng = np.random.default_rng(seed)
    names = scoring.feature_names(queries=queries, service=(profile or ProfileEncoder(columns=[])).fields.service)
    folder.mkdir(parents=True, exist_ok=True)
    vectors_ID = rng.normal(size=(items, SIZE)).astype(np.float32)
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    _write_catalogue(folder / CATALOGUE, vectors_ID, rng, precisions, withdrawn)
    if queries:
        Bm25.from_texts(titles(items), stemmer="", k1=0.9, b=0.4).save(folder / CATALOGUE / "sources" / "bm25")
    (folder / POLICY_FILE).write_text(policy.model_dump_json())
    if profile is not None:
        (folder / PROFILE_FILE).write_text(profile.model_dump_json())
        inputs = len(profile.owners(SIZE))
        _save(folder / "profile.onnx", _profile_graph(10 * vectors_ID[:inputs]))
    _write_tokenizer(folder / "tokenizer.json")
    width = sum(len(part) for part in (names.user, names.item, names.cross, names.context, names.sources))
    weights_FH = rng.normal(scale=0.05, size=(width, len(HEADS))).astype(np.float32)
    # popular_behind_best or bm25_log dominates for an unknown user
    weights_FH[-1] = 20.0 if queries else 2.0
    files = {}
    for precision in precisions:
        middle = "" if precision == "fp32" else f".{precision}"
        files[precision] = Precision(
            text=f"text{middle}.onnx",
            user=f"user{middle}.onnx",
            profile="profile.onnx" if profile is not None else None,
            scorer=f"scorer{middle}.onnx",
            item_vectors=f"{CATALOGUE}/vectors.{precision}.npy",
        )
        _save(folder / f"text{middle}.onnx", _text_graph(rng.normal(size=(len(WORDS), SIZE)).astype(np.float32)))
        _save(folder / f"user{middle}.onnx", _user_graph())
        _save(folder / f"scorer{middle}.onnx", _scorer_graph(weights_FH))
    return write_bundle_manifest(
        folder,
        Manifest(
            recipe="tiny",
            heads=HEADS,
            features=names,
            text=TextSettings(max_tokens=16),
            vector_size=SIZE,
            max_history=MAX_HISTORY,
            covisit_decay=0.8,
            candidates_per_source=12,
            precisions=files,
            parity=[Parity(graph="scorer", precision="fp32", samples=1, max_abs_difference=0.0)],
            data_digest="0" * 64,
            code_digest="0" * 64,
            train_end="1998-01-01T00:00:00+00:00",
        ),
    )


def _write_catalogue(
    folder: Path,
    vectors_ID: npt.NDArray[np.float32],
    rng: np.random.Generator,
    precisions: tuple[str, ...],
    withdrawn: tuple[int, ...],
) -> None:
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    count = len(vectors_ID)
    categories = [[CATEGORIES[row % len(CATEGORIES)]] for row in range(count)]
    table = {
        "item_id": [item_id(row) for row in range(count)],
        "title": titles(count),
        "category": categories,
        "available": [row not in withdrawn for row in range(count)],
    }
    parquet.write_table(pa.table(table), folder / "items.parquet")
    for precision in precisions:
        stored = vectors_ID.astype(np.float16) if precision == "fp16" else vectors_ID
        np.save(folder / f"vectors.{precision}.npy", stored)
    histories = [rng.permutation(count)[:8].astype(np.int64) for _ in range(30)]
    covisit = candidate_sources.covisitation(histories, count, window=3, step_decay=0.5, max_neighbours=10)
    sparse.save_npz(folder / "sources" / "covisit.npz", covisit)
    np.save(folder / "sources" / "popularity.npy", candidate_sources.popularity(histories, count))


def _write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


def _save(path: Path, model: Any) -> None:
    import onnx

    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> Any:
    from onnx import helper, numpy_helper

    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _tensor(name: str, shape: list[str | int], *, whole: bool = False) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.INT64 if whole else TensorProto.FLOAT, shape)


def _user_graph() -> Any:
    """left = sum over the history of (1 + rating / 10) * item, divided by its length."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["ratings_BL"], ["ratings_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["ratings_f", "tenth"], ["scaled"]),
        helper.make_node("Add", ["scaled", "one"], ["weight_BL"]),
        helper.make_node("Unsqueeze", ["weight_BL", "last_axis"], ["weight_BL1"]),
        helper.make_node("Mul", ["items_BLD", "weight_BL1"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "length_axis"], ["summed"], keepdims=0),
        helper.make_node("Cast", ["lengths_B"], ["lengths_f"], to=TensorProto.FLOAT),
        helper.make_node("Max", ["lengths_f", "one"], ["at_least_one"]),
        helper.make_node("Unsqueeze", ["at_least_one", "length_axis"], ["lengths_B1"]),
        helper.make_node("Div", ["summed", "lengths_B1"], ["left_BD"]),
    ]
    return _model(
        nodes,
        [
            _tensor("items_BLD", ["B", "L", SIZE]),
            _tensor("ratings_BL", ["B", "L"], whole=True),
            _tensor("lengths_B", ["B"], whole=True),
        ],
        [_tensor("left_BD", ["B", SIZE])],
        {
            "tenth": np.float32(0.1),
            "one": np.float32(1.0),
            "last_axis": np.array([2], np.int64),
            "length_axis": np.array([1], np.int64),
        },
    )


def _text_graph(tokens_VD: npt.NDArray[np.float32]) -> Any:
    """vector = the mean of the vectors of a text's own tokens."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Gather", ["tokens_VD", "input_ids"], ["tokens_BTD"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask_f"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask_f", "last_axis"], ["mask_BT1"]),
        helper.make_node("Mul", ["tokens_BTD", "mask_BT1"], ["own"]),
        helper.make_node("ReduceSum", ["own", "length_axis"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask_BT1", "length_axis"], ["counted"], keepdims=0),
        helper.make_node("Max", ["counted", "one"], ["at_least_one"]),
        helper.make_node("Div", ["summed", "at_least_one"], ["vector"]),
    ]
    return _model(
        nodes,
        [_tensor("input_ids", ["B", "T"], whole=True), _tensor("attention_mask", ["B", "T"], whole=True)],
        [_tensor("vector", ["B", SIZE])],
        {
            "tokens_VD": tokens_VD,
            "one": np.float32(1.0),
            "last_axis": np.array([2], np.int64),
            "length_axis": np.array([1], np.int64),
        },
    )


def _profile_graph(weights_ND: npt.NDArray[np.float32]) -> Any:
    """left = the fields' places @ weights."""
    from onnx import helper

    nodes = [helper.make_node("MatMul", ["known_BN", "weights_ND"], ["left_BD"])]
    inputs = [_tensor("known_BN", ["B", len(weights_ND)])]
    return _model(nodes, inputs, [_tensor("left_BD", ["B", SIZE])], {"weights_ND": weights_ND})


def _scorer_graph(weights_FH: npt.NDArray[np.float32]) -> Any:
    """logits = features @ weights + (left . item) * (1, 0.5)."""
    from onnx import helper

    nodes = [
        helper.make_node("Unsqueeze", ["left_BD", "axis_1"], ["left_B1D"]),
        helper.make_node("Mul", ["left_B1D", "items_BCD"], ["product"]),
        helper.make_node("ReduceSum", ["product", "axis_2"], ["dot_BC1"], keepdims=1),
        helper.make_node("Mul", ["dot_BC1", "dot_weights"], ["dot_BCH"]),
        helper.make_node("MatMul", ["features_BCF", "weights_FH"], ["linear_BCH"]),
        helper.make_node("Add", ["dot_BCH", "linear_BCH"], ["logits_BCH"]),
    ]
    return _model(
        nodes,
        [
            _tensor("left_BD", ["B", SIZE]),
            _tensor("items_BCD", ["B", "C", SIZE]),
            _tensor("features_BCF", ["B", "C", len(weights_FH)]),
        ],
        [_tensor("logits_BCH", ["B", "C", len(HEADS)])],
        {
            "weights_FH": weights_FH,
            "dot_weights": np.array([1.0, 0.5], np.float32),
            "axis_1": np.array([1], np.int64),
            "axis_2": np.array([2], np.int64),
        },
    )


def make_catalogue(bundle: Bundle, folder: Path, *, items: int = 44, seed: int = 7) -> Path:
    """Write a later catalogue for a tiny bundle: the same items and some more, with other vectors."""
    rng = np.random.default_rng(seed)
    vectors_ID = rng.normal(size=(items, SIZE)).astype(np.float32)
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    _write_catalogue(folder, vectors_ID, rng, tuple(bundle.manifest.precisions), ())
    write_catalogue_manifest(folder)
    return folder


def publish_catalogue(repository: Path | str, bundle: Bundle, folder: Path) -> str:
    """Add a catalogue to a registry and publish it; return the revision."""
    models = ModelRegistry(repository)
    revision = models.add_catalogue(bundle.model_id, folder)
    models.publish(bundle.model_id, revision, who="test", why="items of today")
    return revision


def flip_byte(path: Path) -> None:
    """Damage a file in its middle, keeping its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def publish(repository: Path | str, bundle: Bundle) -> None:
    """Add a bundle to a registry and make it the champion, as `promote` does."""
    models = ModelRegistry(repository)
    models.add(bundle.folder)
    models.append("registered", bundle.model_id, who="test", why="a candidate")
    models.append("promoted", bundle.model_id, who="test", why="it is the better one")


def publish_damaged(repository: Path, bundle: Bundle, file: str) -> None:
    """Promote a bundle with a file that changed after registration, as a failing disk would."""
    models = ModelRegistry(repository)
    models.add(bundle.folder)
    models.append("registered", bundle.model_id, who="test", why="a candidate")
    flip_byte(repository / "bundles" / bundle.model_id / file)
    n = len(models.history()) + 1
    event = Event(
        n=n,
        kind="promoted",
        model_id=bundle.model_id,
        at="2026-01-01T00:00:00+00:00",
        who="test",
        why="a test",
    )
    (repository / "events" / f"{n}.json").write_text(event.model_dump_json())
