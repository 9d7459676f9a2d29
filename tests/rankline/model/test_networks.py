"""The networks: padding, later events and empty histories do not change their outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankline.errors import UsageError
from rankline.model.networks import HEADS, HistoryTower, ItemFusion, Scorer, Standardize, Teacher

SIZE, ITEMS, FEATURES, LENGTH = 16, 12, 5, 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fusion_of(*, known: Tensor, own_dropout: float = 0.0) -> ItemFusion:
    return ItemFusion(items=ITEMS, text_size=6, side_size=3, size=SIZE, own_dropout=own_dropout, known_I=known)


def tower_of() -> HistoryTower:
    tower = HistoryTower(size=SIZE, max_history=LENGTH, layers=2, heads=2, dropout=0.3)
    torch.nn.init.normal_(tower.rating.weight)
    return tower.eval()


def teacher_of() -> Teacher:
    """A teacher with random weights in all parts, also in those that start at zero."""
    teacher = Teacher(
        fusion=fusion_of(known=torch.ones(ITEMS)), tower=tower_of(), features=FEATURES, heads=2, dropout=0.3
    )
    for weight in teacher.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return teacher.eval()


def padded(items_BLD: Tensor, length: int, junk: float) -> Tensor:
    """The same left-aligned histories, padded with ``junk``."""
    batch, held = items_BLD.shape[:2]
    behind = torch.full((batch, length - held, *items_BLD.shape[2:]), junk, dtype=items_BLD.dtype)
    return torch.cat([items_BLD, behind], 1)


# The history tower ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("junk", [0.0, 3.0])
def test_padding_does_not_change_a_history(junk: float) -> None:
    tower = tower_of()
    items_BLD, ratings_BL, lengths_B = torch.randn(2, 4, SIZE), torch.randint(0, 6, (2, 4)), torch.tensor([4, 2])
    short = tower(items_BLD, ratings_BL, lengths_B)
    long = tower(padded(items_BLD, LENGTH, junk), padded(ratings_BL, LENGTH, int(junk)), lengths_B)
    torch.testing.assert_close(short, long, atol=1e-6, rtol=1e-5)


def test_other_histories_of_a_batch_do_not_change_one() -> None:
    tower = tower_of()
    items_BLD, ratings_BL, lengths_B = torch.randn(3, 5, SIZE), torch.randint(0, 6, (3, 5)), torch.tensor([5, 1, 3])
    together = tower(items_BLD, ratings_BL, lengths_B)
    alone = torch.cat([tower(items_BLD[b : b + 1], ratings_BL[b : b + 1], lengths_B[b : b + 1]) for b in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_a_later_event_does_not_change_an_earlier_position() -> None:
    tower = tower_of()
    items_BLD, ratings_BL = torch.randn(1, 6, SIZE), torch.randint(0, 6, (1, 6))
    before = tower.hidden(items_BLD, ratings_BL)
    items_BLD[0, 3] = torch.randn(SIZE)
    ratings_BL[0, 3] = (ratings_BL[0, 3] + 1) % 6
    after = tower.hidden(items_BLD, ratings_BL)
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-6, rtol=1e-5)
    assert ((before[:, 3:] - after[:, 3:]).abs().amax(-1) > 1e-2).all()


def test_the_left_vector_is_the_last_events_and_ratings_are_heard() -> None:
    tower = tower_of()
    items_BLD, ratings_BL = torch.randn(1, 4, SIZE), torch.ones(1, 4, dtype=torch.long)
    left_BD = tower(items_BLD, ratings_BL, torch.tensor([3]))
    torch.testing.assert_close(left_BD, tower.hidden(items_BLD, ratings_BL)[:, 2])
    assert (tower(items_BLD, ratings_BL * 5, torch.tensor([3])) - left_BD).abs().max() > 1e-2


def test_an_empty_history_is_zeros() -> None:
    left_BD = tower_of()(torch.randn(2, 3, SIZE), torch.ones(2, 3, dtype=torch.long), torch.tensor([0, 3]))
    assert left_BD[0].tolist() == [0.0] * SIZE
    assert left_BD[1].abs().max() > 0.1


def test_heads_that_do_not_divide_the_vector_are_refused() -> None:
    with pytest.raises(UsageError, match=r"vector size 16, 3 heads(.|\n)*heads=1 or vector_size=18"):
        HistoryTower(size=SIZE, max_history=4, layers=1, heads=3, dropout=0.0)


# The teacher ------------------------------------------------------------------------------------------------------


def teacher_inputs(batch: int, length: int, lengths: list[int]) -> list[Tensor]:
    """A batch for the teacher: items, ratings, ages, lengths, candidates, features."""
    return [
        torch.randn(batch, length, SIZE),
        torch.randint(0, 6, (batch, length)),
        torch.rand(batch, length) * 5,
        torch.tensor(lengths),
        torch.randn(batch, 7, SIZE),
        torch.randn(batch, 7, FEATURES),
    ]


@pytest.mark.parametrize("junk", [0.0, 3.0])
@torch.no_grad()
def test_padding_does_not_change_the_teachers_scores(junk: float) -> None:
    teacher = teacher_of()
    items, ratings, ages, lengths, *rest = teacher_inputs(3, 4, [4, 2, 0])
    short = teacher(items, ratings, ages, lengths, *rest)
    longer = (padded(x, LENGTH, kind(junk)) for x, kind in ((items, float), (ratings, int), (ages, float)))
    torch.testing.assert_close(short, teacher(*longer, lengths, *rest), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_behind_an_empty_history_is_ignored() -> None:
    teacher = teacher_of()
    items, *rest = teacher_inputs(2, 4, [0, 4])
    before = teacher(items, *rest)
    after = teacher(torch.randn_like(items), *rest)
    torch.testing.assert_close(before[0], after[0], atol=1e-6, rtol=1e-5)
    assert (before[1] - after[1]).abs().max() > 1e-2


@torch.no_grad()
def test_each_candidate_is_judged_alone_and_by_all_it_is_given() -> None:
    teacher = teacher_of()
    batch = teacher_inputs(2, 4, [4, 3])
    logits_BCH = teacher(*batch)
    assert logits_BCH.shape == (2, 7, len(HEADS))
    some = teacher(*batch[:4], batch[4][:, 2:5], batch[5][:, 2:5])
    torch.testing.assert_close(logits_BCH[:, 2:5], some, atol=1e-5, rtol=1e-5)
    for part in range(6):
        other = list(batch)
        other[part] = teacher_inputs(2, 4, [3, 2])[part]
        assert (teacher(*other) - logits_BCH).abs().max() > 1e-3, f"input {part} is not heard"


# Item vectors -----------------------------------------------------------------------------------------------------


def test_an_item_unseen_in_training_has_a_vector_of_its_text_and_side_features() -> None:
    known_I = torch.ones(ITEMS)
    known_I[3] = 0
    fusion = fusion_of(known=known_I, own_dropout=0.5).eval()
    text_IT, side_IS = torch.randn(ITEMS, 6), torch.randn(ITEMS, 3)
    fused_ID = fusion(text_IT, side_IS)
    without_ID = fusion.text(text_IT) + fusion.side(side_IS)
    assert torch.equal(fused_ID[3], without_ID[3])
    torch.testing.assert_close(fused_ID[4], without_ID[4] + fusion.own.weight[4])
    fusion.train()(text_IT, side_IS).pow(2).sum().backward()
    assert fusion.own.weight.grad is not None
    assert fusion.own.weight.grad[3].abs().max() == 0


def test_an_items_own_vector_is_hidden_as_often_as_asked() -> None:
    fusion = fusion_of(known=torch.ones(ITEMS), own_dropout=0.25).train()
    text_IT, side_IS = torch.zeros(ITEMS, 6), torch.zeros(ITEMS, 3)
    hidden = [(fusion.non_text_part(side_IS).abs().sum(1) == 0).float().mean() for _ in range(500)]
    assert float(torch.stack(hidden).mean()) == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(fusion.eval()(text_IT, side_IS), fusion.own.weight + fusion.text.bias)


# Features and the scorer ------------------------------------------------------------------------------------------


def test_features_are_brought_to_one_scale_and_constants_vanish() -> None:
    sample_NF = torch.stack([torch.randn(1000) * 50 + 7, torch.full((1000,), 3.0), torch.randn(1000)], 1)
    standardize = Standardize(3)
    standardize.fit(sample_NF)
    out_NF = standardize(sample_NF)
    torch.testing.assert_close(out_NF.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out_NF.std(0), torch.tensor([1.0, 0.0, 1.0]), atol=1e-3, rtol=0)
    assert standardize(torch.tensor([[1e9, 1e9, -1e9]])).tolist() == [[8, 0, -8]]


@torch.no_grad()
def test_the_prior_is_part_of_the_first_score_alone() -> None:
    scorer = Scorer(size=SIZE, features=FEATURES, pair=4, hidden=8, dropout=0.2).eval()
    left, items, features = torch.randn(2, SIZE), torch.randn(2, 9, SIZE), torch.randn(2, 9, FEATURES)
    untrained = scorer(left, items, features)
    scorer.begin_F[1] = 1.0
    prior = scorer(left, items, features) - untrained
    torch.testing.assert_close(prior[..., 0], features[..., 1])
    assert not prior[..., 1:].any()


@torch.no_grad()
def test_the_scorer_judges_each_candidate_alone() -> None:
    scorer = Scorer(size=SIZE, features=FEATURES, pair=4, hidden=8, dropout=0.2).eval()
    for weight in scorer.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    left, items, features = torch.randn(2, SIZE), torch.randn(2, 9, SIZE), torch.randn(2, 9, FEATURES)
    logits_BCH = scorer(left, items, features)
    assert logits_BCH.shape == (2, 9, len(HEADS))
    torch.testing.assert_close(logits_BCH[:, 4:5], scorer(left, items[:, 4:5], features[:, 4:5]))
    for changed in (scorer(left + 1, items, features), scorer(left, items + 1, features)):
        assert (changed - logits_BCH).abs().max() > 1e-3
