"""From torch modules to ONNX graphs: export, fusion, int8 and fp16."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from components.export.student import Student


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """The exporter talks a lot; what it says matters only if it fails, and then it raises."""
    previous_level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous_level)


def _export(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    *,
    inputs: list[str],
    output: str,
    dynamic: tuple[dict[int, Any], ...],
    opset: int,
) -> Any:
    with _silence_exporter():
        program = torch.onnx.export(
            module,
            example,
            input_names=inputs,
            output_names=[output],
            dynamic_shapes=dynamic,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        _strip_metadata(program.model)
        program.save(path)
    return program


def _strip_metadata(model: Any) -> None:
    """Without the exporter's notes: stack traces with this machine's paths would make the model id depend on them."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)


def write_text(student: Student, path: Path, *, opset: int, fuse: bool) -> None:
    """text.onnx: input_ids, attention_mask [B, W] -> vector [B, D]; any batch, any length."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    program = _export(
        student.text,
        example,
        path,
        inputs=["input_ids", "attention_mask"],
        output="vector",
        dynamic=({0: batch, 1: length}, {0: batch, 1: length}),
        opset=opset,
    )
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
    size = student.tower.size
    example = (torch.randn(2, 5, size), torch.zeros(2, 5, dtype=torch.long), torch.tensor([5, 3]))
    _export(
        student.tower,
        example,
        path,
        inputs=["items_BLD", "ratings_BL", "lengths_B"],
        output="left_BD",
        dynamic=({0: batch, 1: length}, {0: batch, 1: length}, {0: batch}),
        opset=opset,
    )


def write_side(student: Student, path: Path, *, opset: int) -> None:
    """side.onnx: side_IS -> beside_ID, what side information adds to an item's words; any number of items."""
    example = (torch.randn(3, student.side.in_features),)
    batch = torch.export.Dim("items")
    _export(student.side, example, path, inputs=["side_IS"], output="beside_ID", dynamic=({0: batch},), opset=opset)


def write_scorer(student: Student, path: Path, *, opset: int) -> None:
    """scorer.onnx: left_BD, items_BCD, features_BCF -> logits_BCH; any batch, any number of candidates."""
    batch, count = torch.export.Dim("batch"), torch.export.Dim("candidates")
    size, features = student.tower.size, len(student.scorer.standardize.mean_F)
    example = (torch.randn(2, size), torch.randn(2, 7, size), torch.randn(2, 7, features))
    _export(
        student.scorer,
        example,
        path,
        inputs=["left_BD", "items_BCD", "features_BCF"],
        output="logits_BCH",
        dynamic=({0: batch}, {0: batch, 1: count}, {0: batch, 1: count}),
        opset=opset,
    )


def write_int8(source: Path, target: Path) -> None:
    """An int8 copy: weights quantized once, activations as they come (dynamic)."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    del model.graph.value_info[:]  # fusion leaves shapes of nodes that are gone; they are inferred anew
    with _silence_exporter():
        quantize_dynamic(
            model,
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # fused nodes have no known type
        )


def write_fp16(source: Path, target: Path) -> None:
    """An fp16 copy that still takes and gives fp32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _silence_exporter():
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)
