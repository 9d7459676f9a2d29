"""The items that a training step touches, and a catalogue in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rankline.model.networks import ItemFusion
from rankline.train import sampled_items
from rankline.train.losses import ItemSampler, next_item_loss
from rankline.train.sampled_items import FusedItems, ItemInputs

ITEMS, TEXT, SIDE, SIZE = 50, 6, 2, 4
ROWS = np.array([3, 7, 8, 40])


@pytest.fixture
def fusion() -> ItemFusion:
    torch.manual_seed(0)
    return ItemFusion(
        items=ITEMS, text_size=TEXT, side_size=SIDE, size=SIZE, own_dropout=0.0, known_I=torch.arange(ITEMS) % 8 != 0
    )


@pytest.fixture
def tables() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ITEMS, TEXT, generator=generator), torch.randn(ITEMS, SIDE, generator=generator)


def test_the_touched_are_fused_as_all_are(fusion: ItemFusion, tables: Any) -> None:
    fresh_NT = torch.full((2, TEXT), 0.5)
    fresh = {"fresh_N": np.array([7, 40]), "fresh_NT": fresh_NT}
    own = sampled_items.SparseItemEmbedding(fusion, learning_rate=0.1)
    sparse = ItemInputs(*tables, ROWS, own_TD=own.gather(ROWS), **fresh).fuse(fusion)
    dense = ItemInputs(*tables, **fresh).fuse(fusion)
    assert (sparse.vectors_TD.shape, dense.vectors_TD.shape) == ((4, SIZE), (ITEMS, SIZE))
    items_BL = np.array([[40, 3, 3], [8, 7, 40]])
    torch.testing.assert_close(sparse.lookup(items_BL), dense.lookup(items_BL))
    plain = ItemInputs(*tables).fuse(fusion)
    differ = (plain.vectors_TD - dense.vectors_TD).abs().amax(1) > 1e-6
    assert differ.nonzero().flatten().tolist() == [7, 40]


def test_own_vectors_move_as_with_adam_and_alone(fusion: ItemFusion, tables: Any) -> None:
    """Two steps, because the second one has optimizer state; untouched items do not change by a bit."""
    before_ID = fusion.own.weight.detach().clone()
    dense_ID = before_ID.clone().requires_grad_()
    adam = torch.optim.Adam([dense_ID], lr=0.1)
    own = sampled_items.SparseItemEmbedding(fusion, learning_rate=0.1)
    wanted_TD = torch.randn(4, SIZE)
    for _ in range(2):
        own_TD = own.gather(ROWS)
        (own_TD - wanted_TD).square().sum().backward()
        own.apply_gradient()
        adam.zero_grad()
        (F.embedding(torch.from_numpy(ROWS), dense_ID) - wanted_TD).square().sum().backward()
        adam.step()
    torch.testing.assert_close(fusion.own.weight.detach(), dense_ID.detach())
    moved = (fusion.own.weight != before_ID).any(1).nonzero().flatten()
    assert moved.tolist() == ROWS.tolist()
    assert fusion.own.weight.grad is None


def test_a_hidden_own_vector_and_an_unknown_item_live_from_their_words(fusion: ItemFusion, tables: Any) -> None:
    text_IT, side_IS = tables
    fusion.own_dropout = 0.999999
    words_ID = fusion.text(text_IT) + fusion.side(side_IS)
    own = sampled_items.SparseItemEmbedding(fusion, learning_rate=0.1)
    rows_T = np.arange(ITEMS)
    hidden = ItemInputs(text_IT, side_IS, rows_T, own_TD=own.gather(rows_T)).fuse(fusion.train()).vectors_TD
    torch.testing.assert_close(hidden, words_ID)
    shown = ItemInputs(text_IT, side_IS, rows_T, own_TD=own.gather(rows_T)).fuse(fusion.eval()).vectors_TD
    alike = ((shown - words_ID).abs().amax(1) < 1e-7).nonzero().flatten()
    assert alike.tolist() == list(range(0, ITEMS, 8))


@pytest.mark.parametrize("size", [7, 50, 99])
def test_the_parts_are_the_whole(fusion: ItemFusion, tables: Any, monkeypatch: Any, size: int) -> None:
    monkeypatch.setattr(sampled_items, "CHUNK_ITEMS", size)
    parts = list(sampled_items.fused_chunks(fusion.eval(), *tables))
    assert [first for first, _ in parts] == list(range(0, ITEMS, size))
    assert max(len(part_PD) for _, part_PD in parts) == min(size, ITEMS)
    torch.testing.assert_close(sampled_items.fuse_all(fusion, *tables), fusion(*tables).detach())
    assert not sampled_items.fuse_all(fusion, *tables).requires_grad


def test_rows_are_sorted_and_each_is_there_once() -> None:
    rows_T = sampled_items.unique_items(np.array([[5, 2], [2, 9]]), torch.tensor([1, 5]), np.zeros(0))
    assert rows_T.tolist() == [1, 2, 5, 9]
    assert rows_T.dtype == np.int64


# The loss with several targets ------------------------------------------------------------------------------


def loss_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any]:
    generator = torch.Generator().manual_seed(2)
    left_BD, vectors_ID = torch.randn(3, SIZE, generator=generator), torch.randn(ITEMS, SIZE, generator=generator)
    other_targets = [np.array([1, 2, 3]), np.zeros(0, np.int64), np.array([int((left_BD[2] @ vectors_ID.T).argmax())])]
    return left_BD, vectors_ID, torch.tensor([0, 10, 20]), other_targets


def test_other_correct_answers_do_not_count_as_negatives() -> None:
    left_BD, vectors_ID, target_B, other_targets = loss_inputs()
    probability_I, nobody = np.full(ITEMS, 1 / ITEMS), np.zeros(0, np.int64)
    loss = next_item_loss(
        left_BD,
        FusedItems(vectors_ID),
        target_B,
        sampled_S=nobody,
        probability_I=probability_I,
        other_targets=other_targets,
    )
    by_hand = []
    for left_D, target, right in zip(left_BD, target_B, other_targets):
        others = [item for item in range(ITEMS) if item not in right]
        by_hand.append((left_D @ vectors_ID[others].T).logsumexp(0) - left_D @ vectors_ID[target])
    assert float(loss) == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-5)
    without = next_item_loss(left_BD, FusedItems(vectors_ID), target_B, sampled_S=nobody, probability_I=probability_I)
    assert float(without) > float(loss) + 0.05


def test_other_correct_answers_do_not_count_where_items_are_sampled() -> None:
    """On average the loss is that of the whole catalogue."""
    left_BD, vectors_ID, target_B, other_targets = loss_inputs()
    rng = np.random.default_rng(0)
    probability_I = rng.random(ITEMS) + 0.2
    probability_I /= probability_I.sum()
    draws = ItemSampler(probability_I)

    def loss(sampled_S: Any) -> float:
        rows_T = sampled_items.unique_items(sampled_S, target_B) if len(sampled_S) else None
        vectors_TD = vectors_ID if rows_T is None else vectors_ID[rows_T]
        return float(
            next_item_loss(
                left_BD,
                FusedItems(vectors_TD, rows_T),
                target_B,
                sampled_S=sampled_S,
                probability_I=probability_I,
                other_targets=other_targets,
            )
        )

    sampled = [loss(draws(rng, 400)) for _ in range(100)]
    assert np.mean(sampled) == pytest.approx(loss(np.zeros(0, np.int64)), abs=0.02)
