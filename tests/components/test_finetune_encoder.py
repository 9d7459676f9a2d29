"""finetune: encoders from folders, URLs and the hub, of many model families."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.finetune import encoder as encoders
from components.finetune.encoder import EncoderSource
from rankline.errors import SourceError, UsageError
from rankline.io import digest
from rankline.runtime.progress import Progress
from rankline.train.encode import encode_all

CPU = torch.device("cpu")
WORDS = ["a red wooden chair", "a blue table", "lamp of brass", "green garden chair", "a table for the garden"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete encoder in a folder."""
    folder = tmp_path_factory.mktemp("encoder") / "source"
    encoders.prepare_encoder(EncoderSource("tiny"), folder, texts=WORDS, seed=0)
    return folder


def sha256_of(source: Path) -> str:
    return digest.file_digest(source / "model.safetensors")


def prepare(name: str, folder: Path, **overrides: Any) -> Path:
    encoders.prepare_encoder(EncoderSource(name, **overrides), folder, texts=[], seed=0)
    return folder


class Counting(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and records the requests."""

    requested: list[str]

    def do_GET(self) -> None:
        """Record the request and answer."""
        self.fetched.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture
def web(source: Path) -> Iterator[tuple[str, list[str]]]:
    """The encoder on a real HTTP server: its URL, and the requested paths."""
    requested: list[str] = []
    handler = type("Handler", (Counting,), {"fetched": requested})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(source.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{source.name}", requested
    server.shutdown()
    server.server_close()


def test_an_encoder_behind_a_url_is_fetched_once_and_checked(
    web: tuple[str, list[str]], source: Path, tmp_path: Path
) -> None:
    url, requested = web
    for name in ("one", "two"):
        folder = prepare(url, tmp_path / name, sha256=sha256_of(source), cache=tmp_path / "cache")
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
            name: (source / name).read_bytes() for name in encoders.ENCODER_FILES
        }
    assert len([path for path in requested if path.endswith("model.safetensors")]) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_file_url_is_one_too(source: Path, tmp_path: Path) -> None:
    prepare(f"file://{source}", tmp_path / "x", sha256=sha256_of(source), cache=tmp_path / "cache")
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_a_download_with_another_digest_is_deleted(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"not the expected ones(.|\n)*sha256 0000"):
        prepare(f"file://{source}", tmp_path / "x", sha256="0" * 64, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_encoder_in_the_cache_is_detected(source: Path, tmp_path: Path) -> None:
    options = {"sha256": sha256_of(source), "cache": tmp_path / "cache"}
    prepare(f"file://{source}", tmp_path / "x", **options)
    (cached,) = (tmp_path / "cache").iterdir()
    (cached / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(SourceError, match="not the expected ones"):
        prepare(f"file://{source}", tmp_path / "y", **options)


def test_from_afar_only_by_digest(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"finetune\.encoder_sha256(.|\n)*sha256sum"):
        prepare(f"file://{source}", tmp_path / "x", cache=tmp_path / "cache")


def test_an_encoder_that_cannot_be_downloaded_is_refused(tmp_path: Path) -> None:
    for name in ("http://127.0.0.1:9/encoder", "nosuchprotocol://x/encoder"):
        with pytest.raises(SourceError, match=r"could not be downloaded(.|\n)*check the network") as caught:
            prepare(name, tmp_path / name.replace("/", "-"), sha256="0" * 64, cache=tmp_path / "cache")
        assert caught.value.where == name


def test_the_hub_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="could not be downloaded") as caught:
        prepare("hub:nobody/nothing@abc123", tmp_path / "x", sha256="0" * 64, cache=tmp_path / "cache")
    assert caught.value.where == "hub:nobody/nothing@abc123"


def test_a_revision_belongs_to_the_hub(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only an encoder of the Hugging Face hub has revisions"):
        prepare(f"file://{source}", tmp_path / "x", sha256="0" * 64, revision="v1", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("there", "hint"),
    [
        ("model.safetensors.index.json", "in one file"),
        ("pytorch_model.bin", "pickled weights can run code"),
        ("pytorch_model-00001-of-00002.bin", "pickled weights can run code"),
    ],
)
@pytest.mark.parametrize("far", [False, True])
def test_other_formats_are_recognized(source: Path, tmp_path: Path, there: str, hint: str, far: bool) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    (folder / "model.safetensors").rename(folder / there)
    name = f"file://{folder}" if far else str(folder)
    with pytest.raises(SourceError, match=r"no model\.safetensors, but") as caught:
        prepare(name, tmp_path / "x", sha256="0" * 64, cache=tmp_path / "cache")
    assert hint in caught.value.hint


def test_a_slow_tokenizer_comes_with_the_command_that_converts_it(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    (folder / "tokenizer.json").rename(folder / "vocab.txt")
    with pytest.raises(SourceError, match=r"no tokenizer\.json, but vocab\.txt") as caught:
        prepare(str(folder), tmp_path / "x")
    assert "AutoTokenizer" in caught.value.hint


# Families and pooling ---------------------------------------------------------------------------------------------

SIZES = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "BertConfig": {**SIZES, "intermediate_size": 64, "max_position_embeddings": 40},
    "RobertaConfig": {**SIZES, "intermediate_size": 64, "max_position_embeddings": 40, "pad_token_id": 0},
    "XLMRobertaConfig": {**SIZES, "intermediate_size": 64, "max_position_embeddings": 40, "pad_token_id": 0},
    "DistilBertConfig": {
        "vocab_size": 200, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 40,
    },
    "ElectraConfig": {**SIZES, "embedding_size": 32, "intermediate_size": 64, "max_position_embeddings": 40},
    "ModernBertConfig": {
        **SIZES, "intermediate_size": 64, "max_position_embeddings": 40, "pad_token_id": 0, "cls_token_id": 2,
        "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "global_attn_every_n_layers": 1,
    },
}  # fmt: skip


def family(name: str, folder: Path, source: Path) -> Path:
    """A random encoder of a model family, with the tokenizer of the tiny one."""
    import transformers

    torch.manual_seed(0)
    transformers.AutoModel.from_config(getattr(transformers, name)(**FAMILIES[name])).save_pretrained(folder)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    return folder


def encode(folder: Path) -> np.ndarray:
    tokenizer = encoders.load_tokenizer(folder, source="", max_tokens=16)
    reader = encoders.load_encoder(folder, source="")
    return encode_all(reader, tokenizer, WORDS, device=CPU, progress=Progress()).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_encoders_of_many_families_are_read(name: str, source: Path, tmp_path: Path) -> None:
    vectors_IT = encode(prepare(str(family(name, tmp_path / "it", source)), tmp_path / "x"))
    np.testing.assert_allclose(np.linalg.norm(vectors_IT, axis=1), 1, atol=1e-5)
    assert np.unique(vectors_IT.round(4), axis=0).shape[0] == len(WORDS)


def test_pooling_by_the_first_token_is_another_vector(source: Path, tmp_path: Path) -> None:
    mean, first = (prepare(str(source), tmp_path / name, pooling=name) for name in ("mean", "cls"))
    assert (mean / "config.json").read_bytes() == (source / "config.json").read_bytes()
    assert json.loads((first / "config.json").read_text())["text_pooling"] == "cls"
    tokenizer, reader = (
        encoders.load_tokenizer(first, source="", max_tokens=16),
        encoders.load_encoder(first, source=""),
    )
    ids, mask = (torch.from_numpy(part) for part in tokenizer(WORDS))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(reader.eval().token_vectors(ids, mask)[:, 0], dim=-1).numpy()
    np.testing.assert_allclose(encode(first), expected, atol=1e-6)
    assert np.abs(encode(mean) - encode(first)).max() > 0.01


def test_pooling_outlives_saving(source: Path, tmp_path: Path) -> None:
    """Training saves the encoder with transformers, which keeps the pooling."""
    folder = prepare(str(source), tmp_path / "x", pooling="cls")
    encoders.load_encoder(folder, source="").backbone.save_pretrained(tmp_path / "saved")
    assert encoders.load_encoder(tmp_path / "saved", source="").pooling == "cls"
