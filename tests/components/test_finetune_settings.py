"""finetune: the effect of its settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.finetune import encoder as encoders
from components.finetune.encoder import EncoderSource, prepare_encoder
from components.finetune.language import adaptation
from components.finetune.language.masked_lm import MaskedLanguageModel
from components.finetune.sequence import augment
from components.finetune.sequence.inputs import StepSampler
from components.finetune.step import finetune
from rankline.errors import TooSmall, TrainingError
from rankline.runtime.progress import Progress
from rankline.train import examples
from rankline.train.encode import encode_all
from rankline.train.losses import ItemSampler, next_item_loss
from rankline.train.sampled_items import FusedItems
from tests.components.children import files
from tests.components.smoke_finetune import SMOKE, TRAINED_ENCODER, changed

STILL = {"dropout": 0.0, "own_dropout": 0.0}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(features: Path) -> examples.Examples:
    return examples.read_examples(features, max_history=SMOKE.max_history)


def train(features: Path, folder: Path, **overrides: Any) -> tuple[dict[str, Any], list[float]]:
    """What finetune returns, and its loss curve."""
    result = finetune(features, folder, config=changed(**overrides), progress=Progress())
    return result, [point["loss"] for point in json.loads((folder / "curve.json").read_text())]


# A step in parts --------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("overrides", [{}, TRAINED_ENCODER, {"sampled_items": 30}, {"mask_chance": 0.5}], ids=str)
def test_a_step_in_parts_is_the_same_step(features: Path, tmp_path: Path, overrides: dict[str, Any]) -> None:
    settings = {**STILL, **overrides, "precision": "fp32", "epochs": 2, "encoder_layer_decay": 0.9}
    _, whole = train(features, tmp_path / "whole", **settings)
    _, parts = train(features, tmp_path / "parts", **settings, accumulate=3)
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.integration
def test_more_parts_than_there_are_windows(features: Path, tmp_path: Path) -> None:
    settings = {**STILL, "epochs": 1, "batch_size": 3, "requests_per_step": 2}
    _, whole = train(features, tmp_path / "whole", **settings)
    _, parts = train(features, tmp_path / "parts", **settings, accumulate=5)
    assert parts == pytest.approx(whole, rel=1e-5)


# Sampled items ----------------------------------------------------------------------------------------------------


def test_draws_are_what_numpy_would_have_drawn() -> None:
    probability_I = np.arange(1.0, 101.0)
    probability_I /= probability_I.sum()
    one, two = np.random.default_rng(3), np.random.default_rng(3)
    draws = ItemSampler(probability_I)
    for count in (1, 17, 1000):
        assert draws(one, count).tolist() == two.choice(100, count, p=probability_I).tolist()


def test_the_sampled_loss_is_the_whole_one_on_average() -> None:
    torch.manual_seed(0)
    hidden_ND, vectors_ID, next_N = torch.randn(8, 16) * 0.5, torch.randn(200, 16) * 0.5, torch.arange(8) * 20
    fused = FusedItems(vectors_ID)
    probability_I = np.arange(1.0, 201.0)
    probability_I /= probability_I.sum()
    draws, rng = ItemSampler(probability_I), np.random.default_rng(0)
    whole = next_item_loss(hidden_ND, fused, next_N, sampled_S=np.zeros(0, np.int64), probability_I=probability_I)
    sampled = [
        float(next_item_loss(hidden_ND, fused, next_N, sampled_S=draws(rng, 400), probability_I=probability_I))
        for _ in range(50)
    ]
    assert np.mean(sampled) == pytest.approx(float(whole), abs=0.02)
    # and it is the same from the rows that it touches alone
    sampled_S = draws(rng, 50)
    rows_T = np.unique(np.concatenate([sampled_S, next_N.numpy()]))
    few = next_item_loss(
        hidden_ND,
        FusedItems(vectors_ID[torch.from_numpy(rows_T)], rows_T),
        next_N,
        sampled_S=sampled_S,
        probability_I=probability_I,
    )
    same = next_item_loss(hidden_ND, fused, next_N, sampled_S=sampled_S, probability_I=probability_I)
    assert float(few) == pytest.approx(float(same), rel=1e-6)


@pytest.mark.integration
def test_a_teacher_learns_from_sampled_items(features: Path, tmp_path: Path) -> None:
    """About .50, as with the whole catalogue, where popularity has .07."""
    result, losses = train(
        features, tmp_path / "x", sampled_items=40, epochs=16, learning_rate=5e-3, evaluate_every=4, patience=99
    )
    assert result["valid_ndcg@10"] > 0.35
    assert losses[-1] < 0.9 * losses[0]


def test_only_touched_own_vectors_move(features: Path, data: examples.Examples, tmp_path: Path) -> None:
    """A step must not go through a catalogue of a million items."""
    sampler = StepSampler(data, None, changed(sampled_items=2, negatives=2, requests_per_step=1))
    rows_T = sampler.step_items(sampler.draw([(np.array([1, 2, 3]), np.array([0, 0, 0]))], np.random.default_rng(0)))
    assert {1, 2, 3} <= set(rows_T.tolist())
    assert len(rows_T) < len(data.item_ids)
    assert rows_T.tolist() == sorted(set(rows_T.tolist()))


# Augmented histories ------------------------------------------------------------------------------------


def windows(count: int = 200, length: int = 20) -> list[Any]:
    return [(np.arange(length) + 100 * n, np.arange(length) % 6) for n in range(count)]


def test_views_that_are_off_draw_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    originals = windows()
    assert augment.augment_windows(originals, rng, changed()) is originals
    assert augment.visible_events([3, 4], 4, rng, changed()) is None
    assert rng.bit_generator.state == before


def test_a_cut_history_is_a_part_of_it() -> None:
    cut = augment.augment_windows(windows(), np.random.default_rng(0), changed(crop_chance=0.5, crop_share=0.6))
    lengths = [len(items) for items, _ in cut]
    assert set(lengths) == {20, 12}
    assert 70 < lengths.count(12) < 130
    for items, ratings in cut:
        assert np.diff(items).tolist() == [1] * (len(items) - 1)
        assert ratings.tolist() == (items % 100 % 6).tolist()
    short = augment.augment_windows(windows(9, 2), np.random.default_rng(0), changed(crop_chance=1.0, crop_share=0.1))
    assert {len(items) for items, _ in short} == {2}


def test_a_shuffled_part_stays_where_it_was() -> None:
    shuffled = augment.augment_windows(
        windows(), np.random.default_rng(0), changed(reorder_chance=1.0, reorder_share=0.2)
    )
    moved = 0
    for (items, ratings), (original, _) in zip(shuffled, windows()):
        assert sorted(items.tolist()) == original.tolist()
        assert ratings.tolist() == (items % 100 % 6).tolist()
        places = np.flatnonzero(items != original)
        moved += len(places) > 0
        assert len(places) == 0 or places.max() - places.min() < 4
    assert moved > 150


def test_hidden_events_are_a_share_of_those_there_are() -> None:
    visible_BL = augment.visible_events([10] * 300 + [1] * 5, 12, np.random.default_rng(0), changed(mask_chance=0.5))
    assert visible_BL is not None
    hidden = (~visible_BL).sum(1)
    assert set(hidden[:300]) == {0, 3}
    assert 100 < (hidden > 0).sum() < 200
    assert not hidden[300:].any()  # one event is never hidden
    assert visible_BL[:, 10:].all()


def test_augmented_training_is_another_training_that_learns(features: Path, tmp_path: Path) -> None:
    overrides = {"crop_chance": 0.3, "mask_chance": 0.3, "reorder_chance": 0.3}
    _, plain = train(features, tmp_path / "plain", epochs=2)
    _, views = train(features, tmp_path / "views", epochs=2, **overrides)
    assert views[0] != plain[0]
    assert views[1] < views[0]


# Several teachers -------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_the_scores_of_several_teachers_are_their_mean(features: Path, data: examples.Examples, tmp_path: Path) -> None:
    result, _ = train(features, tmp_path / "two", teachers=2, epochs=2)
    for seed in (0, 1):
        train(features, tmp_path / str(seed), epochs=2, seed=seed)
    two, first = np.load(tmp_path / "two" / "soft.npz"), np.load(tmp_path / "0" / "soft.npz")
    assert (two["train_candidates"] == first["train_candidates"]).all()
    assert "train_deviation" not in first
    assert result["teachers_deviation"] == pytest.approx(float(two["valid_deviation"].mean()), abs=1e-4)
    assert result["teachers_deviation"] > 0.01
    # the first is the teacher of a run with one; the second differs in the seed of its encoder alone
    for name in ("weights.safetensors", "curve.json", "text_vectors.npy"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "0" / name).read_bytes()
    assert (tmp_path / "two" / "weights-1.safetensors").is_file()
    # the deviation of two is half of their difference
    apart = np.abs(two["train_logits"] - first["train_logits"])
    np.testing.assert_allclose(apart, two["train_deviation"], atol=1e-4)
    assert len(result["teachers_valid_ndcg@10"]) == 2
    curves = [(tmp_path / "two" / name).read_text() for name in ("curve.json", "curve-1.json")]
    assert curves[0] != curves[1]


class Phases(Progress):
    """Collects the names of phases."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def phase(self, name: str) -> None:
        """Collect it."""
        self.names.append(name)


