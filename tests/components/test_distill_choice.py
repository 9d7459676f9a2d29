"""What ranks: never below the best source or the plain fusion by more than chance, however few the requests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from components.distill import choice, mixing, scorer
from components.distill.candidate_table import CandidateTable
from components.distill.choice import Choice
from components.distill.config import DistillConfig
from components.distill.scorer import ScorerInputs
from rankline.model.scoring import Catalogue, feature_names
from rankline.runtime.progress import Progress

NAMES = feature_names(users=True, queries=True)
CONFIG = DistillConfig(scorer_epochs=3)
CPU = torch.device("cpu")
ITEMS, SIZE = 60, 4
ALIKE = {"towers": 1.0, "covisit": 1.0, "popular": 1.0}


def drawn(count: int, seed: int, *, strength: Mapping[str, float]) -> ScorerInputs:
    """Generated requests of 40 candidates; a source's score is noise plus its strength for the target."""
    rng = np.random.default_rng(seed)
    rows, features, targets = [], [], []
    for _ in range(count):
        rows_N = np.sort(rng.choice(ITEMS, 40, replace=False))
        target = rng.integers(40)
        features_NF = np.zeros((40, len(NAMES.columns)), np.float32)
        for source, feature in mixing.SOURCE_ORDER.items():
            scores_N = rng.normal(size=40)
            scores_N[target] += strength.get(source, 0.0)
            span = scores_N.max() - scores_N.min()
            share_N = (scores_N - scores_N.min()) / span
            features_NF[:, NAMES.columns.index(feature)] = scores_N - scores_N.max() if source == "towers" else share_N
        rows.append(rows_N)
        features.append(features_NF)
        targets.append(rows_N[[target]])
    left_RD = np.zeros((count, SIZE), np.float32)
    table = CandidateTable(
        [str(n) for n in range(count)], left_RD, rows, features, targets, [np.zeros(1, np.float32)] * count
    )
    return ScorerInputs(table, None, torch.zeros(0), _catalogue(), NAMES, heads=1)


def _catalogue() -> Catalogue:
    vectors_ID = np.random.default_rng(0).normal(size=(ITEMS, SIZE)).astype(np.float32)
    return Catalogue([], {}, vectors_ID, np.zeros((ITEMS, 0), np.float32), [], None, np.zeros(ITEMS, np.float32))


def chosen(inputs: ScorerInputs, config: DistillConfig = CONFIG) -> Choice:
    return choice.choose(inputs, config, device=CPU, progress=Progress())


def served(inputs: ScorerInputs, what: Choice, unseen: CandidateTable) -> mixing.Scores:
    """nDCG@10 of unseen requests by what was chosen and fitted."""
    fitted, _ = choice.fit(what, inputs, CONFIG, device=CPU, progress=Progress())
    return scorer.ndcg(unseen, fitted, inputs.catalogue)


def not_below(difference_R: mixing.Scores) -> bool:
    return bool(difference_R.mean() + 1.96 * difference_R.std() / np.sqrt(len(difference_R)) >= 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 10, pytest.param(200, marks=pytest.mark.integration)])
@pytest.mark.parametrize(
    "strength",
    [ALIKE, {"words": 50.0}, {"towers": 3.0, "words": 2.0}],
    ids=["alike", "one perfect", "two of five"],
)
def test_what_is_served_is_not_below_fusion_or_the_best_source(
    strength: dict[str, float], count: int, seed: int
) -> None:
    inputs, unseen = drawn(count, seed, strength=strength), drawn(500, 100 + seed, strength=strength).table
    ours = served(inputs, chosen(inputs), unseen)
    assert not_below(ours - mixing.ndcg_by_weights(unseen, mixing.fusion(NAMES)))
    if count:  # without requests nothing can tell the best source
        best = mixing.best_source(unseen, NAMES)
        assert not_below(ours - mixing.ndcg_by_weights(unseen, mixing.single(NAMES, best)))


def test_without_requests_the_fusion_is_served_and_says_so() -> None:
    inputs = drawn(0, 0, strength=ALIKE)
    summary = chosen(inputs).summary(inputs)
    assert (summary["ranks_by"], summary["chosen_on"]) == ("fusion", 0)
    assert summary["weights"] == {
        "towers": 1,
        "covisit": 1,
        "popular": 1,
        "words": 1,
        "bm25": mixing.FUSION_WEIGHTS["bm25"],
    }


