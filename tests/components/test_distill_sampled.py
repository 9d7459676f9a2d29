"""The training of the towers on a synthetic catalogue: sampled items, and adapters in the encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode

from components.distill import ranking, towers, towers_trainer
from components.distill.config import DistillConfig
from components.distill.encode import EncodedTexts
from components.distill.towers_trainer import TowersInputs
from components.finetune.encoder import EncoderSource, prepare_encoder
from rankline.errors import UsageError
from rankline.features import transforms
from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train import examples, sampled_items
from rankline.train.ranks import ndcg_of_ranks, target_rank

CPU = torch.device("cpu")
LENGTH, USERS, SIZE, SOFT = 6, 24, 8, 10
QUICK = DistillConfig(
    max_history=LENGTH, layers=1, heads=1, dropout=0.0, epochs=2, batch_size=8, requests_per_step=8, evaluate_every=1,
    learning_rate=1e-2,
)  # fmt: skip
COLOURS, NOUNS = ("red", "blue", "green", "white"), ("kettle", "lamp", "chair", "scarf", "drum")


def changed(**overrides: Any) -> DistillConfig:
    return QUICK.model_copy(update=overrides)


def make_data(items: int, *, queries: bool = False, words: bool = False) -> examples.Examples:
    """A synthetic catalogue with users who go from each item to the next; their queries are its text."""
    rng = np.random.default_rng(0)
    texts = [f"{COLOURS[n % 4]} {NOUNS[n // 4 % 5]} {n // 20}" for n in range(items if words else 0)]
    starts = rng.integers(0, items, USERS)
    histories = [(start + np.arange(LENGTH + 1)) % items for start in starts]
    requests = examples.Requests(
        ids=[str(n) for n in range(USERS)],
        queries=[texts[history[-1]] if queries and words else "?" * queries for history in histories],
        at=np.zeros(USERS),
        items_RL=np.stack([history[:-1] for history in histories]),
        ratings_RL=np.zeros((USERS, LENGTH), np.int64),
        ages_RL=np.ones((USERS, LENGTH), np.float32),
        lengths_R=np.full(USERS, LENGTH),
        user_RF=np.zeros((USERS, len(transforms.USER)), np.float32),
        context_RF=np.zeros((USERS, len(transforms.CONTEXT)), np.float32),
        affinity=[{} for _ in range(USERS)],
        day_R=np.zeros(USERS, np.int64),
        targets=[np.array([history[-1], (history[-1] + 5) % items]) for history in histories],
        target_ratings=[np.zeros(2, np.float32) for _ in range(USERS)],
        seen=[history[:-1] for history in histories],
        negatives=[np.zeros(0, np.int64) for _ in range(USERS)],
    )
    return examples.Examples(
        item_ids=[str(n) for n in range(items)],
        index={},
        item_texts=texts,
        side_IS=np.zeros((items, 1), np.float32),
        categories_IC=np.zeros((items, 0), np.float32),
        vocabulary=[],
        sequences=examples.Sequences(
            items=histories,
            times=[np.arange(LENGTH + 1, dtype=float)] * USERS,
            ratings=[np.zeros(LENGTH + 1, np.int64)] * USERS,
        ),
        splits=dict.fromkeys(("train", "valid", "test"), requests),
        item_DIF=np.zeros((1, items, len(transforms.ITEM)), np.float32),
        summary={},
    )


class Numbers(EncodedTexts):
    """Encodes every text as the same vector."""

    def _encode(self, words: list[str], progress: Progress) -> torch.Tensor:
        return torch.ones(len(words), 4)


def constant_texts(data: examples.Examples) -> EncodedTexts:
    reader: Any = torch.nn.Identity()
    reader.size = 4
    none: Any = None
    text_IT = torch.randn(len(data.item_ids), 4, generator=torch.Generator().manual_seed(0))
    return Numbers(data, reader, none, text_IT, device=CPU)


def train(
    data: examples.Examples,
    config: DistillConfig,
    texts: EncodedTexts | None = None,
    progress: Any = None,
    checkpoints: Path | None = None,
) -> tuple[towers.Towers, dict[str, Any]]:
    """The trained towers and their history."""
    texts = texts or constant_texts(data)
    rng = np.random.default_rng(1)
    shape = (USERS, SOFT)
    soft = {
        "train_candidates": rng.integers(0, len(data.item_ids), shape),
        "train_logits": rng.standard_normal(shape, np.float32),
    }
    torch.manual_seed(0)
    model = towers.Towers.make(data, text_size=texts.items_IT.shape[1], size=SIZE, config=config)
    inputs = TowersInputs(data, texts, soft["train_candidates"], soft["train_logits"])
    history, encoder_weights = towers_trainer.train(
        model, inputs, config, progress=progress or Progress(), checkpoints=checkpoints
    )
    return model, {**dataclasses.asdict(history), "encoder_weights": encoder_weights}


# What a step takes --------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that an operation creates, without views and in-place operations."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.on = 0, True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        there = {value.untyped_storage().data_ptr() for value in given if value.layout == torch.strided}
        for value in torch.utils._pytree.tree_leaves(out):
            fresh = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.numel()
            if self.on and fresh and value.untyped_storage().data_ptr() not in there:
                self.numbers = max(self.numbers, value.numel())
        return out


class Between(Progress):
    """Records from the end of the first step, which creates the optimizer state, to the end of the last one."""

    def __init__(self, largest: Largest) -> None:
        super().__init__()
        self.largest = largest
        self.calls: list[int] = []

    def update(self, done: int, total: int, **_: float) -> None:
        """Called at the end of a step."""
        self.calls.append(done)
        self.largest.on = done < total


@pytest.mark.parametrize("queries", [False, True])
def test_a_training_step_allocates_nothing_as_large_as_the_catalogue(queries: bool) -> None:
    items = 30_000
    data = make_data(items, queries=queries)

    def largest(sampled: int) -> int:
        config = changed(sampled_items=sampled, epochs=1)
        with Largest() as watched:
            watched.on = False
            progress = Between(watched)
            train(data, config, progress=progress)
        assert progress.calls == [1, 2, 3]
        return watched.numbers

    assert largest(50) < items / 2
    assert largest(0) >= items * SIZE  # without sampling there is such a tensor


def test_validation_allocates_nothing_as_large_as_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    items = 30_000
    data = make_data(items)
    texts, model = constant_texts(data), towers.Towers.make(make_data(items), text_size=4, size=SIZE, config=QUICK)

    def largest() -> int:
        with Largest() as watched:
            ranking.target_ranks(model, data.splits["valid"], texts.items_IT, texts.queries["valid"])
        return watched.numbers

    assert largest() >= USERS * items
    monkeypatch.setattr(sampled_items, "CHUNK_ITEMS", 1000)
    assert largest() <= USERS * 1000


def test_sampling_as_many_as_there_are_is_the_whole_catalogue() -> None:
    data = make_data(40, queries=True)
    (one, a), (two, b) = (train(data, changed(sampled_items=sampled)) for sampled in (0, 40))
    assert a["curve"] == b["curve"]
    assert all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), two.state_dict().values()))


@pytest.mark.parametrize("queries", [False, True])
def test_the_towers_learn_from_sampled_items(queries: bool) -> None:
    """About the same as from the whole catalogue: users go from each item to the next."""
    data = make_data(120, queries=queries)
    histories = {sampled: train(data, changed(sampled_items=sampled, epochs=25))[1] for sampled in (0, 40)}
    model, texts = towers.Towers.make(data, text_size=4, size=SIZE, config=QUICK), constant_texts(data)
    untrained = ranking.target_ranks(model, data.splits["valid"], texts.items_IT, texts.queries["valid"])
    assert histories[40]["best"] > 0.6 * histories[0]["best"]
    assert histories[40]["best"] > 3 * ndcg_of_ranks(untrained, k=10)


def test_only_own_vectors_that_were_touched_move() -> None:
    data = make_data(5000)
    config = changed(sampled_items=5, epochs=1, requests_per_step=1, warm_up=0.0, own_dropout=0.0)
    torch.manual_seed(0)
    before = towers.Towers.make(data, text_size=4, size=SIZE, config=config).fusion.own.weight
    model, _ = train(data, config)
    moved = (model.fusion.own.weight != before).any(1).nonzero().flatten().numpy()
    met = np.unique(np.concatenate(data.sequences.items))
    assert set(met) <= set(moved)
    assert len(moved) < len(met) + 3 * (config.sampled_items + LENGTH + SOFT)


class Killed(Exception):
    """Ends a run."""


class Killing(Progress):
    """Ends the run after so many steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def update(self, done: int, total: int, **_: float) -> None:
        """Called at the end of a step."""
        if done == self.after:
            raise Killed