def test_progress_names_the_teacher_that_is_trained(features: Path, tmp_path: Path) -> None:
    phases = Phases()
    finetune(features, tmp_path / "x", config=changed(epochs=1, teachers=2), progress=phases)
    assert [name for name in phases.names if "teacher" in name] == [
        "training the teacher 1 of 2", "training the teacher 2 of 2",
    ]  # fmt: skip


# Adapters in joint training ---------------------------------------------------------------------------------------


@pytest.mark.integration
def test_adapters_are_merged_into_what_is_saved(features: Path, data: examples.Examples, tmp_path: Path) -> None:
    overrides = {**TRAINED_ENCODER, "precision": "fp32", "epochs": 2}
    whole, _ = train(features, tmp_path / "whole", **overrides)
    few, _ = train(features, tmp_path / "few", **overrides, peft="lora", peft_rank=2)
    assert few["encoder_weights_trained"] < 0.05 * whole["encoder_weights_trained"]
    prepare_encoder(EncoderSource("tiny"), tmp_path / "before", texts=data.item_texts, seed=SMOKE.seed)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "before", tmp_path / "few" / "encoder")
    )
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("query" in name or "value" in name for name in moved)
    # the saved encoder gives the vectors of training
    tokenizer = encoders.load_tokenizer(tmp_path / "few" / "encoder", source="", max_tokens=SMOKE.max_tokens)
    reader = encoders.load_encoder(tmp_path / "few" / "encoder", source="")
    read_IT = encode_all(reader, tokenizer, data.item_texts, device=CPU, progress=Progress())
    np.testing.assert_allclose(np.load(tmp_path / "few" / "text_vectors.npy"), read_IT.numpy(), atol=1e-5)