def test_popularity_counts_in_the_fusion_where_no_query_says_what_is_wanted() -> None:
    for users, queries, expected in ((True, False, 3.0), (True, True, 1.0), (False, True, 0.0)):
        names = feature_names(users=users, queries=queries)
        assert mixing.fusion(names)[names.columns.index("popular_share")] == expected


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_a_handful_of_requests_is_no_refusal(count: int) -> None:
    """Only what is plain from so few takes the place of the fusion."""
    inputs = drawn(count, 0, strength={"covisit": 50.0})
    assert chosen(inputs).kind == ("mix" if count >= 5 else "fusion")


def test_a_tie_goes_to_the_mix_which_few_requests_leave_near_the_fusion() -> None:
    for seed in range(3):
        inputs = drawn(10, seed, strength={})
        assert chosen(inputs).kind == "mix"
        step_F = np.abs(choice.begin("mix", inputs) - mixing.fusion(NAMES))
        assert 0 < step_F.max() < 4
    assert mixing.fitted(drawn(0, 0, strength={}).table, NAMES).tolist() == mixing.fusion(NAMES).tolist()


@pytest.mark.parametrize("spread", [1e-6, 1e-4, 1e-3])
def test_a_source_that_hardly_tells_candidates_apart_gets_no_enormous_weight(spread: float) -> None:
    inputs, column = drawn(200, 1, strength=ALIKE), NAMES.columns.index(mixing.SOURCE_ORDER["popular"])
    for features_NF in inputs.table.features:
        features_NF[:, column] *= spread
    assert abs(mixing.fitted(inputs.table, NAMES)[column]) < 300


def test_one_good_source_among_noise_gets_the_weight() -> None:
    what = chosen(drawn(60, 0, strength={"covisit": 50.0}))
    assert min(what.quality["source"], what.quality[what.kind]) > 0.99 > what.quality["fusion"]


def test_another_takes_the_place_of_the_mix_only_where_it_is_clearly_better() -> None:
    better_R = np.full(20, 0.1)
    noise_R = np.random.default_rng(0).normal(size=20)
    assert choice._clearly_better(better_R + 0.01 * noise_R)
    assert not choice._clearly_better(better_R + noise_R)
    assert not choice._clearly_better(np.zeros(20))


@pytest.mark.integration
def test_the_scorer_is_served_where_it_learns_more_than_a_mix() -> None:
    """What decides is a feature that no source has."""
    inputs = drawn(300, 0, strength={})
    column = NAMES.columns.index("item_price")
    for features_NF, targets, rows in zip(inputs.table.features, inputs.table.targets, inputs.table.rows):
        features_NF[:, column] = np.isin(rows, targets)
    what = chosen(inputs, CONFIG.model_copy(update={"scorer_epochs": 5}))
    assert what.kind == "scorer"
    assert what.quality["scorer"] > what.quality["mix"] + 0.3


def test_a_setting_decides_instead() -> None:
    inputs = drawn(20, 0, strength={"covisit": 50.0})
    assert chosen(inputs, CONFIG.model_copy(update={"scorer_choice": "fusion"})).kind == "fusion"
    assert chosen(inputs, CONFIG.model_copy(update={"scorer_choice": "mix"})).kind == "mix"
    assert chosen(inputs, CONFIG.model_copy(update={"scorer_choice": "scorer"})).kind == "fusion"  # too few for it


def test_where_a_mix_was_chosen_the_first_head_is_the_mix_alone() -> None:
    inputs = drawn(30, 0, strength={"covisit": 50.0})
    fitted, history = choice.fit(chosen(inputs), inputs, CONFIG, device=CPU, progress=Progress())
    assert history.curve == []
    expected = [features_NF @ fitted.begin_F.numpy() for features_NF in inputs.table.features]
    for logits_NH, scores_N in zip(scorer.logits(inputs.table, fitted, inputs.catalogue), expected):
        np.testing.assert_allclose(logits_NH[:, 0], scores_N, atol=1e-5)


def test_a_trained_first_head_can_be_silenced_and_the_second_stays() -> None:
    torch.manual_seed(0)
    both = scorer.Scorer(size=SIZE, features=len(NAMES.columns), pair=2, hidden=3, dropout=0.0, heads=2).eval()
    for parameter in both.parameters():
        torch.nn.init.normal_(parameter)
    inputs = (torch.randn(1, SIZE), torch.randn(1, 5, SIZE), torch.randn(1, 5, len(NAMES.columns)))
    before = both(*inputs)
    both.silence_first_head()
    assert torch.equal(both(*inputs)[..., 1], before[..., 1])
    assert bool((both(*inputs)[..., 0] == 0).all())
    assert bool((before[..., 0] != 0).all())
