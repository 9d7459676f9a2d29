"""The language model that the teacher reads items with: read from a folder, or a tiny one made on the spot."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankline.errors import RanklineError, SourceError, UsageError
from rankline.io import digest
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer

if TYPE_CHECKING:
    import torch

    from components.finetune.distributed import DistributedContext
    from rankline.model.networks import TextEncoder

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Encoders made on the spot, random and with a vocabulary of the data's own: one for tests, and one to be trained for
# a language or a field that no encoder at hand has read.
FRESH: dict[str, dict[str, int]] = {
    "tiny": {"vocabulary": 2000, "hidden": 32, "layers": 1, "heads": 2, "positions": 64},
    "fresh": {"vocabulary": 20_000, "hidden": 128, "layers": 2, "heads": 4, "positions": 512},
}
ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json")
HUB_PREFIX = "hub:"
# what transformers may have saved instead, and how it is turned into what is read here
OTHER_FORMATS = {
    "model.safetensors.index.json": "save it in one file: "
    "`AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size='100GB')`",
    "pytorch_model.bin": "pickled weights can run code and are not read; where you trust them: "
    "`AutoModel.from_pretrained(folder).save_pretrained(folder)`",
    "pytorch_model*.bin": "pickled weights can run code and are not read; where you trust them: "
    "`AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size='100GB')`",
    "vocab.txt": "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` writes tokenizer.json",
    "sentencepiece.bpe.model": "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` writes tokenizer.json",
}


def encoder_digest(name: str) -> str:
    """What the encoder's files hold; empty for `tiny`, and for one that is not there (training will say so).

    One from afar is told by its sha256, which is a setting and asked for.
    """
    source = Path(name).expanduser()
    if name in FRESH or _is_remote(name) or not all((source / file).is_file() for file in ENCODER_FILES):
        return ""
    return digest.json_digest(digest.file_digests(source, ENCODER_FILES))


def prepare_encoder(
    name: str,
    folder: Path,
    *,
    words: Sequence[str],
    sha256: str | None,
    seed: int,
    revision: str | None = None,
    cache: Path | None = None,
    pooling: str = "mean",
) -> None:
    """Lay the encoder's three files into ``folder``; one from afar is fetched into ``cache`` first and kept there.

    Raises:
        SourceError: the encoder is not there, or is not the one its sha256 promises.
        UsageError: one from afar has no sha256.
    """
    folder.mkdir(parents=True)
    if name in FRESH:
        _create_random(folder, words=words, seed=seed, **FRESH[name])
    else:
        source = Path(name).expanduser()
        if _is_remote(name):
            source = _download(name, revision=revision, sha256=sha256, cache=cache or folder.parent / "fetched")
        _check_complete(source, where=str(source))
        found = digest.file_digest(source / "model.safetensors")
        if sha256 and found != sha256:
            raise SourceError(
                "the encoder's weights are not the expected ones",
                expected=f"sha256 {sha256}",
                found=f"sha256 {found}",
                where=str(source / "model.safetensors"),
                hint="fetch them again, or set finetune.encoder_sha256 to the weights you mean",
            )
        for file in ENCODER_FILES:
            shutil.copyfile(source / file, folder / file)
    if pooling != "mean":  # written where whoever reads the encoder finds it
        encoder_config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**encoder_config, "text_pooling": pooling}, indent=2))


def _check_complete(source: Path, *, where: str) -> None:
    missing = next((file for file in ENCODER_FILES if not (source / file).is_file()), None)
    if missing is None:
        return
    others = [pattern for pattern in OTHER_FORMATS if any(source.glob(pattern))]
    convert = OTHER_FORMATS[others[0]] if others else ""
    raise SourceError(
        "the encoder is not complete",
        expected=", ".join(ENCODER_FILES),
        found=f"no {missing}" + (f", but {', '.join(others)}" if others else ""),
        where=where,
        hint=convert or "run `rankline fetch minilm`, or set finetune.encoder to a Hugging Face folder",
    )


def _is_remote(name: str) -> bool:
    """Whether an encoder has to be fetched."""
    return "://" in name or name.startswith(HUB_PREFIX)


def _download(name: str, *, revision: str | None, sha256: str | None, cache: Path) -> Path:
    """The folder in ``cache`` that holds an encoder from afar, fetched if it is not there yet."""
    if not sha256:
        raise UsageError(
            "an encoder from afar has to be told by its digest",
            expected="finetune.encoder_sha256, for what lies behind a URL may change",
            found=name,
            hint="set it to what `sha256sum model.safetensors` says of the weights you mean",
        )
    target = cache / digest.json_digest([name, revision, sha256])[:16]
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache, prefix=".partial-"))
    try:
        (_from_hub if name.startswith(HUB_PREFIX) else _from_url)(name, revision, partial)
        _check_complete(partial, where=name)
        found = digest.file_digest(partial / "model.safetensors")
        if found != sha256:  # what is not the promised one is not kept
            raise SourceError(
                "the encoder's weights are not the expected ones",
                expected=f"sha256 {sha256}",
                found=f"sha256 {found}",
                where=name,
                hint="look at who changed them, or set finetune.encoder_sha256 to the weights you mean",
            )
        try:
            partial.rename(target)
        except OSError:  # another run was first
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _from_url(name: str, revision: str | None, folder: Path) -> None:
    """Copy an encoder's files from any place that fsspec reads (file, s3, gs, https…)."""
    import fsspec

    if revision:
        raise UsageError(
            "only an encoder of the hub has revisions",
            expected="finetune.encoder=hub:name with finetune.encoder_revision",
            found=f"{name} with revision {revision}",
            hint="write the revision into the URL, and leave finetune.encoder_revision out",
        )
    try:
        files, root = fsspec.core.url_to_fs(name)
        for file in ENCODER_FILES:
            try:
                files.get_file(f"{root.rstrip('/')}/{file}", str(folder / file))
            except FileNotFoundError:
                for pattern in OTHER_FORMATS:  # named, so that the message can say what is there instead
                    with contextlib.suppress(Exception):  # a web server has no list of its files
                        for found in files.glob(f"{root.rstrip('/')}/{pattern}"):
                            (folder / Path(found).name).touch()
                _check_complete(folder, where=name)
    except SourceError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise _unreachable_error(name, error) from error


