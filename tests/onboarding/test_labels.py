"""The labels that `rankline init` proposes: for each kind of log, what ingest makes of its events with the map."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import pytest

from components.ingest.step import ingest
from onboarding.inference.dry_run import dry_run
from onboarding.inference.event_words import event_label, is_negated
from onboarding.inference.label_text import label_sentences, other_sentences
from onboarding.inference.proposal import Proposal, propose
from onboarding.inference.render import render_map
from onboarding.survey.survey import survey
from pipelines.recipes import interactions
from tests.onboarding import odd_sources
from tests.onboarding.event_logs import EVENTS, chinese_shop, common, cycle, event_log, json_log
from tests.onboarding.proposals import log, tried


def proposed(source: Path, **overrides: Any) -> Proposal:
    return propose(survey(str(source)), name="mine", **overrides)


def written(proposal: Proposal) -> dict[str, Any]:
    """The map as it is read again: its comments are none of its settings."""
    settings: dict[str, Any] = tomllib.loads(render_map(proposal))
    assert settings == json.loads(json.dumps(proposal.settings))
    return settings


def feedback(proposal: Proposal, folder: Path) -> tuple[int, int, int]:
    """How many events ingest takes for positives, negatives and neither, with the written map."""
    path = folder / "map.toml"
    path.write_text(render_map(proposal))
    raw = folder / "raw"
    ingest(raw, config=interactions(proposal.survey.source, str(path)).ingest)
    counts = json.loads((raw / "summary.json").read_text())["feedback"]
    return counts["positives"], counts["negatives"], counts["neither"]


def shares(events: int, *parts: int) -> tuple[int, ...]:
    return tuple(events * part // sum(parts) for part in parts)


@pytest.mark.integration
def test_clicks_as_zero_and_one(tmp_path: Path) -> None:
    columns = common(
        impression_id=lambda n: f"r{n // 4}", position=lambda n: n % 4 + 1, clicked=lambda n: int(n % 4 == 0),
        is_purchase=lambda n: int(n % 16 == 0),
    )  # fmt: skip
    proposal = proposed(event_log(tmp_path / "log", columns))
    settings = written(proposal)
    assert settings["labels"] == {
        "click": {"type": "binary", "weight": 1},
        "purchase": {"type": "binary", "weight": 5, "after": "click"},
    }
    assert settings["columns"]["labels"] == {"click": "clicked", "purchase": "is_purchase"}
    assert (settings["columns"]["request_id"], settings["columns"]["position"]) == ("impression_id", "position")
    assert proposal.kind == "interactions"
    assert feedback(proposal, tmp_path) == shares(EVENTS, 1, 3, 0)


@pytest.mark.integration
def test_a_purchase_without_a_click_is_not_after_it(tmp_path: Path) -> None:
    columns = common(clicked=lambda n: int(n % 4 == 0), bought=lambda n: int(n % 6 == 0))
    assert "after" not in written(proposed(event_log(tmp_path / "log", columns)))["labels"]["purchase"]


@pytest.mark.integration
def test_impressions_and_clicks_by_type_of_event(tmp_path: Path) -> None:
    kinds = cycle("impression", "impression", "impression", "click", "order", "scroll", "frobnicate", "impression")
    proposal = proposed(event_log(tmp_path / "log", common(event=kinds)))
    settings = written(proposal)
    assert settings["columns"]["event_types"] == {
        "impression": "impression", "click": "click", "order": "purchase", "scroll": "", "frobnicate": "",
    }  # fmt: skip
    assert {name: label["weight"] for name, label in settings["labels"].items()} == {"click": 1, "purchase": 5}
    assert feedback(proposal, tmp_path) == shares(EVENTS, 2, 4, 2)
    assert [gap.what for gap in proposal.gaps if "frobnicate" in gap.what]
    sentences = " / ".join(other_sentences(proposal))
    assert "event = impression: only shown; a negative unless a label makes it a positive" in sentences
    assert "event = scroll: says nothing of an item" in sentences
    assert "event = frobnicate: not known" in sentences


@pytest.mark.parametrize(
    ("kinds", "items", "request_rows", "after"),
    [
        (("impression", "impression", "click", "order"), "abaa", 4, True),
        (("impression", "impression", "click", "order"), "abab", 4, False),  # bought without a click
        (("impression", "impression", "click", "order"), "abaa", 1, False),  # each row is a request of its own
        (("impression", "impression", "click", "order"), "abaa", 0, False),  # without requests
        (("click", "order"), "aa", 2, False),  # nothing was shown
    ],
)
def test_a_purchase_after_a_click_by_type_of_event(
    tmp_path: Path, kinds: tuple[str, ...], items: str, request_rows: int, after: bool
) -> None:
    columns = common(event=cycle(*kinds), item_id=cycle(*(f"i{'ab'.index(each)}" for each in items)))
    columns["user_id"] = lambda n: f"u{n // len(kinds) % 97}"
    if request_rows:
        columns["request_id"] = lambda n: f"r{n // request_rows}"
    purchase = written(proposed(event_log(tmp_path / "log", columns)))["labels"]["purchase"]
    assert purchase.get("after") == ("click" if after else None)


@pytest.mark.integration
def test_a_view_beside_clicks_alone_is_an_impression(tmp_path: Path) -> None:
    of_ads = proposed(event_log(tmp_path / "ads", common(action=cycle("view", "view", "view", "click"))))
    assert written(of_ads)["columns"]["event_types"] == {"view": "impression", "click": "click"}
    of_shop = proposed(event_log(tmp_path / "shop", common(action=cycle("view", "view", "click", "purchase"))))
    assert written(of_shop)["columns"]["event_types"] == {"view": "view", "click": "click", "purchase": "purchase"}
    assert written(of_shop)["labels"]["view"]["weight"] == 0.2
    only_views = proposed(event_log(tmp_path / "pages", common(action=cycle("view", "view", "login", "view"))))
    assert written(only_views)["labels"] == {"view": {"type": "binary", "weight": 1}}


def test_events_of_web_analytics(tmp_path: Path) -> None:
    kinds = cycle(
        "page_view", "view_item_list", "select_item", "view_item", "add_to_cart", "remove_from_cart", "begin_checkout",
        "purchase", "refund", "session_start",
    )  # fmt: skip
    proposal = proposed(event_log(tmp_path / "log", common(event_name=kinds)))
    settings = written(proposal)
    assert settings["columns"]["event_types"] == {
        "page_view": "", "view_item_list": "impression", "select_item": "click", "view_item": "view",
        "add_to_cart": "cart", "remove_from_cart": "remove", "begin_checkout": "cart", "purchase": "purchase",
        "refund": "return", "session_start": "",
    }  # fmt: skip
    weights = {name: label["weight"] for name, label in settings["labels"].items()}
    assert weights["purchase"] > weights["cart"] > weights["click"] > weights["view"] > 0 > weights["remove"]
    assert feedback(proposal, tmp_path) == shares(EVENTS, 5, 3, 2)


@pytest.mark.integration
def test_reviews_with_a_verified_purchase(tmp_path: Path) -> None:
    columns = common(rating=lambda n: float(n % 5 + 1), verified_purchase=lambda n: n % 3 > 0)
    proposal = proposed(json_log(tmp_path / "log", columns))
    settings = written(proposal)
    assert settings["labels"]["purchase"] == {"type": "binary", "weight": 0}
    rating = settings["labels"]["rating"]
    assert (rating["type"], rating["at_least"], rating["scale"]) == ("graded", 4, [1, 5])
    assert feedback(proposal, tmp_path) == shares(EVENTS, 2, 3, 0)  # by the rating alone
    assert "makes no positive" in label_sentences(proposal)["purchase"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("values", "scale", "liked", "positives"),
    [
        ((0.5, 2.5, 3.5, 4.0, 4.5, 5.0), [0.5, 5], 4, 3),  # half stars
        ((1, 3, 5, 6, 8, 10), [1, 10], 7, 2),
        ((0, 20, 55, 69, 70, 100), [0, 100], 70, 2),
        ((-1, -1, 1, 1, -1, 1), [-1, 1], 1, 3),
    ],
)
def test_a_rating_keeps_its_scale(
    tmp_path: Path, values: tuple[float, ...], scale: list[float], liked: float, positives: int
) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(rating=cycle(*values))))
    rating = written(proposal)["labels"]["rating"]
    assert (rating["type"], rating["scale"], rating["at_least"]) == ("graded", scale, liked)
    assert rating["weight"] == pytest.approx(1 / scale[1])
    assert feedback(proposal, tmp_path) == shares(EVENTS, positives, 6 - positives, 0)


def test_thumbs_are_two_kinds_of_events(tmp_path: Path) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(feedback=cycle("thumbs_up", "thumbs_down", "thumbs_up"))))
    assert written(proposal)["columns"]["event_types"] == {"thumbs_up": "like", "thumbs_down": "dislike"}
    assert feedback(proposal, tmp_path) == shares(EVENTS, 2, 1, 0)


def test_a_music_app_with_skips_and_dislikes(tmp_path: Path) -> None:
    kinds = cycle("play", "play", "skip", "dislike", "favorite", "search")
    seconds = lambda n: 30 + n * 37 % 200  # noqa: E731
    proposal = proposed(event_log(tmp_path / "log", common(action=kinds, seconds_played=seconds)))
    settings = written(proposal)
    assert settings["labels"]["dwell"] == {"type": "continuous", "weight": 0}
    assert (settings["labels"]["skip"]["weight"], settings["labels"]["dislike"]["weight"]) == (-1, -1)
    assert settings["columns"]["labels"] == {"dwell": "seconds_played"}
    positive, negative, neither = feedback(proposal, tmp_path)
    assert (positive, negative, neither) == shares(EVENTS, 3, 2, 1)


@pytest.mark.integration
@pytest.mark.parametrize("column", ["skipped", "disliked", "returned"])
def test_a_log_that_names_only_what_went_wrong(tmp_path: Path, column: str) -> None:
    """Of plays with yes or no for a skip, those without one are the positives."""
    opposite = {"skipped": "play", "disliked": "like", "returned": "purchase"}[column]
    for number, source in enumerate(
        (
            event_log(tmp_path / "csv", common(**{column: lambda n: int(n % 3 == 0)})),
            json_log(tmp_path / "json", common(**{column: lambda n: n % 3 == 0})),
        )
    ):
        proposal = proposed(source)
        types = written(proposal)["columns"]["event_types"]
        assert sorted(types.values()) == sorted([opposite, str(event_label(column))])
        folder = tmp_path / str(number)
        folder.mkdir()
        assert feedback(proposal, folder) == shares(EVENTS, 2, 1, 0)


def test_a_dwell_time_alone_makes_its_larger_half_positive(tmp_path: Path) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(watch_time=lambda n: 3 + n * 37 % 200)))
    assert written(proposal)["labels"] == {"dwell": {"type": "continuous", "weight": 1, "at_quantile": 0.5}}
    positive, negative, neither = feedback(proposal, tmp_path)
    assert (neither, abs(positive - negative) < 0.02 * EVENTS) == (0, True)


@pytest.mark.integration
def test_quantities_below_zero_are_returns(tmp_path: Path) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(quantity=cycle(1, 3, -2, 6))))
    assert written(proposal)["labels"] == {"purchase": {"type": "count", "weight": 5}}
    assert feedback(proposal, tmp_path) == shares(EVENTS, 3, 1, 0)
    without_returns = proposed(event_log(tmp_path / "other", common(quantity=cycle(1, 3, 2, 6))))
    assert "labels" not in written(without_returns)


def test_purchases_and_returns_by_type(tmp_path: Path) -> None:
    kinds = cycle("Order Completed", "Order Completed", "Order Refunded", "Order Cancelled")
    proposal = proposed(event_log(tmp_path / "log", common(type=kinds)))
    assert written(proposal)["columns"]["event_types"] == {
        "Order Completed": "purchase", "Order Refunded": "return", "Order Cancelled": "return",
    }  # fmt: skip
    assert feedback(proposal, tmp_path) == shares(EVENTS, 2, 2, 0)


def test_a_log_in_chinese(tmp_path: Path) -> None:
    proposal = proposed(chinese_shop(tmp_path / "shop"))
    columns = written(proposal)["columns"]
    assert (columns["user_id"], columns["item_id"], columns["timestamp"]) == ("用户ID", "商品ID", "时间")
    assert (columns["event_type"], columns["position"]) == ("行为类型", "位置")
    assert columns["event_types"] == {
        "曝光": "impression", "点击": "click", "加购": "cart", "购买": "purchase", "退款": "return", "登录": "",
    }  # fmt: skip
    assert feedback(proposal, tmp_path) == shares(EVENTS, 3, 4, 1)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("Warenkorb hinzugefügt", "cart"), ("gekauft", "purchase"), ("Rückgabe", "return"), ("achat", "purchase"),
        ("ajout_panier", "cart"), ("remboursement", "return"), ("añadido al carrito", "cart"), ("me gusta", "like"),
        ("no me gusta", "dislike"), ("visualizado", "view"), ("покупка", "purchase"), ("показ", "impression"),
        ("クリック", "click"), ("商品点击", "click"), ("取消收藏", "dislike"), ("收藏", "like"),
        ("removeFromCart", "remove"), ("unlike", "dislike"), ("Added to Wishlist", "like"), ("login", ""),
        ("page_view", ""), ("product_view", "view"), ("change of sort order", ""), ("clickout item", "click"),
        ("frobnicate", None), ("clk", "click"), ("not_interested", "dislike"), ("不喜欢", "dislike"), ("error", ""),
        ("login_failed", ""), ("order_cancelled", "return"),
    ],
)  # fmt: skip
def test_words_of_many_languages(value: str, label: str | None) -> None:
    assert event_label(value) == label


@pytest.mark.parametrize(
    "value",
    [
        "not_clicked", "no_purchase", "no_click", "non_click", "impression_no_click", "未点击", "nicht gekauft",
        "payment_failed", "purchase_failed", "add_to_cart_failed", "cart_abandoned", "play_error", "undo_like",
        "nonclk", "unclicked", "取消关注", "не куплено", "退款失败", "PurchaseFailed",
    ],
)  # fmt: skip
def test_what_did_not_happen_has_no_label(value: str) -> None:
    assert (event_label(value), is_negated(value)) == (None, True)


@pytest.mark.parametrize("kind", ["not_clicked", "purchase_failed", "undo_like"])
def test_a_kind_that_did_not_happen_is_kept_out_and_named(tmp_path: Path, kind: str) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(event=cycle("impression", "click", kind))))
    assert written(proposal)["columns"]["event_types"] == {"impression": "impression", "click": "click", kind: ""}
    assert feedback(proposal, tmp_path) == shares(EVENTS, 1, 1, 1)
    assert [gap.what for gap in proposal.gaps if kind in gap.what]


@pytest.mark.parametrize("rating", [None, 5])
def test_ratings_from_one_to_five_alone_declare_nothing(tmp_path: Path, rating: int | None) -> None:
    proposal = proposed(odd_sources.ratings(tmp_path / "books", rating=rating))
    assert "labels" not in written(proposal)
    assert written(proposal)["columns"]["labels"] == {"rating": "stars"}
    assert label_sentences(proposal) == {}


def test_kinds_of_events_without_a_positive_are_a_gap(tmp_path: Path) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(event=cycle("impression", "login"))))
    assert "labels" not in written(proposal)
    assert "event_types" not in written(proposal)["columns"]
    assert [gap.what for gap in proposal.gaps if "makes a positive" in gap.what]


@pytest.mark.integration
def test_labels_that_ingest_refuses_are_never_sure(tmp_path: Path) -> None:
    source = event_log(tmp_path / "log", common(clicked=lambda n: int(n % 4 == 0), extra=lambda n: n % 9))
    sure = proposed(source)
    assert {each.setting: each.confidence_label for each in sure.column_mappings["events"]}["labels.click"] == "sure"
    # a label cannot have the name of a column that ingest writes
    taken = proposed(source, overrides={"labels.item_id": "extra"})
    labels = {each.setting: each for each in taken.column_mappings["events"] if each.setting.startswith("labels.")}
    assert {each.confidence_label for each in labels.values()} == {"a guess"}
    assert "ingest refuses it" in labels["labels.click"].why


def test_a_label_of_any_name_can_be_given(tmp_path: Path) -> None:
    source = event_log(tmp_path / "log", common(finished=lambda n: int(n % 4 == 0), zap=lambda n: int(n % 8 == 0)))
    settings = written(proposed(source, overrides={"labels.donation": "zap"}))
    assert settings["labels"]["donation"] == {"type": "binary", "weight": 1}
    assert settings["columns"]["labels"] == {"play": "finished", "donation": "zap"}


@pytest.mark.parametrize(
    ("kinds", "missing"),
    [
        (("click", "login"), True),
        (("click", "purchase", "login"), True),
        (("view", "cart", "purchase"), True),
        (("impression", "impression", "click"), False),
        (("play", "skip"), False),
    ],
)
def test_kinds_of_events_without_a_negative_are_a_gap(tmp_path: Path, kinds: tuple[str, ...], missing: bool) -> None:
    gaps = proposed(event_log(tmp_path / "log", common(event=cycle(*kinds)))).gaps
    assert bool([gap for gap in gaps if "no event is a negative" in gap.what]) == missing


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ((True, False, "None", False), (1, 2, 1)), ((0, 1, "NA"), (1, 1, 1)), ((0, 1, "NULL"), (1, 1, 1)),
        (("0.0", "1.0", "nan"), (1, 1, 1)), (("yes", "no", "<NA>", "no", "\\N"), (1, 2, 2)),
    ],
)  # fmt: skip
def test_words_for_missing_are_no_values_of_a_label(
    tmp_path: Path, values: tuple[object, ...], parts: tuple[int, ...]
) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(clicked=cycle(*values))))
    assert written(proposal)["labels"] == {"click": {"type": "binary", "weight": 1}}
    assert feedback(proposal, tmp_path) == shares(EVENTS, *parts)


@pytest.mark.integration
@pytest.mark.parametrize("missing", ["nan", "None", "NA"])
def test_a_word_for_missing_among_the_values_of_other_labels(tmp_path: Path, missing: str) -> None:
    rating = lambda n: missing if n == 7 else n % 10 + 1  # noqa: E731
    rated = proposed(event_log(tmp_path / "rated", common(rating=rating)))
    assert written(rated)["labels"]["rating"]["scale"] == [1, 10]
    positive, _, neither = feedback(rated, tmp_path)  # row 7 would be an 8
    assert (positive, neither) == (EVENTS * 4 // 10 - 1, 1)
    skipped = proposed(event_log(tmp_path / "played", common(skipped=cycle(1, 0, missing))))
    assert feedback(skipped, tmp_path) == shares(EVENTS, 1, 1, 1)


@pytest.mark.parametrize(("write", "empty"), [(event_log, ""), (event_log, "  "), (json_log, None), (json_log, "")])
def test_an_event_without_a_type_is_neither(tmp_path: Path, write: Any, empty: str | None) -> None:
    proposal = proposed(write(tmp_path / "log", common(event=cycle("impression", "click", empty, "impression"))))
    assert written(proposal)["columns"]["event_types"] == {"impression": "impression", "click": "click"}
    assert feedback(proposal, tmp_path) == shares(EVENTS, 1, 2, 1)
    assert any("an event without event" in sentence for sentence in other_sentences(proposal))


@pytest.mark.parametrize(
    "more", [{"viewed": (1, 1, 1, 0), "clicked": (1, 0, 0, 0)}, {"view": (1,), "clk": (1, 0, 0, 0)}]
)
def test_a_column_of_views_beside_clicks_alone_is_of_impressions(tmp_path: Path, more: dict[str, Any]) -> None:
    columns = {name: cycle(*values) for name, values in more.items()}
    proposal = proposed(event_log(tmp_path / "log", common(**columns)))
    assert written(proposal)["columns"]["labels"] == {"click": list(more)[1]}
    assert feedback(proposal, tmp_path) == shares(EVENTS, 1, 3, 0)
    assert any("only shown" in sentence for sentence in other_sentences(proposal))


def test_a_view_less_common_than_a_click_is_a_positive(tmp_path: Path) -> None:
    columns = common(viewed=cycle(1, 0, 0, 0), clicked=cycle(0, 1, 1, 0))
    assert set(written(proposed(event_log(tmp_path / "log", columns)))["labels"]) == {"view", "click"}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("behavior_type", (1, 2, 3, 4)), ("action", (1, 1, 2)), ("event", tuple(f"kind{n}" for n in range(40))),
        ("label", (0, 1)), ("click_time", ("", 1_700_000_500, 1_700_000_900)),
        ("viewed_at", ("", 1_700_000_500, 1_700_000_900)), ("not_clicked", (0, 1)),
        ("nonclk", (0, 1, 1)), ("clicked", ("a", "b", "c")), ("purchase_failed", ("yes", "no")),
    ],
)  # fmt: skip
def test_a_column_that_says_what_happened_and_is_not_mapped_is_named(
    tmp_path: Path, name: str, values: tuple[object, ...]
) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(**{name: cycle(*values)})))
    assert "labels" not in written(proposal)
    (gap,) = [gap for gap in proposal.gaps if gap.what.startswith(f"{name} ")]
    assert "every event counts as positive" in gap.what


@pytest.mark.parametrize("name", ["order_amount", "page_id", "country", "bought_at"])
def test_other_columns_are_not_taken_for_what_happened(tmp_path: Path, name: str) -> None:
    values = (1_700_000_300, 1_700_000_500) if name == "bought_at" else range(9)
    proposal = proposed(event_log(tmp_path / "log", common(**{name: cycle(*values)})))
    assert not [gap for gap in proposal.gaps if gap.what.startswith(f"{name} ")]


@pytest.mark.integration
@pytest.mark.parametrize(("clicked", "refusal"), [(0, "no event is a positive"), ("no", "no event is a positive")])
def test_a_log_without_a_positive_is_said_to_be_refused(tmp_path: Path, clicked: object, refusal: str) -> None:
    proposal = proposed(event_log(tmp_path / "log", common(clicked=cycle(clicked))))
    assert any("`rankline run` refuses the log" in gap.advice for gap in proposal.gaps)
    path = tmp_path / "map.toml"
    path.write_text(render_map(proposal))
    config = interactions(proposal.survey.source, str(path)).ingest
    assert refusal in dry_run(config).refusal
    assert dry_run(config, events=EVENTS // 2).refusal == ""  # the rest may have clicks


@pytest.mark.integration
@pytest.mark.parametrize(("name", "values"), [("click_time", ("", 1_700_000_500, 1_700_000_900)), ("type", (1, 2, 3))])
def test_a_column_that_says_no_more_than_a_label_is_not_named(
    tmp_path: Path, name: str, values: tuple[object, ...]
) -> None:
    columns = common(clicked=cycle(0, 1), **{name: cycle(*values)})
    assert not [gap for gap in proposed(event_log(tmp_path / "log", columns)).gaps if gap.what.startswith(f"{name} ")]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "rows", "is_named"),
    [
        ("view_of_page", 5, True),
        ("bezoek", 3, True),
        ("row", 1, False),  # each event has its own
        ("device", 200, False),  # fewer than there are users
    ],
)
def test_a_column_that_may_name_requests_is_named(tmp_path: Path, name: str, rows: int, is_named: bool) -> None:
    kinds = cycle("impression", "impression", "click", "impression")
    columns = common(event=kinds, **{name: lambda n: f"x{n // rows}"})
    columns["user_id"] = lambda n: f"u{n // 20}"
    proposal = proposed(event_log(tmp_path / "log", columns))
    assert "request_id" not in written(proposal)["columns"]
    named = [gap.advice for gap in proposal.gaps if "may name the request" in gap.what]
    assert bool(named) == is_named
    if named:
        again = proposed(tmp_path / "log", overrides={"request_id": name})
        assert written(again)["columns"]["request_id"] == name
        assert not [gap for gap in again.gaps if "may name the request" in gap.what]


@pytest.mark.parametrize(
    "words",
    [
        ("1", ""), ("true", "\\N"), ("x", ""), ("✓", "✗"), ("はい", "いいえ"), ("2", "0"),
    ],
)  # fmt: skip
def test_a_click_in_every_spelling(tmp_path: Path, words: tuple[str, str]) -> None:
    result = tried(tmp_path, {"events.csv": log(clicked=lambda n: words[n % 2])}).result
    assert (result.feedback["positives"], result.feedback["positives"] + result.feedback["negatives"]) == (20, 40)


def test_one_question_mark_among_yes_and_no_is_one_row_without_a_value(tmp_path: Path) -> None:
    text = log(clicked=lambda n: "?" if n == 7 else n % 2)
    assert tried(tmp_path, {"events.csv": text}).result.feedback == {"positives": 19, "negatives": 20, "neither": 1}


@pytest.mark.parametrize(
    ("cells", "scale", "unrated"),
    [
        (("-1", "1", "5", "10"), (1, 10), [-1]),
        (("1", "3", "6"), (1, 6), None),
        (("4/5", "1/5", "5/5"), None, None),
        (("★★★", "★★★★★", "★☆☆☆☆"), None, None),
    ],
)
def test_a_rating_in_every_spelling(
    tmp_path: Path, cells: tuple[str, ...], scale: tuple[int, int] | None, unrated: list[float] | None
) -> None:
    result = tried(tmp_path, {"events.csv": log(rating=lambda n: cells[n % len(cells)])})
    settings = result.proposal.settings
    assert (result.settings["rating"], result.rejected) == ("labels.rating", {})
    assert (settings.get("labels", {}).get("rating", {}).get("scale")) == (scale and list(map(float, scale)))
    assert settings["columns"].get("unrated") == unrated


@pytest.mark.parametrize(
    ("suffix", "ratings", "unrated", "scale"),
    [
        ("parquet", (-1, 1, 5, 10), [-1], (1, 10)), ("duckdb", (-1, 1, 3, 5), [-1], None),
        ("csv", (-1, 0, 5, 10), [-1], (0, 10)), ("parquet", (0, 0, 1, 10), [0], (1, 10)),
        ("csv", (-1, 0, 1, 5), [-1, 0], None), ("duckdb", (0, 1, 2, 3, 4, 5), None, (0, 5)),
        ("csv", (-1, 1, 1, -1), None, (-1, 1)), ("csv", (-10, -1, 0, 10), None, (-10, 10)),
    ],
)  # fmt: skip
def test_numbers_that_stand_for_no_rating(
    tmp_path: Path, suffix: str, ratings: tuple[int, ...], unrated: list[float] | None, scale: tuple[int, int] | None
) -> None:
    (tmp_path / "log.csv").write_text(log(100, rating=lambda n: ratings[n % len(ratings)]))
    source = tmp_path / "source"
    source.mkdir()
    if suffix == "duckdb":
        with duckdb.connect(str(tmp_path / "source/shop.duckdb")) as db:
            db.execute(f"CREATE TABLE events AS FROM read_csv('{tmp_path / 'log.csv'}')")
    elif suffix == "parquet":
        duckdb.sql(f"FROM read_csv('{tmp_path / 'log.csv'}')").write_parquet(str(source / "events.parquet"))
    else:
        (source / "events.csv").write_text((tmp_path / "log.csv").read_text())
    result = tried(tmp_path, {})
    settings = result.proposal.settings
    assert settings["columns"].get("unrated") == unrated
    assert settings.get("labels", {}).get("rating", {}).get("scale") == (scale and list(map(float, scale)))
    if unrated and not scale:
        assert result.result.feedback == {}  # a rating alone: every event is a positive


def test_a_quantity_of_one_and_minus_one_has_returns(tmp_path: Path) -> None:
    result = tried(tmp_path, {"events.csv": log(quantity=lambda n: 1 if n % 4 else -1)})
    assert result.settings["quantity"] == "labels.purchase"
    assert result.result.feedback == {"positives": 30, "negatives": 10, "neither": 0}


def test_event_types_with_blanks_are_trimmed(tmp_path: Path) -> None:
    kinds = ("click ", "purchase", " impression", "click")
    result = tried(tmp_path, {"events.csv": log(event=lambda n: kinds[n % 4])})
    types = {"click": "click", "purchase": "purchase", "impression": "impression"}
    assert (result.proposal.settings["columns"]["event_types"], result.rejected) == (types, {})
