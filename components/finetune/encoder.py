"""The pretrained encoder: read from a folder, downloaded, or created at random for tests."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankline.errors import RanklineError, SourceError, UsageError
from rankline.io import digest
from rankline.io.files import first_line, publish_folder
from rankline.text import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

    from components.finetune.config import FinetuneConfig
    from rankline.model.networks import TextEncoder

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WEIGHTS_FILE = "model.safetensors"
ENCODER_FILES = ("config.json", WEIGHTS_FILE, "tokenizer.json")
HUB_PREFIX = "hub:"
_PICKLED = "pickled weights can run code and are not read; where you trust them: "
# files that transformers may have written instead, and how to convert them
OTHER_FORMATS = {
    "model.safetensors.index.json": "save it in one file: "
    "`AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size='100GB')`",
    "pytorch_model.bin": f"{_PICKLED}`AutoModel.from_pretrained(folder).save_pretrained(folder)`",
    "pytorch_model*.bin": f"{_PICKLED}"
    "`AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size='100GB')`",
    "vocab.txt": "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` writes tokenizer.json",
    "sentencepiece.bpe.model": "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` writes tokenizer.json",
}


# Sizes of random encoders with a vocabulary of the data: one for tests, and one to train for a language or a
# field that no pretrained encoder covers.
FRESH: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64},
    "fresh": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512},
}
VOCABULARY = {"tiny": 2000, "fresh": 20_000}


@dataclass(frozen=True)
class EncoderSource:
    """Which encoder to take, as the settings name it."""

    name: str
    revision: str | None = None
    sha256: str | None = None  # of its weights
    cache: Path | None = None  # where a downloaded one is kept
    pooling: str = "mean"

    @classmethod
    def of(cls, config: FinetuneConfig) -> EncoderSource:
        """The encoder that the settings name."""
        return cls(
            config.encoder, config.encoder_revision, config.encoder_sha256, Path(config.encoder_cache), config.pooling
        )

    @property
    def is_remote(self) -> bool:
        """Whether it has to be downloaded."""
        return "://" in self.name or self.name.startswith(HUB_PREFIX)

    @property
    def folder(self) -> Path:
        """The folder of one that is on this machine."""
        return Path(self.name).expanduser()


def encoder_digest(name: str) -> str:
    """The digest of an encoder's files; empty for a random or a missing one, and for one that is downloaded.

    The sha256 of a downloaded encoder is a setting.
    """
    source = EncoderSource(name)
    if name in FRESH or source.is_remote or not all((source.folder / file).is_file() for file in ENCODER_FILES):
        return ""
    return digest.json_digest(digest.file_digests(source.folder, ENCODER_FILES))


def prepare_encoder(source: EncoderSource, folder: Path, *, texts: Sequence[str], seed: int) -> None:
    """Write the three files of an encoder into ``folder``; a remote one is downloaded into its cache first.

    Args:
        texts: their words are the vocabulary of a random encoder.

    Raises:
        SourceError: the encoder is missing, or its sha256 is another one.
        UsageError: a remote encoder has no sha256.
    """
    folder.mkdir(parents=True)
    if source.name in FRESH:
        _create_random(folder, source.name, texts=texts, seed=seed)
    else:
        origin = _download(source, folder.parent / "fetched") if source.is_remote else source.folder
        _check_complete(origin, where=str(origin))
        _check_sha256(
            source,
            origin,
            where=str(origin / WEIGHTS_FILE),
            hint="download them again, or set finetune.encoder_sha256 to the weights you want",
        )
        for file in ENCODER_FILES:
            shutil.copyfile(origin / file, folder / file)
    if source.pooling != "mean":  # stored with the encoder, where every reader finds it
        encoder_config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**encoder_config, "text_pooling": source.pooling}, indent=2))


def _check_sha256(source: EncoderSource, folder: Path, *, where: str, hint: str) -> None:
    actual = digest.file_digest(folder / WEIGHTS_FILE)
    if source.sha256 and actual != source.sha256:
        raise SourceError(
            "the encoder's weights are not the expected ones",
            expected=f"sha256 {source.sha256}",
            found=f"sha256 {actual}",
            where=where,
            hint=hint,
        )


def _check_complete(folder: Path, *, where: str) -> None:
    missing = next((file for file in ENCODER_FILES if not (folder / file).is_file()), None)
    if missing is None:
        return
    others = [pattern for pattern in OTHER_FORMATS if any(folder.glob(pattern))]
    raise SourceError(
        "the encoder is not complete",
        expected=", ".join(ENCODER_FILES),
        found=f"no {missing}" + (f", but {', '.join(others)}" if others else ""),
        where=where,
        hint=OTHER_FORMATS[others[0]]
        if others
        else "run `rankline fetch minilm`, or set finetune.encoder to a Hugging Face folder",
    )


def _download(source: EncoderSource, default_cache: Path) -> Path:
    """The folder in the cache that holds a remote encoder, downloaded if it is not there yet."""
    if not source.sha256:
        raise UsageError(
            "a remote encoder needs the sha256 of its weights",
            expected="finetune.encoder_sha256, because the content of a URL may change",
            found=source.name,
            hint="set it to the output of `sha256sum model.safetensors` for the weights you want",
        )
    cache = source.cache or default_cache
    target = cache / digest.json_digest([source.name, source.revision, source.sha256])[:16]
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache, prefix=".partial-"))
    try:
        (_from_hub if source.name.startswith(HUB_PREFIX) else _from_url)(source.name, source.revision, partial)
        _check_complete(partial, where=source.name)
        _check_sha256(
            source,
            partial,
            where=source.name,
            hint="find out who changed them, or set finetune.encoder_sha256 to the weights you want",
        )
        publish_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _from_url(name: str, revision: str | None, folder: Path) -> None:
    """Copy an encoder's files from a place that fsspec reads (file, s3, gs, https…)."""
    import fsspec

    if revision:
        raise UsageError(
            "only an encoder of the Hugging Face hub has revisions",
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
                _touch_other_formats(files, root, folder)
                _check_complete(folder, where=name)
    except SourceError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise _unreachable_error(name, error) from error


def _touch_other_formats(files: Any, root: str, folder: Path) -> None:
    """Create the names of files in other formats, so that the message can name them."""
    for pattern in OTHER_FORMATS:
        with contextlib.suppress(Exception):  # a web server has no list of its files
            for path in files.glob(f"{root.rstrip('/')}/{pattern}"):
                (folder / Path(path).name).touch()


def _from_hub(name: str, revision: str | None, folder: Path) -> None:
    """Copy an encoder's files from the Hugging Face hub: `hub:name`, or `hub:name@revision`."""
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
        "the encoder could not be downloaded",
        expected=f"{', '.join(ENCODER_FILES)} at that address",
        found=f"{type(error).__name__}: {first_line(error)}",
        where=name,
        hint="check the network, the address and the credentials, or set finetune.encoder to a folder",
    )


