"""Adapters, frozen layers and learning rates of the encoder."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from rankline.errors import UsageError
from rankline.model import adapters


def settings(kind: Any, **more: Any) -> Any:
    base = {"peft": kind, "peft_rank": 4, "peft_alpha": 8, "peft_dropout": 0.0, "peft_targets": []}
    return SimpleNamespace(**{**base, **more})


KINDS = ("lora", "rslora", "dora", "loha", "ia3", "bitfit")


@pytest.fixture
def bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=20, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False)


IDS = torch.arange(24).view(2, 12) % 50


def hidden_states(backbone: Any) -> torch.Tensor:
    return backbone(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state


def train_briefly(backbone: Any, steps: int = 5) -> None:
    weights = [weight for weight in backbone.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.02)
    expected = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        (hidden_states(backbone) - expected).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_learn_and_merging_keeps_what_they_learnt(bert: Any, kind: Any) -> None:
    before, whole = copy.deepcopy(bert.state_dict()), adapters.count_parameters(bert)[1]
    names = {name for name, _ in bert.named_parameters()}
    adapted = adapters.attach(bert, settings(kind))
    few, _ = adapters.count_parameters(adapted)
    assert 0 < few < 0.2 * whole
    train_briefly(adapted)
    moved = {name for name, weight in adapted.named_parameters() if weight.grad is not None}
    if kind == "bitfit":
        assert moved
        assert all(name.endswith("bias") for name in moved)
    else:
        assert moved
        assert not any(name.removeprefix("base_model.model.") in names for name in moved)
    with torch.no_grad():
        expected = hidden_states(adapted.eval())
        merged = adapters.merge(adapted)
        assert type(merged).__name__ == "BertModel"
        assert merged.state_dict().keys() == before.keys()
        assert (hidden_states(merged.eval()) - expected).abs().max() < 1e-5
    changed = {name for name in before if not torch.equal(before[name], merged.state_dict()[name])}
    assert changed
    assert "embeddings.word_embeddings.weight" not in changed


def test_none_is_the_encoder_itself(bert: Any) -> None:
    assert adapters.attach(bert, settings("none")) is bert
    assert adapters.merge(bert) is bert
    few, whole = adapters.count_parameters(bert)
    assert few == whole


def test_an_unknown_family_gets_adapters_in_the_named_layers() -> None:
    config = DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=20)
    with pytest.raises(UsageError, match=r"finetune\.peft_targets among .*q_lin(.|\n)*distilbert"):
        adapters.attach(DistilBertModel(config), settings("lora"))
    adapted = adapters.attach(DistilBertModel(config), settings("lora", peft_targets=["q_lin", "v_lin"]))
    assert adapters.count_parameters(adapted)[0] == 2 * 2 * 2 * 4 * 32  # layers, targets, two matrices, rank x size


def test_missing_target_layers_are_an_error(bert: Any) -> None:
    with pytest.raises(UsageError, match=r"query(.|\n)*nowhere"):
        adapters.attach(bert, settings("dora", peft_targets=["nowhere"]))


def test_the_lowest_layers_are_frozen_with_the_embeddings(bert: Any) -> None:
    adapters.freeze_lowest(bert, 2)
    trained = {name for name, weight in bert.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in bert.named_parameters() if name.startswith("encoder.layer.2.")}
    adapters.freeze_lowest(bert, 0)
    assert trained == {name for name, weight in bert.named_parameters() if weight.requires_grad}


def test_more_layers_than_there_are(bert: Any) -> None:
    with pytest.raises(UsageError, match=r"at most 3(.|\n)*found: 4"):
        adapters.freeze_lowest(bert, 4)


def test_rates_fall_from_the_top_down(bert: Any) -> None:
    groups = adapters.parameter_groups(bert, peak=1.0, decay=0.5)
    rate_of = {id(weight): group["peak"] for group in groups for weight in group["params"]}
    assert len(rate_of) == len(list(bert.parameters()))
    rates = {name: rate_of[id(weight)] for name, weight in bert.named_parameters()}
    assert rates["encoder.layer.2.output.dense.weight"] == 1.0
    assert rates["encoder.layer.1.output.dense.weight"] == 0.5
    assert rates["encoder.layer.0.output.dense.weight"] == 0.25
    assert rates["embeddings.word_embeddings.weight"] == 0.125


def test_without_decay_there_is_one_group_in_the_encoders_own_order(bert: Any) -> None:
    (group,) = adapters.parameter_groups(bert, peak=2.0, decay=1.0)
    assert [id(weight) for weight in group["params"]] == [id(weight) for weight in bert.parameters()]