def test_an_interrupted_sampled_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    data, config = make_data(200, queries=True), changed(sampled_items=20, epochs=4, dropout=0.2)
    whole, history = train(data, config)
    with pytest.raises(Killed):
        train(data, config, progress=Killing(8), checkpoints=tmp_path)
    again, resumed = train(data, config, checkpoints=tmp_path)
    assert resumed["resumed_at"] == 2
    assert resumed["curve"] == history["curve"]
    assert all(torch.equal(x, y) for x, y in zip(whole.state_dict().values(), again.state_dict().values()))


# Ranks of targets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [7, 64, 1000])
def test_target_ranks_are_those_among_all_items(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """With equal scores (four unknown items with the same text), seen items and several targets."""
    data = make_data(100)
    requests, texts = data.splits["valid"], constant_texts(data)
    requests.targets[0], requests.targets[1] = np.array([3, 50]), requests.seen[1][:1]
    texts.items_IT[[3, 31, 62, 93]] = texts.items_IT[3].clone()
    torch.manual_seed(3)
    model = towers.Towers.make(data, text_size=4, size=SIZE, config=QUICK)
    model.fusion.known_I[[3, 31, 62, 93]] = 0.0
    monkeypatch.setattr(ranking, "REQUESTS_PER_BLOCK", 5)
    fused_ID = sampled_items.fuse_all(model.fusion.eval(), texts.items_IT, model.side_IS)
    rows = np.arange(len(requests))
    with torch.no_grad():
        left_BD = model.eval().left(sampled_items.FusedItems(fused_ID), requests, rows, texts.queries["valid"])
        scores_RI = (left_BD @ fused_ID.T).numpy()
    expected = []
    for row, scores_I in enumerate(scores_RI):
        scores_I[[31, 62, 93]] = scores_I[3]  # one product may round them differently
        scores_I[requests.seen[row]] = scores_I[requests.targets[row][1:]] = -np.inf
        expected.append(target_rank(scores_I, requests.targets[row][0]))
    monkeypatch.setattr(sampled_items, "CHUNK_ITEMS", part)
    ranks = ranking.target_ranks(model, requests, texts.items_IT, texts.queries["valid"])
    if part < 100:  # in several chunks equal scores may round differently
        assert ranks[1:].tolist() == expected[1:]
        assert abs(ranks[0] - expected[0]) <= 3
    else:
        assert ranks.tolist() == expected
    assert ranks[1] == 99  # its target was seen: last


def test_towers_that_tell_nothing_apart_are_not_taken_for_perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(100)
    model = towers.Towers.make(data, text_size=4, size=SIZE, config=QUICK)
    for weight in model.fusion.parameters():
        torch.nn.init.zeros_(weight)
    monkeypatch.setattr(sampled_items, "CHUNK_ITEMS", 9)
    texts = constant_texts(data)
    ranks = ranking.target_ranks(model, data.splits["valid"], texts.items_IT, texts.queries["valid"])
    assert set(ranks.tolist()) == {(100 - LENGTH - 1 - 1) // 2}


# Adapters in the encoder --------------------------------------------------------------------------------------------

ASKED = {"train_encoder": True, "encoder_learning_rate": 1e-2, "encoder_items_per_step": 16, "precision": "fp32"}


@pytest.fixture(scope="module")
def data() -> examples.Examples:
    return make_data(60, queries=True, words=True)


@pytest.fixture(scope="module")
def encoder(data: examples.Examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "fresh"
    prepare_encoder(EncoderSource("fresh"), folder, texts=data.item_texts, seed=0)
    return folder


@pytest.fixture
def new_texts(data: examples.Examples, encoder: Path) -> Callable[[], EncodedTexts]:
    """A function that encodes the catalogue with the untrained encoder."""

    def anew() -> EncodedTexts:
        tokenizer, reader = Tokenizer(encoder / "tokenizer.json", max_tokens=8), TextEncoder.load(encoder)
        texts = EncodedTexts(data, reader, tokenizer, torch.zeros(len(data.item_texts), reader.size), device=CPU)
        texts.encode_items(Progress())
        return texts

    return anew


@pytest.mark.parametrize("sampled", [0, 20])
def test_with_lora_few_weights_move_and_the_merged_encoder_reads_as_the_adapted_one(
    data: examples.Examples, new_texts: Callable[[], EncodedTexts], sampled: int
) -> None:
    config = changed(**ASKED, epochs=6, sampled_items=sampled, peft="lora", peft_rank=2)
    untrained, texts = new_texts(), new_texts()
    before = {name: weight.clone() for name, weight in texts.encoder.state_dict().items()}
    _, history = train(data, config, texts)
    few, every = history["encoder_weights"]
    assert 0 < few < 0.05 * every
    assert history["best_epoch"] >= 0  # the best epoch is a trained one
    after = texts.encoder.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("query" in name or "value" in name for name in moved)
    adapted_IT, adapted_RT = texts.items_IT.clone(), texts.queries["valid"].clone()
    texts.encode_items(Progress())
    texts.encode_queries()
    torch.testing.assert_close(texts.items_IT, adapted_IT, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts.queries["valid"], adapted_RT, atol=1e-5, rtol=0)
    assert (adapted_IT - untrained.items_IT).abs().max() > 1e-3


def test_an_interrupted_run_with_adapters_ends_as_if_it_had_not_been(
    data: examples.Examples, new_texts: Callable[[], EncodedTexts], tmp_path: Path
) -> None:
    config = changed(**ASKED, epochs=3, sampled_items=20, peft="lora", peft_rank=2, peft_dropout=0.1)
    whole, again = new_texts(), new_texts()
    _, history = train(data, config, whole)
    with pytest.raises(Killed):
        train(data, config, new_texts(), progress=Killing(5), checkpoints=tmp_path)
    _, resumed = train(data, config, again, checkpoints=tmp_path)
    assert resumed["resumed_at"] == 1
    assert resumed["curve"] == history["curve"]
    pairs = zip(whole.encoder.state_dict().values(), again.encoder.state_dict().values())
    assert all(torch.equal(x, y) for x, y in pairs)


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"peft\n.*'lora'"):
        DistillConfig(peft="lroa")  # type: ignore[arg-type]


def test_adapters_without_matching_layers_are_refused(
    data: examples.Examples, new_texts: Callable[[], EncodedTexts]
) -> None:
    with pytest.raises(UsageError, match=r"distill\.peft_targets among .*query(.|\n)*nowhere"):
        train(data, changed(**ASKED, peft="lora", peft_targets=["nowhere"]), new_texts())
    with pytest.raises(UsageError, match=r"distill\.encoder_frozen_layers of at most 2"):
        train(data, changed(**ASKED, encoder_frozen_layers=99), new_texts())


def test_frozen_layers_stay_as_they_are(data: examples.Examples, new_texts: Callable[[], EncodedTexts]) -> None:
    texts = new_texts()
    before = {name: weight.clone() for name, weight in texts.encoder.state_dict().items()}
    train(data, changed(**ASKED, encoder_frozen_layers=1, encoder_layer_decay=0.5), texts)
    after = texts.encoder.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any("embeddings." in name or ".layer.0." in name for name in moved)


# Out of memory ------------------------------------------------------------------------------------------------------


def test_what_takes_less_memory_is_named() -> None:
    reductions = changed(**ASKED).smaller()
    assert list(reductions)[:3] == ["sampled_items", "peft", "encoder_items_per_step"]
    assert reductions["requests_per_step"] == (8, 4)
    for name, (_, less) in reductions.items():
        DistillConfig(**{name: less})
    assert "sampled_items" not in changed(sampled_items=9).smaller()