def _create_random(folder: Path, name: str, *, texts: Sequence[str], seed: int) -> None:
    """Write a random BERT whose vocabulary is the most frequent words of the data, and the letters of the others."""
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    backend = _word_tokenizer(texts, VOCABULARY[name])
    backend.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    intermediate_size = 2 * FRESH[name]["hidden_size"]
    config = BertConfig(vocab_size=backend.get_vocab_size(), intermediate_size=intermediate_size, **FRESH[name])
    BertModel(config).save_pretrained(folder)


def _word_tokenizer(texts: Sequence[str], vocabulary: int) -> Backend:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers, processors

    # accents stay: without its marks a word of Hindi, Thai or Japanese is another word
    normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    # counted here because the library's trainer orders equally frequent words differently in every process
    frequent_words = sorted(counts, key=lambda word: (-counts[word], word))[:vocabulary]
    entries = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *frequent_words]
    token_ids = {entry: row for row, entry in enumerate(dict.fromkeys(entries))}
    backend = Backend(models.WordPiece(token_ids, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.add_special_tokens(SPECIAL_TOKENS)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend


def load_tokenizer(folder: Path, *, source: str, max_tokens: int) -> Tokenizer:
    """The tokenizer of a prepared encoder.

    Raises:
        SourceError: ``tokenizer.json`` cannot be read.
    """
    try:
        return Tokenizer(folder / "tokenizer.json", max_tokens=max_tokens)
    except Exception as error:  # the library raises plain exceptions
        raise _unreadable_error(source, "tokenizer.json", error) from error


def load_encoder(folder: Path, *, source: str) -> TextEncoder:
    """The language model of a prepared encoder.

    Raises:
        SourceError: its files are damaged, or do not fit together.
    """
    from rankline.model.networks import TextEncoder

    try:
        return TextEncoder.load(folder)
    except Exception as error:  # damaged weights or another model's config raise many types
        raise _unreadable_error(source, "config.json with model.safetensors", error) from error


def _unreadable_error(source: str, files: str, error: Exception) -> SourceError:
    return SourceError(
        "the encoder cannot be read",
        expected=f"{files} as transformers saves them",
        found=error.found if isinstance(error, RanklineError) else f"{type(error).__name__}: {first_line(error)}",
        where=source,
        hint="download it again (`rankline fetch minilm`), or set finetune.encoder to another folder",
    )


def check_compatible(encoder: TextEncoder, tokenizer: Tokenizer, *, source: str, max_tokens: int) -> None:
    """Check that the encoder knows every token and reads texts of the configured length.

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
            hint="download both again from one place",
        )
    max_positions = getattr(encoder.backbone.config, "max_position_embeddings", max_tokens)
    if max_tokens > max_positions:
        raise UsageError(
            "the encoder cannot read texts of this length",
            expected=f"finetune.max_tokens of at most {max_positions}",
            found=str(max_tokens),
            hint=f"set finetune.max_tokens={max_positions}, or choose an encoder with more positions",
        )
