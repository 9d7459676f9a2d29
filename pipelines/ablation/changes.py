"""Changes of a cell that are no settings: items with the words of others, an encoder with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rankline.io.artifacts import DIGESTS_FILE, link_or_copy, write_digests

ITEMS = "items.parquet"
WORDS = ("title", "text")


def shuffle_words(features: Path, shuffled: Path, *, seed: int) -> Path:
    """A features artifact in which each item has the title and text of another one; all else is as it was."""
    import pyarrow.parquet as parquet

    shutil.rmtree(shuffled, ignore_errors=True)
    link_or_copy(features, shuffled)
    for name in (ITEMS, DIGESTS_FILE):
        (shuffled / name).unlink(missing_ok=True)  # a hard link: the original is not written to
    items = parquet.read_table(features / ITEMS)
    order = np.random.default_rng(seed).permutation(len(items))
    for name in set(WORDS) & set(items.column_names):
        items = items.set_column(items.column_names.index(name), name, items[name].take(order))
    parquet.write_table(items, shuffled / ITEMS, compression="zstd")
    write_digests(shuffled)
    return shuffled


def randomize_weights(encoder: Path, folder: Path, *, seed: int) -> Path:
    """A copy of an encoder with random weights and the same tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    encoder_class: Any = AutoModel  # its from_config is not typed
    encoder_class.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(folder)
    shutil.copyfile(encoder / "tokenizer.json", folder / "tokenizer.json")
    original, written = (json.loads((each / "config.json").read_text()) for each in (encoder, folder))
    if "text_pooling" in original:
        (folder / "config.json").write_text(json.dumps({**written, "text_pooling": original["text_pooling"]}))
    return folder