def test_frozen_layers_stay_as_they_are(features: Path, data: examples.Examples, tmp_path: Path) -> None:
    result, _ = train(features, tmp_path / "x", **TRAINED_ENCODER, epochs=1, encoder_frozen_layers=1)
    assert result["encoder_weights_trained"] == 0
    prepare_encoder(EncoderSource("tiny"), tmp_path / "before", texts=data.item_texts, seed=SMOKE.seed)
    assert (tmp_path / "x" / "encoder" / "model.safetensors").read_bytes() == (
        tmp_path / "before" / "model.safetensors"
    ).read_bytes()


# Adaptation -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_encoder(data: examples.Examples, tmp_path: Path) -> tuple[Any, Any]:
    prepare_encoder(EncoderSource("tiny"), tmp_path / "tiny", texts=data.item_texts, seed=0)
    return (
        encoders.load_encoder(tmp_path / "tiny", source=""),
        encoders.load_tokenizer(tmp_path / "tiny", source="", max_tokens=16),
    )


@pytest.mark.integration
def test_adaptation_makes_the_catalogues_words_less_of_a_surprise(features: Path, tmp_path: Path) -> None:
    overrides = {"adapt_steps": 40, "adapt_learning_rate": 2e-3, "epochs": 1}
    result, _ = train(features, tmp_path / "x", **overrides)
    assert result["perplexity_after"] < 0.8 * result["perplexity_before"]
    adapted = json.loads((tmp_path / "x" / "adaptation.json").read_text())
    assert adapted["texts"] > 5 * adapted["held_out"] > 0
    assert [point["step"] for point in adapted["curve"]][-1] == 48  # eight of them for the head alone
    assert adapted["curve"][-1]["loss"] < adapted["curve"][0]["loss"]
    train(features, tmp_path / "plain", epochs=1)
    assert not np.allclose(*(np.load(tmp_path / name / "text_vectors.npy") for name in ("x", "plain")), atol=1e-3)
    assert not (tmp_path / "plain" / "adaptation.json").exists()


class Interrupted(Progress):
    """Progress that interrupts the work, as Ctrl-C does, in one phase after some steps."""

    def __init__(self, part: str, steps: int) -> None:
        super().__init__()
        self.part, self.steps, self.here = part, steps, False

    def phase(self, name: str) -> None:
        """Only one phase is counted."""
        self.here = name.startswith(self.part)

    def update(self, done: int, total: int, **numbers: float) -> None:
        """Interrupt after the given step."""
        if self.here and done >= self.steps:
            raise KeyboardInterrupt