def _from_hub(name: str, revision: str | None, folder: Path) -> None:
    """Copy an encoder's files from the model hub: `hub:name`, or `hub:name@revision`."""
    import huggingface_hub

    repository, _, inline_revision = name.removeprefix(HUB_PREFIX).partition("@")
    try:
        huggingface_hub.snapshot_download(
            repository,
            revision=revision or inline_revision or None,
            allow_patterns=list(ENCODER_FILES),
            local_dir=folder,
        )
    except Exception as error:  # no network, no such model, no permission: many types
        raise _unreachable_error(name, error) from error


def _unreachable_error(name: str, error: Exception) -> SourceError:
    return SourceError(
        "the encoder could not be fetched",
        expected=f"{', '.join(ENCODER_FILES)} at that place",
        found=f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}",
        where=name,
        hint="check the network, the address and the credentials, or set finetune.encoder to a folder",
    )


def _create_random(
    folder: Path,
    *,
    words: Sequence[str],
    seed: int,
    vocabulary: int,
    hidden: int,
    layers: int,
    heads: int,
    positions: int,
) -> None:
    """A random BERT that knows the data's own most frequent words, and spells the others."""
    import torch
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # accents stay: without its marks a word of Hindi, Thai or Japanese is another one
    normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in words for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    # counted here, for the library's own trainer orders equals differently in every process
    frequent_words = sorted(counts, key=lambda word: (-counts[word], word))[:vocabulary]
    entries = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *frequent_words]
    token_ids = {entry: row for row, entry in enumerate(dict.fromkeys(entries))}
    backend = Backend(models.WordPiece(token_ids, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.add_special_tokens(SPECIAL_TOKENS)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    backend.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
    )
    BertModel(config).save_pretrained(folder)


def load_tokenizer(folder: Path, *, source: str, max_tokens: int) -> Tokenizer:
    """The tokenizer that belongs to a prepared encoder.

    Raises:
        SourceError: ``tokenizer.json`` is not one.
    """
    try:
        return Tokenizer(folder / "tokenizer.json", max_tokens=max_tokens)
    except Exception as error:  # the library raises plain exceptions
        raise _unreadable_error(source, "tokenizer.json", error) from error


def load_encoder(folder: Path, *, source: str) -> TextEncoder:
    """The language model of a prepared encoder.

    Raises:
        SourceError: its files are damaged, or do not belong together.
    """
    from rankline.model.networks import TextEncoder

    try:
        return TextEncoder.read(folder)
    except Exception as error:  # whatever damaged weights or another model's config may do
        raise _unreadable_error(source, "config.json with model.safetensors", error) from error


def _unreadable_error(source: str, files: str, error: Exception) -> SourceError:
    return SourceError(
        "the encoder cannot be read",
        expected=f"{files} as transformers saves them",
        found=error.found
        if isinstance(error, RanklineError)
        else f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}",
        where=source,
        hint="fetch it again (`rankline fetch minilm`), or set finetune.encoder to another folder",
    )


def check_compatible(encoder: TextEncoder, tokenizer: Tokenizer, *, source: str, max_tokens: int) -> None:
    """Stop where texts would hold tokens, or have a length, that the encoder does not know.

    Raises:
        SourceError: the tokenizer belongs to another encoder.
        UsageError: ``max_tokens`` is more than the encoder reads.
    """
    embedding_rows = len(encoder.backbone.get_input_embeddings().weight)
    if tokenizer.vocabulary_size > embedding_rows:
        raise SourceError(
            "the encoder's tokenizer belongs to another encoder",
            expected=f"at most {embedding_rows} tokens",
            found=f"{tokenizer.vocabulary_size} tokens in tokenizer.json",
            where=source,
            hint="fetch both again from one place",
        )
    max_positions = getattr(encoder.backbone.config, "max_position_embeddings", max_tokens)
    if max_tokens > max_positions:
        raise UsageError(
            "the encoder cannot read texts that long",
            expected=f"finetune.max_tokens of at most {max_positions}",
            found=str(max_tokens),
            hint=f"set finetune.max_tokens={max_positions}, or take an encoder with more positions",
        )


def encode_all(
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    device: torch.device,
    progress: Progress,
    ranks: DistributedContext | None = None,
) -> torch.Tensor:
    """[I, T] the unit vector of every text, in the order given; several processes share the work."""
    from rankline.model import encode

    if ranks is None:
        return encode.encode_all(encoder, tokenizer, texts, device=device, progress=progress)
    out_IT = encode.encode_all(
        encoder, tokenizer, texts, device=device, progress=progress, rank=ranks.rank, world_size=ranks.world_size
    )
    ranks.sum([out_IT])
    return out_IT
