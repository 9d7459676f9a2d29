"""The language model that the teacher reads items with: read from a folder, or a tiny one made on the spot."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankline import digest
from rankline.errors import RanklineError, SourceError, UsageError
from rankline.progress import Progress
from rankline.text import Tokenizer, batches

if TYPE_CHECKING:
    import torch

    from rankline.model import TextEncoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TINY_WORDS = 2000
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def digest_of(name: str) -> str:
    """What the encoder's files hold; empty for `tiny`, and for one that is not there (training will say so)."""
    source = Path(name).expanduser()
    if name == "tiny" or not all((source / file).is_file() for file in FILES):
        return ""
    return digest.of_value(digest.of_files(source, FILES))


def prepare(name: str, folder: Path, *, words: Sequence[str], sha256: str | None, seed: int) -> None:
    """Lay the encoder's three files into ``folder``.

    Raises:
        SourceError: the encoder is not there, or is not the one its sha256 promises.
    """
    folder.mkdir(parents=True)
    if name == "tiny":
        _make_tiny(folder, words=words, seed=seed)
        return
    source = Path(name).expanduser()
    for file in FILES:
        if not (source / file).is_file():
            raise SourceError(
                "the encoder is not complete",
                expected=", ".join(FILES),
                found=f"no {file}",
                where=str(source),
                hint="run `rankline fetch minilm`, or set finetune.encoder to a Hugging Face folder",
            )
    found = digest.of_file(source / "model.safetensors")
    if sha256 and found != sha256:
        raise SourceError(
            "the encoder's weights are not the expected ones",
            expected=f"sha256 {sha256}",
            found=f"sha256 {found}",
            where=str(source / "model.safetensors"),
            hint="fetch them again, or set finetune.encoder_sha256 to the weights you mean",
        )
    for file in FILES:
        shutil.copyfile(source / file, folder / file)


def _make_tiny(folder: Path, *, words: Sequence[str], seed: int) -> None:
    """A random BERT of one layer that knows the catalogue's own words, and spells the others."""
    import torch
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in words for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    # counted here, for the library's own trainer orders equals differently in every process
    known = sorted(counts, key=lambda word: (-counts[word], word))[:TINY_WORDS]
    entries = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *known]
    vocabulary = {entry: row for row, entry in enumerate(dict.fromkeys(entries))}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.add_special_tokens(SPECIAL)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)


def tokenizer_of(folder: Path, *, source: str, max_tokens: int) -> Tokenizer:
    """The tokenizer that belongs to a prepared encoder.

    Raises:
        SourceError: ``tokenizer.json`` is not one.
    """
    try:
        return Tokenizer(folder / "tokenizer.json", max_tokens=max_tokens)
    except Exception as error:  # the library raises plain exceptions
        raise _unreadable(source, "tokenizer.json", error) from error


def read(folder: Path, *, source: str) -> TextEncoder:
    """The language model of a prepared encoder.

    Raises:
        SourceError: its files are damaged, or do not belong together.
    """
    from rankline.model import TextEncoder

    try:
        return TextEncoder.read(folder)
    except Exception as error:  # whatever damaged weights or another model's config may do
        raise _unreadable(source, "config.json with model.safetensors", error) from error


def _unreadable(source: str, files: str, error: Exception) -> SourceError:
    return SourceError(
        "the encoder cannot be read",
        expected=f"{files} as transformers saves them",
        found=error.found
        if isinstance(error, RanklineError)
        else f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}",
        where=source,
        hint="fetch it again (`rankline fetch minilm`), or set finetune.encoder to another folder",
    )


def refuse_if_unfit(reader: TextEncoder, tokenizer: Tokenizer, *, source: str, max_tokens: int) -> None:
    """Stop where texts would hold tokens, or have a length, that the encoder does not know.

    Raises:
        SourceError: the tokenizer belongs to another encoder.
        UsageError: ``max_tokens`` is more than the encoder reads.
    """
    words = len(reader.backbone.get_input_embeddings().weight)
    if tokenizer.vocabulary_size > words:
        raise SourceError(
            "the encoder's tokenizer belongs to another encoder",
            expected=f"at most {words} tokens",
            found=f"{tokenizer.vocabulary_size} tokens in tokenizer.json",
            where=source,
            hint="fetch both again from one place",
        )
    most = getattr(reader.backbone.config, "max_position_embeddings", max_tokens)
    if max_tokens > most:
        raise UsageError(
            "the encoder cannot read texts that long",
            expected=f"finetune.max_tokens of at most {most}",
            found=str(max_tokens),
            hint=f"set finetune.max_tokens={most}, or take an encoder with more positions",
        )


def encode_all(
    reader: TextEncoder,
    tokenizer: Tokenizer,
    words: Sequence[str],
    *,
    device: torch.device,
    progress: Progress,
    batch_size: int = 64,
) -> torch.Tensor:
    """[I, T] the unit vector of every text, in the order given; texts of like length share a batch."""
    import torch

    out_IT = torch.zeros(len(words), reader.size, device=device)
    reader.eval()
    done = 0
    with torch.no_grad():
        for rows in batches(words, batch_size):
            ids_BW, mask_BW = (torch.from_numpy(part).to(device) for part in tokenizer([words[r] for r in rows]))
            out_IT[torch.tensor(rows, device=device)] = reader(ids_BW, mask_BW)
            done += len(rows)
            progress.update(done, len(words))
    return out_IT
