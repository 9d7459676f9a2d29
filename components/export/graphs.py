"""From torch modules to ONNX graphs: export, fusion, int8 and fp16.

Shapes: B requests or texts, L history events, C candidates, I items, W tokens, D vector size, F features, H heads,
S side size.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components.export.config import ExportConfig
from components.export.student import Student
from rankline.contracts import Precision
from rankline.model.profile_network import ProfileNetwork
from rankline.runtime.progress import Progress


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Silence the exporter's output: if it fails, it raises."""
    previous_level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous_level)


@dataclass(frozen=True)
class Signature:
    """The inputs and the output of a graph, with an example and the dynamic dimensions of each input."""

    example: tuple[torch.Tensor, ...]
    inputs: list[str]
    output: str
    dynamic: tuple[dict[int, Any], ...]


def _export(module: torch.nn.Module, signature: Signature, path: Path, *, opset: int) -> Any:
    with _silence_exporter():
        program = torch.onnx.export(
            module,
            signature.example,
            input_names=signature.inputs,
            output_names=[signature.output],
            dynamic_shapes=signature.dynamic,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        assert program is not None  # as dynamo=True promises
        _strip_metadata(program.model)
        program.save(path)
    return program


def _strip_metadata(model: Any) -> None:
    """Remove the exporter's notes: with their paths of this machine the model id would depend on it."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)


def write_graphs(student: Student, bundle: Path, config: ExportConfig, *, progress: Progress) -> dict[str, Precision]:
    """Write every graph in every precision; the files of each precision."""
    towers = ["text", *(["user"] if student.settings["users"] else []), "scorer"]
    if student.profile is not None:
        towers.append("profile")
        write_profile(student.profile, bundle / "profile.onnx", opset=config.opset)
    fp32 = {name: f"{name}.onnx" for name in (*towers, "side")}
    vectors = {name: f"catalogue/vectors.{name}.npy" for name in ("fp32", "int8", "fp16")}
    stages = 3 + config.int8 + config.fp16
    write_text(student, bundle / "text.onnx", opset=config.opset, fuse=config.fuse)
    write_side(student, bundle / "side.onnx", opset=config.opset)
    progress.update(1, stages)
    if "user" in towers:
        write_user(student, bundle / "user.onnx", opset=config.opset)
    progress.update(2, stages)
    write_scorer(student, bundle / "scorer.onnx", opset=config.opset)
    progress.update(3, stages)
    precisions = {"fp32": Precision(**fp32, item_vectors=vectors["fp32"])}
    if config.int8:
        write_int8(bundle / "text.onnx", bundle / "text.int8.onnx")
        int8 = {"text": "text.int8.onnx", "item_vectors": vectors["int8"]}
        precisions["int8"] = precisions["fp32"].model_copy(update=int8)
        progress.update(4, stages)
    if config.fp16:
        for name in towers:
            write_fp16(bundle / f"{name}.onnx", bundle / f"{name}.fp16.onnx")
        halved = {name: f"{name}.fp16.onnx" for name in towers}
        precisions["fp16"] = Precision(**{**fp32, **halved}, item_vectors=vectors["fp16"])
        progress.update(stages, stages)
    return precisions


def write_text(student: Student, path: Path, *, opset: int, fuse: bool) -> None:
    """text.onnx: input_ids, attention_mask [B, W] -> vector [B, D]; any batch, any length."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    signature = Signature(
        (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)),
        inputs=["input_ids", "attention_mask"],
        output="vector",
        dynamic=({0: batch, 1: length}, {0: batch, 1: length}),
    )
    program = _export(student.text, signature, path, opset=opset)
    if fuse:
        import onnx_ir
        from onnxscript.rewriter.ort_fusions import optimize_for_ort

        with _silence_exporter():
            fused = optimize_for_ort(program.model)
            model = fused[0] if isinstance(fused, tuple) else fused
            _strip_metadata(model)
            onnx_ir.save(model, path)


def write_user(student: Student, path: Path, *, opset: int) -> None:
    """user.onnx: items_BLD, ratings_BL, lengths_B -> left_BD; any batch, any length up to the tower's."""
    batch = torch.export.Dim("batch")
    length = torch.export.Dim("history", min=1, max=student.tower.max_history)
    signature = Signature(
        (torch.randn(2, 5, student.tower.size), torch.zeros(2, 5, dtype=torch.long), torch.tensor([5, 3])),
        inputs=["items_BLD", "ratings_BL", "lengths_B"],
        output="left_BD",
        dynamic=({0: batch, 1: length}, {0: batch, 1: length}, {0: batch}),
    )
    _export(student.tower, signature, path, opset=opset)


def write_side(student: Student, path: Path, *, opset: int) -> None:
    """side.onnx: side_IS -> beside_ID, what side features add to an item's vector; any number of items."""
    signature = Signature(
        (torch.randn(3, student.side.in_features),),
        inputs=["side_IS"],
        output="beside_ID",
        dynamic=({0: torch.export.Dim("items")},),
    )
    _export(student.side, signature, path, opset=opset)


def write_profile(network: ProfileNetwork, path: Path, *, opset: int) -> None:
    """profile.onnx: known_BN -> left_BD, what declared fields add to a request's vector; any batch."""
    signature = Signature(
        (torch.randn(2, network.enter.in_features),),
        inputs=["known_BN"],
        output="left_BD",
        dynamic=({0: torch.export.Dim("batch")},),
    )
    _export(network, signature, path, opset=opset)


def write_scorer(student: Student, path: Path, *, opset: int) -> None:
    """scorer.onnx: left_BD, items_BCD, features_BCF -> logits_BCH; any batch, any number of candidates."""
    batch, count = torch.export.Dim("batch"), torch.export.Dim("candidates")
    size, features = student.tower.size, len(student.scorer.standardize.mean_F)
    signature = Signature(
        (torch.randn(2, size), torch.randn(2, 7, size), torch.randn(2, 7, features)),
        inputs=["left_BD", "items_BCD", "features_BCF"],
        output="logits_BCH",
        dynamic=({0: batch}, {0: batch, 1: count}, {0: batch, 1: count}),
    )
    _export(student.scorer, signature, path, opset=opset)


def write_int8(source: Path, target: Path) -> None:
    """Write an int8 copy: static weights, dynamically quantized activations."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    del model.graph.value_info[:]  # fusion leaves shapes of removed nodes; they are inferred again
    with _silence_exporter():
        quantize_dynamic(
            model,
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # fused nodes have no type
        )


def write_fp16(source: Path, target: Path) -> None:
    """Write an fp16 copy with fp32 inputs and outputs."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _silence_exporter():
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)
