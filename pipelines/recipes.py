"""The recipes that come with Rankline: each is a function that returns the settings of a run.

A recipe starts from another and changes a few settings. `--recipe my_module:my_recipe` names one of your own, and
`--set finetune.epochs=3` changes a single setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from components.distill.config import DistillConfig
from components.evaluate.config import EvaluateConfig
from components.export.config import ExportConfig
from components.featurize.config import FeaturizeConfig
from components.finetune.config import FinetuneConfig
from components.ingest.config import Columns, IngestConfig
from components.promote.config import DecideConfig
from components.validate.config import ValidateConfig
from pipelines.overrides import change, ingest_config, load_recipe, requires_source
from pipelines.placement import ClusterConfig, Resources
from pipelines.recipe import SOURCE_PLACEHOLDER, WORKSPACE_PLACEHOLDER, Recipe, change_of
from rankline.gates.policy import STRONGEST, NotWorse
from rankline.io.sources import Tables
from rankline.labels import Label

# packages of recipes import these from here
__all__ = ["RECIPES", "Recipe", "change", "change_of", "load_for_display", "named", "needs_source"]


SMOKE_SIZE = Resources(memory="3Gi")  # so that a node of two processors and little memory runs it


def near_strongest(margin: float, *, metric: str = "ndcg@10", proven: bool = False) -> tuple[NotWorse, ...]:
    """A gate: the candidate is not worse than the strongest baseline by more than a margin.

    Where that is neither proven nor refuted the candidate passes, and the verdict says so, unless it has to be
    ``proven``. That is for recipes whose requests are few, or whose data nobody has seen.
    """
    return (
        NotWorse(
            kind="not_worse",
            name="not worse than the strongest baseline",
            metric=metric,
            than=STRONGEST,
            margin=margin,
            min_requests=2,
            when_insufficient="refuse" if proven else "allow",
        ),
    )


def smoke() -> Recipe:
    """A tiny synthetic shop and a tiny random language model: the whole pipeline in seconds, for tests."""
    return Recipe(
        name="smoke",
        description="A tiny synthetic shop and a tiny random language model: the whole pipeline in seconds, for tests.",
        material=("smoke",),
        ingest=IngestConfig(source=f"{WORKSPACE_PLACEHOLDER}/material/smoke", columns=Columns(user_attributes=())),
        validate=ValidateConfig(profile_name="smoke"),
        featurize=FeaturizeConfig(train_requests_per_user=5, max_history=20, negatives=10),
        finetune=FinetuneConfig(
            max_tokens=16,
            vector_size=16,
            max_history=20,
            layers=1,
            epochs=4,
            batch_size=16,
            negatives=16,
            evaluate_every=2,
            soft_candidates=16,
            rankings_depth=50,
        ),
        distill=DistillConfig(
            max_history=20, layers=1, epochs=8, batch_size=16, evaluate_every=4, scorer_epochs=15,
            candidates_per_source=30,
        ),
        export=ExportConfig(recipe="smoke", catalogue="smoke", parity_samples=32),
        evaluate=EvaluateConfig(ks=(5, 10), top_k=50, latency_samples=20, bootstrap_samples=500),
        decide=DecideConfig(
            min_requests=50, must_beat=["popularity", "fresh_popularity"], gates=near_strongest(0.5), margin=0.5,
            resamples=500, loss_budget=None,
        ),
        cluster=ClusterConfig(
            small=Resources(cpu="1", memory="1Gi", timeout_s=900, retries=0), data=SMOKE_SIZE, train=SMOKE_SIZE,
            serve=SMOKE_SIZE,
        ),
    )  # fmt: skip


def movielens() -> Recipe:
    """MovieLens-100k with MiniLM reading titles and genres: the default real run."""
    return Recipe(
        name="movielens",
        description="MovieLens-100k with MiniLM reading titles and genres; the default real run.",
        material=("movielens", "minilm"),
        ingest=IngestConfig(source=f"{WORKSPACE_PLACEHOLDER}/material/ml-100k"),
        validate=ValidateConfig(profile_name="movielens", min_items=1000, min_users=500, min_events=10_000),
        featurize=FeaturizeConfig(train_requests_per_user=20),
        finetune=FinetuneConfig(
            encoder=f"{WORKSPACE_PLACEHOLDER}/material/all-MiniLM-L6-v2",
            encoder_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            epochs=30,
            evaluate_every=10,
        ),
        distill=DistillConfig(epochs=30),
        export=ExportConfig(recipe="movielens", catalogue="movielens"),
        decide=DecideConfig(
            floors={"ndcg@10": 0.08},
            must_beat=["popularity", "fresh_popularity", "item_knn_decay"],
            gates=near_strongest(0.05, proven=True),
            margin=0.15,
            min_requests=500,
        ),
    )


MINILM_FINETUNE = FinetuneConfig(
    encoder=f"{WORKSPACE_PLACEHOLDER}/material/all-MiniLM-L6-v2",
    encoder_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
# a recipe that ranks by text keeps the full width of the encoder
TEXT_SETTINGS = {"vector_size": 384, "stemmer": "english", "soft_candidates": 32}
# with few validation requests the scorer takes small steps
SMALL_DATA_SETTINGS: dict[str, Any] = {"scorer_batch_size": 8, "scorer_epochs": 15}
EMPTY_COLUMNS = Columns(title="", category="", created_year="", user_attributes=(), labels={}, timestamp="", user_id="")


def faq() -> Recipe:
    """Customer service: a question, or the last turns of a conversation, to its answer; or to none, if unsure."""
    return Recipe(
        name="faq",
        description="Customer-service answers: a question, or the last turns of a conversation, to its answer.",
        material=("faq", "minilm"),
        ingest=IngestConfig(
            source=f"{WORKSPACE_PLACEHOLDER}/material/faq",
            format="tables",
            tables=Tables(events="faq.jsonl", items="faq.jsonl", queries="faq.jsonl"),
            columns=change_of(
                EMPTY_COLUMNS, item_id="id", query_id="id", query_text="q", title="a", category="category"
            ),
        ),
        validate=ValidateConfig(profile_name="faq", min_items=100, min_events=100),
        finetune=change_of(MINILM_FINETUNE, **TEXT_SETTINGS, max_tokens=96),
        distill=DistillConfig(
            stemmer="english",
            epochs=10,
            batch_size=32,
            learning_rate=5e-4,
            evaluate_every=2,
            calibrate="open",
            **SMALL_DATA_SETTINGS,
        ),
        export=ExportConfig(recipe="faq", catalogue="faq"),
        evaluate=EvaluateConfig(stemmer="english", ks=(1, 5, 10, 50)),
        # a few dozen requests, the same every night, never prove a loss budget
        decide=DecideConfig(
            floors={"ndcg@10": 0.6},
            must_beat=["bm25"],
            gates=near_strongest(0.2),
            margin=0.2,
            min_requests=50,
            loss_budget=None,
        ),
    )


def search(path: str) -> Recipe:
    """Documents for queries: any BEIR folder (corpus.jsonl, queries.jsonl, qrels/)."""
    return Recipe(
        name="search",
        description="Documents for queries: any BEIR folder.",
        material=("minilm",),
        ingest=IngestConfig(source=path, format="beir"),
        validate=ValidateConfig(profile_name="search"),
        finetune=change_of(MINILM_FINETUNE, **TEXT_SETTINGS, max_tokens=96, pair_tokens=128),
        distill=DistillConfig(
            stemmer="english", epochs=10, batch_size=16, learning_rate=5e-4, evaluate_every=2, **SMALL_DATA_SETTINGS
        ),
        export=ExportConfig(recipe="search", catalogue="search", fp16=False),
        evaluate=EvaluateConfig(stemmer="english"),
        # a few dozen requests, the same every night, never prove a loss budget
        decide=DecideConfig(
            must_beat=["popularity"], gates=near_strongest(0.2), margin=0.2, min_requests=20, loss_budget=None
        ),
    )


def labels(path: str, map: str = "") -> Recipe:
    """Text classification: texts and labels in CSV files; the labels are the items, their probabilities are calibrated.

    Columns that are not called text and label are named by a map, as for `interactions`. The encoder is trained from
    scratch on the texts, so any language works; with few texts, choose a pretrained one.
    """
    return Recipe(
        name="labels",
        description="Text classification: a CSV of texts and labels, ranked by /v1/rank with calibrated probabilities.",
        ingest=ingest_config(
            path,
            map,
            tables={"events": "*.csv"},
            items_from_events=True,
            columns={**EMPTY_COLUMNS.model_dump(), "item_id": "label", "query_text": "text"},
        ),
        validate=ValidateConfig(profile_name="labels", min_items=2, min_events=100),
        finetune=FinetuneConfig(
            encoder="fresh", vector_size=64, max_tokens=96, pair_tokens=112, pair_negatives=1, pair_epochs=2,
            pair_requests=32, encoder_learning_rate=1e-3, rankings_depth=10,
        ),
        distill=DistillConfig(
            train_encoder=True, encoder_learning_rate=1e-3, encoder_items_per_step=2, epochs=4, batch_size=64,
            evaluate_every=1, calibrate="closed", candidates_per_source=100, likeness=5.0,
        ),
        export=ExportConfig(recipe="labels", catalogue="labels"),
        evaluate=EvaluateConfig(ks=(1, 2), primary="ndcg@1", top_k=2, latency_k=2),
        decide=DecideConfig(
            primary="ndcg@1", floors={"ndcg@1": 0.6}, must_beat=["popularity"],
            gates=near_strongest(0.1, metric="ndcg@1"), margin=0.05, min_requests=100,
        ),
    )  # fmt: skip


def interactions(path: str, map: str = "") -> Recipe:
    """Your own event log: files of events and items in a folder, read as a TOML or JSON map says."""
    unnamed: dict[str, Any] = {"title": "", "category": "", "created_year": "", "user_attributes": ()} if map else {}
    tables = {} if map else {"events": "events.*", "items": "items.*"}
    return Recipe(
        name="interactions",
        description="Your own event log: events and items in files or a database, read as a map says.",
        material=("minilm",),
        ingest=ingest_config(path, map, tables=tables, columns=unnamed),
        validate=ValidateConfig(profile_name="interactions"),
        featurize=FeaturizeConfig(train_requests_per_user=20),
        finetune=change_of(MINILM_FINETUNE, epochs=30, evaluate_every=10),
        distill=DistillConfig(epochs=30),
        export=ExportConfig(recipe="interactions", catalogue="interactions"),
        decide=DecideConfig(must_beat=["popularity"], gates=near_strongest(0.15), margin=0.15),
    )


def shop(path: str = f"{WORKSPACE_PLACEHOLDER}/material/shop") -> Recipe:
    """Personalised product search: a query, who asks, and a catalogue with prices; by default a synthetic shop."""
    return Recipe(
        name="shop",
        description="Personalised product search: query, user and a priced catalogue together; a synthetic shop.",
        material=("shop",) if path.startswith(WORKSPACE_PLACEHOLDER) else (),
        ingest=IngestConfig(
            source=path,
            format="tables",
            tables=Tables(events="events.csv", items="items.csv", users="users.csv"),
            columns=change_of(
                EMPTY_COLUMNS,
                user_id="customer", item_id="sku", timestamp="bought_at", query_text="searched", title="name",
                text=("description",), category="shelf", price="price", available="in_stock",
                item_numbers=("weight_kg",),
            ),
        ),
        validate=ValidateConfig(profile_name="shop"),
        featurize=FeaturizeConfig(train_requests_per_user=6, max_history=10, negatives=20),
        finetune=FinetuneConfig(
            max_tokens=16, vector_size=32, max_history=10, layers=1, epochs=10, evaluate_every=5, soft_candidates=24,
            rankings_depth=50, stemmer="english", pair_tokens=32, pair_epochs=2, encoder_learning_rate=1e-3,
        ),
        distill=DistillConfig(
            max_history=10, layers=1, epochs=15, evaluate_every=5, stemmer="english", train_encoder=True,
            encoder_learning_rate=1e-3, candidates_per_source=40,
        ),
        export=ExportConfig(recipe="shop", catalogue="shop"),
        evaluate=EvaluateConfig(ks=(5, 10), top_k=50, stemmer="english", latency_samples=50),
        decide=DecideConfig(must_beat=["strongest", "popularity", "bm25"], margin=0.2),
        cluster=ClusterConfig(train=Resources()),
    )  # fmt: skip


def ads() -> Recipe:
    """Impressions, clicks and conversions of ads, with a calibrated chance of each: a synthetic log."""
    return Recipe(
        name="ads",
        description="Ads: a calibrated chance of a click and of a conversion, from impressions; a synthetic log.",
        material=("ads",),
        ingest=IngestConfig(
            source=f"{WORKSPACE_PLACEHOLDER}/material/ads",
            format="tables",
            tables=Tables(events="impressions.csv", items="campaigns.csv"),
            columns=change_of(
                EMPTY_COLUMNS,
                user_id="user", item_id="campaign", timestamp="shown_at", request_id="request", position="position",
                labels={"click": "clicked", "conversion": "converted"}, title="headline", category="topic",
                price="price",
            ),
            labels={"click": Label(), "conversion": Label(weight=5, after="click")},
        ),
        validate=ValidateConfig(profile_name="ads"),
        featurize=FeaturizeConfig(
            split="time_cut", train_share=0.55, valid_share=0.25, train_requests_per_user=10, max_history=20,
            negatives=20,
        ),
        finetune=FinetuneConfig(
            max_tokens=16, vector_size=16, max_history=20, layers=1, epochs=6, negatives=32, evaluate_every=2,
            soft_candidates=24, rankings_depth=50,
        ),
        distill=DistillConfig(
            max_history=20, layers=1, epochs=8, evaluate_every=4, scorer_epochs=15, candidates_per_source=30,
            label_epochs=30, label_dropout=0.1,
        ),
        export=ExportConfig(recipe="ads", catalogue="ads", parity_samples=32),
        evaluate=EvaluateConfig(ks=(5, 10), top_k=50, latency_samples=20, bootstrap_samples=500),
        decide=DecideConfig(
            must_beat=["popularity"], gates=near_strongest(0.1), margin=0.1, resamples=500,
            ceilings={"click.ece": 0.03, "conversion.ece": 0.03},
        ),
        cluster=ClusterConfig(train=Resources()),
    )  # fmt: skip


def retail(path: str = "") -> Recipe:
    """A year of a real gift shop, Online Retail: what is on the customer's next invoice; `--source` names its folder.

    All lines of an invoice have one time, so a request is made before the invoice and asks for all of its new products.
    A returned line is a negative of its credit note. A benchmark: the file is yours to get, the time from the autumn on
    is unlike the rest of the year, and products change their prices.
    """
    return Recipe(
        name="retail",
        description="A benchmark: a real gift shop's invoices and returns (Online Retail), what is bought next.",
        material=(f"retail={path}" if path else "retail", "minilm"),
        ingest=IngestConfig(
            source=f"{WORKSPACE_PLACEHOLDER}/material/retail",
            format="tables",
            tables=Tables(events="events.parquet", items="items.parquet", users="customers.parquet"),
            columns=change_of(
                EMPTY_COLUMNS,
                user_id="customer", item_id="sku", timestamp="bought_at", time_zone="Europe/London",
                request_id="invoice", event_type="kind",
                event_types={"purchase": "purchase", "return": "returned"}, title="name", price="price",
                user_attributes=("country",), event_numbers=("quantity", "unit_price"),
            ),
            labels={"purchase": Label(), "returned": Label(weight=-1)},
        ),
        validate=ValidateConfig(profile_name="retail", min_items=1000, min_users=1000, min_events=10_000),
        featurize=FeaturizeConfig(baskets=True, train_requests_per_user=20),
        finetune=change_of(MINILM_FINETUNE, epochs=30, evaluate_every=10),
        distill=DistillConfig(epochs=30),
        export=ExportConfig(recipe="retail", catalogue="retail"),
        decide=DecideConfig(must_beat=["popularity", "item_knn"], margin=0.15),
    )  # fmt: skip


def grocery() -> Recipe:
    """Households of a grocery chain, Complete Journey: which coupon a household redeems, from what it bought.

    The coupons of a campaign are the exposures of its households. The heads of the labels learn from the campaigns
    between the cut and the test window.
    """
    return Recipe(
        name="grocery",
        description="A benchmark: a grocery chain's purchases and coupons (Complete Journey), what is redeemed.",
        material=("grocery", "minilm"),
        ingest=IngestConfig(
            source=f"{WORKSPACE_PLACEHOLDER}/material/grocery",
            format="tables",
            tables=Tables(events="events.parquet", items="items.parquet", users="households.parquet"),
            columns=change_of(
                EMPTY_COLUMNS,
                user_id="household", item_id="item", timestamp="happened_at", time_zone="UTC", known_at="known_at",
                request_id="request", event_type="kind",
                event_types={"purchase": "purchase", "redeemed": "redeemed", "shown": "impression"}, title="name",
                category="tags", item_attributes=("item_kind",),
                user_attributes=("age", "income", "household_size", "kids_count"),
            ),
            labels={"purchase": Label(type="count"), "redeemed": Label()},
        ),
        validate=ValidateConfig(profile_name="grocery", min_items=1000, min_users=500, min_events=100_000),
        featurize=FeaturizeConfig(
            split="time_cut", cut=datetime(2017, 5, 15, tzinfo=UTC), valid_until=datetime(2017, 10, 10, tzinfo=UTC),
            baskets=True, affinity_categories=100,
        ),
        finetune=change_of(MINILM_FINETUNE, epochs=20, evaluate_every=5),
        distill=DistillConfig(epochs=20, label_epochs=30, label_dropout=0.1),
        export=ExportConfig(recipe="grocery", catalogue="grocery"),
        evaluate=EvaluateConfig(slices=("item.item_kind=coupon",)),
        decide=DecideConfig(must_beat=["popularity"], margin=0.15, ceilings={"redeemed.ece": 0.01}),
    )  # fmt: skip


RECIPES: dict[str, Callable[..., Recipe]] = {
    "smoke": smoke, "movielens": movielens, "faq": faq, "search": search, "labels": labels,
    "interactions": interactions, "shop": shop, "ads": ads, "retail": retail, "grocery": grocery,
}  # fmt: skip


def named(name: str, settings: Sequence[str] = (), *, source: str | None = None, map: str | None = None) -> Recipe:
    """The recipe of this name (or `module:function`), with ``settings`` such as ``finetune.epochs=3`` applied.

    ``source`` is the path or URL of your data, for recipes that take one; ``map`` a file that says how to read it.

    Raises:
        UsageError: there is no such recipe or setting, a value does not fit, or the recipe needs data.
    """
    return change(load_recipe(name, RECIPES, source=source, map=map), settings, name=name)


def needs_source(name: str) -> bool:
    """Whether a recipe of this module needs `--source`."""
    return name in RECIPES and requires_source(RECIPES[name])


def load_for_display(
    name: str, settings: Sequence[str] = (), *, source: str | None = None, map: str | None = None
) -> Recipe:
    """The same to be displayed: where a recipe needs data and none is named, a placeholder stands for it."""
    return named(name, settings, source=source or (SOURCE_PLACEHOLDER if needs_source(name) else None), map=map)
