"""Start from the champion's weights: its encoder and its networks, with items matched by their ids.

Users are their histories and have no weights of their own. Where the weights do not fit (other sizes, another
encoder, a champion that has seen the test data) training starts from scratch and the result says why.

Shapes: I items, D vector size, S side size, F features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.finetune import encoder as encoders
from components.finetune.config import FinetuneConfig
from rankline.contracts import ITEMS
from rankline.features import transforms
from rankline.train.champion_weights import ORIGIN, WarmStart

if TYPE_CHECKING:
    from torch import Tensor

    from rankline.model.networks import CrossEncoder, Teacher
    from rankline.train.examples import Examples

SIZES = ("vector_size", "max_history", "layers", "heads")
DATA_BUFFERS = ("fusion.known_I",)  # belong to the data and never come from another model
FIELDS = "profile.enter.weight"  # its columns belong to the inputs of declared fields


@dataclass(frozen=True)
class WarmWeights:
    """The weights of a start that fit; without a folder there are none, and ``why`` gives the reason."""

    model_id: str
    why: str
    folder: Path | None = None
    own_encoder: bool = False  # the weights include the encoder
    rows: Mapping[str, int] | None = None  # item id -> its row in the weights
    side: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()  # of the network over declared fields

    def has_member(self, member: int) -> bool:
        """Whether there are weights for this one of several teachers."""
        return self._weights_path(member) is not None

    def _weights_path(self, member: int) -> Path | None:
        path = self.folder / f"weights{f'-{member}' if member else ''}.safetensors" if self.folder else None
        return path if path is not None and path.is_file() and self.rows is not None else None

    def matched_rows(self, data: Examples) -> list[tuple[int, int]]:
        """(row here, row in the weights) of every item that both have."""
        rows = self.rows or {}
        return [(row, rows[item]) for row, item in enumerate(data.item_ids) if item in rows]

    def load_weights(self, model: Teacher, data: Examples, *, member: int = 0) -> None:
        """Fill a fresh teacher with the weights."""
        import torch
        from safetensors.torch import load_file

        path = self._weights_path(member)
        if path is None:
            return
        current, source = model.state_dict(), load_file(path)
        merged = {
            name: value
            for name, value in source.items()
            if name in current and current[name].shape == value.shape and name not in DATA_BUFFERS
        }
        merged["fusion.own.weight"] = self._item_embeddings(current, source, data)
        merged["fusion.side.weight"] = self._side_weights(current, source, data)
        if FIELDS in current and FIELDS in source:
            merged[FIELDS] = self._field_weights(current, source, data)
        # the networks were fitted to features of that scale; a feature that was constant there has no scale
        scaled_F = source["standardize.scale_F"] > 0
        for name in ("standardize.mean_F", "standardize.scale_F"):
            merged[name] = torch.where(scaled_F, source[name], current[name])
        model.load_state_dict({**current, **merged})

    def _item_embeddings(self, current: dict[str, Tensor], source: dict[str, Tensor], data: Examples) -> Tensor:
        """[I, D] the embeddings of matched items; fresh ones for the others."""
        import torch

        name, matched = "fusion.own.weight", self.matched_rows(data)
        rows_N, source_rows_N = (torch.tensor([pair[k] for pair in matched], dtype=torch.long) for k in (0, 1))
        return current[name].index_copy(0, rows_N, source[name][source_rows_N].to(current[name]))

    def _side_weights(self, current: dict[str, Tensor], source: dict[str, Tensor], data: Examples) -> Tensor:
        """[D, S] the weights of side features, matched by their names."""
        columns = {name: column for column, name in enumerate(self.side)}
        side_DS = current["fusion.side.weight"].clone()
        for column, name in enumerate(side_names(data)):
            if name in columns:
                side_DS[:, column] = source["fusion.side.weight"][:, columns[name]]
        return side_DS

    def _field_weights(self, current: dict[str, Tensor], source: dict[str, Tensor], data: Examples) -> Tensor:
        """[H, N] the weights of the inputs of declared fields, matched by their names; fresh ones for new values."""
        assert data.profile is not None
        columns = {name: column for column, name in enumerate(self.inputs)}
        weights_HN = current[FIELDS].clone()
        for column, name in enumerate(data.profile.input_names(weights_HN.shape[1])):
            if name in columns:
                weights_HN[:, column] = source[FIELDS][:, columns[name]]
        return weights_HN

    def load_cross_encoder(self, model: CrossEncoder) -> bool:
        """Fill a fresh cross-encoder with the weights; whether they fit."""
        from safetensors.torch import load_file

        path = self.folder / "pairs.safetensors" if self.folder else None
        if path is None or not path.is_file():
            return False
        source = load_file(path)
        shapes, source_shapes = (
            {name: value.shape for name, value in weights.items()} for weights in (model.state_dict(), source)
        )
        if shapes != source_shapes:
            return False
        model.load_state_dict(source)
        return True


def open_weights(start: WarmStart | None, data: Examples, config: FinetuneConfig) -> WarmWeights:
    """The weights of a start that fit this data and these settings."""
    if start is None or not start.model_id:
        return WarmWeights("", start.why if start else "")
    import pyarrow.parquet as parquet

    folder = Path(start.folder)
    origin = json.loads((folder / ORIGIN).read_text())
    sizes = json.loads((folder / "teacher.json").read_text())
    if reason := _mismatch(origin, sizes, data, config):
        return WarmWeights("", f"the weights of model {start.model_id} do not fit: {reason}")
    ids = parquet.read_table(folder / "items.parquet")["item_id"].to_pylist()
    return WarmWeights(
        start.model_id,
        start.why,
        folder,
        own_encoder=origin["encoder"]["own"],
        rows={item: row for row, item in enumerate(ids)},
        side=tuple(origin["side"]),
        inputs=tuple(origin.get("inputs", ())),
    )


def _mismatch(origin: dict[str, Any], sizes: dict[str, Any], data: Examples, config: FinetuneConfig) -> str:
    """Why weights do not fit; empty where they do."""
    for name in SIZES:
        if sizes[name] != getattr(config, name):
            return f"{name} is {getattr(config, name)} here and {sizes[name]} there"
    for name, value in _encoder_metadata(config).items():
        if origin["encoder"][name] != value:
            return f"another encoder ({name}: {value or 'none'} here, {origin['encoder'][name] or 'none'} there)"
    for name, value in _data_metadata(data).items():
        if name == "features" and origin[name] != value:
            return "its features are different"
        if name == "split" and origin[name] != value:
            return "its data was split in another way"
        is_time = name in ("train_end", "data_end") and value and origin[name]
        if is_time and _timestamp(origin[name]) > _timestamp(value):
            return f"it was trained on later data ({origin[name]}, here {value}) and may know the test data"
    return ""


def origin_metadata(
    data: Examples, config: FinetuneConfig, warm: WarmWeights, start: WarmStart | None, *, text_size: int
) -> dict[str, Any]:
    """The content of origin.json: what a teacher was made of, and what it started from."""
    own = config.encoder in encoders.FRESH or config.train_encoder or bool(config.adapt_steps) or warm.own_encoder
    fields = {}
    if data.profile is not None:
        fields = {"inputs": data.profile.input_names(len(data.profile.owners(text_size)))}
    return {
        "encoder": {**_encoder_metadata(config), "own": own},
        "side": side_names(data),
        **fields,
        **_data_metadata(data),
        "offered": start.model_id if start else "",
        "began_from": warm.model_id,
    }


def side_names(data: Examples) -> list[str]:
    """[S] the name of each column of side features: the same column of other data has the same name."""
    names = [f"category={name}" for name in data.side.categories] + ["price"]
    names += [f"language={value}" for value in data.side.languages]
    for declared in data.side.declared:
        if declared.kind == "number":
            names.append(declared.name)
        elif declared.kind == "vector":
            names += [f"{declared.name}[{position}]" for position in range(declared.size)]
        else:
            names += [f"{declared.name}={value}" for value in declared.choices]
    return names


def write_items(path: Path, data: Examples) -> None:
    """Write the item ids in the order of their embeddings."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema([ITEMS.field("item_id")])
    parquet.write_table(pa.table({"item_id": data.item_ids}, schema=schema), path)


def _encoder_metadata(config: FinetuneConfig) -> dict[str, str]:
    source = encoders.encoder_digest(config.encoder) or config.encoder_sha256 or config.encoder
    return {"source": source, "pooling": config.pooling}


def _data_metadata(data: Examples) -> dict[str, Any]:
    summary = data.summary
    groups = (transforms.USER, transforms.ITEM, transforms.CROSS, transforms.CONTEXT)
    return {
        "data_digest": summary["data_digest"],
        "train_end": summary.get("train_end", ""),
        "data_end": summary.get("data_end", ""),
        "split": {
            name: value for name, value in summary.get("split", {}).items() if not isinstance(value, dict | list)
        },
        "features": [summary.get("service", ""), *(name for group in groups for name in group)],
    }


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