@pytest.mark.integration
def test_whatever_is_on_an_interrupted_run_ends_as_if_it_had_not_been(features: Path, tmp_path: Path) -> None:
    """Adaptation, adapters, two teachers, sampled items and augmentation all draw random numbers."""
    config = changed(
        **TRAINED_ENCODER, epochs=2, evaluate_every=1, adapt_steps=20, adapt_learning_rate=1e-3, teachers=2,
        peft="bitfit", crop_chance=0.3, mask_chance=0.3, reorder_chance=0.3, sampled_items=30,
    )  # fmt: skip
    whole = finetune(features, tmp_path / "whole", config=config, progress=Progress())
    checkpoints = tmp_path / "checkpoints"
    for part, steps in (
        ("adapting", 3),
        ("adapting", 20),
        ("training the teacher 1", 9),
        ("training the teacher 2", 9),
    ):
        with pytest.raises(KeyboardInterrupt):
            finetune(
                features, tmp_path / f"{part} {steps}", config=config, progress=Interrupted(part, steps),
                checkpoints=checkpoints,
            )  # fmt: skip
    result = finetune(features, tmp_path / "last", config=config, progress=Progress(), checkpoints=checkpoints)
    assert {**result, "resumed_at_epoch": 0} == whole
    assert result["resumed_at_epoch"] == 2  # the first teacher had been finished
    assert files(tmp_path / "last") == files(tmp_path / "whole")


def test_too_few_texts_to_adapt_to() -> None:
    with pytest.raises(TooSmall, match=r"found: 3(.|\n)*finetune\.adapt_steps=0"):
        adaptation.AdaptationTexts.split(["a", "b", "c"] * 5, np.random.default_rng(0))


def test_an_absurd_rate_of_adaptation_names_its_own_setting(features: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not a number(.|\n)*lower finetune\.adapt_learning_rate"):
        train(features, tmp_path / "x", adapt_steps=20, adapt_learning_rate=1e25)


def test_whole_words_are_hidden_whole(tiny_encoder: tuple[Any, Any]) -> None:
    reader, tokenizer = tiny_encoder
    texts = ["aetea tetate eat"] * 200  # words the tokenizer has to spell
    numbers = tokenizer.word_ids(texts[:1])[0]
    assert len([n for n in numbers if n is not None]) > 10
    for whole in (True, False):
        head = MaskedLanguageModel(reader, tokenizer, share=0.3, whole_words=whole)
        target_BW = head.masked(texts, rng=np.random.default_rng(0)).target_BW
        assert 0.2 < target_BW[:, 1:-1].mean() < 0.4
        split = 0
        for row in target_BW:
            by_word: dict[int, set[bool]] = {}
            for word, chosen in zip(numbers, row):
                if word is not None:
                    by_word.setdefault(word, set()).add(bool(chosen))
            split += any(len(masks) > 1 for masks in by_word.values())
        assert (split == 0) is whole


def test_a_script_without_spaces_is_not_hidden_whole(tiny_encoder: tuple[Any, Any]) -> None:
    head = MaskedLanguageModel(*tiny_encoder, share=0.5, whole_words=True)
    target_BW = head.masked(["aet" * 13], rng=np.random.default_rng(1)).target_BW  # one word of many pieces
    assert 0 < target_BW[0, 1:-1].sum() < target_BW.shape[1] - 2


# Memory -----------------------------------------------------------------------------------------------------------

SMALL = """
import resource, sys
from pathlib import Path
import torch
from components.finetune.step import finetune
from components.finetune.sequence.inputs import StepSampler
from pipelines.recipes import smoke
from rankline.errors import OutOfMemory
from rankline.runtime.progress import Progress
import components.finetune.teacher, transformers.models.bert.modeling_bert
import pyarrow.parquet, pandas
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_500_000_000, used + 1_500_000_000))
config = smoke().finetune.model_copy(update={"requests_per_step": 20000, "negatives": 3000, "epochs": 1})
try:
    finetune(Path(sys.argv[1]), Path(sys.argv[2]), config=config, progress=Progress())
except OutOfMemory as error:
    print(error)
"""


@pytest.mark.integration
def test_running_out_of_memory_names_what_takes_less(features: Path, tmp_path: Path) -> None:
    """In a process that is limited to 1.5 GB more than it uses after its imports."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(features), str(tmp_path / "x")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "finetune ran out of memory" in done.stdout
    assert "finetune.accumulate=4 (now 1)" in done.stdout
    assert "finetune.requests_per_step=10000 (now 20000)" in done.stdout


# Compiling --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_networks_learn_the_same(features: Path, tmp_path: Path) -> None:
    """The compiler takes minutes on two cores."""
    _, losses = train(features, tmp_path / "plain", **STILL, epochs=2)
    result, compiled = train(features, tmp_path / "compiled", **STILL, epochs=2, compile=True)
    if result["compiled"] != "yes":
        pytest.skip(f"torch.compile: {result['compiled']}")
    assert compiled == pytest.approx(losses, rel=1e-4)


@pytest.mark.integration
def test_where_nothing_compiles_training_goes_on_and_says_so(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    torch._dynamo.reset()
    result, _ = train(features, tmp_path / "x", epochs=1, compile=True)
    assert result["compiled"].startswith("no: ")
