"""Recipes: everything a run needs to be told, one function each.

A recipe starts from another and changes a few lines. `--recipe my_module:my_recipe` names one of your own,
`--set finetune.epochs=3` changes a single knob. A knob that does not exist is refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from components.catalogue.config import CatalogueConfig
from components.distill.config import DistillConfig
from components.evaluate.config import EvaluateConfig
from components.export.config import ExportConfig
from components.featurize.config import FeaturizeConfig
from components.finetune.config import FinetuneConfig
from components.ingest.config import Columns, IngestConfig
from components.ingest.readers.tables import READERS
from components.promote.config import DecideConfig, PromoteConfig
from components.summary.config import SummaryConfig
from components.validate.config import ValidateConfig
from pipelines.placement import ClusterConfig, Resources
from rankline.contracts import FrozenModel, encode_nulls, replace_in_strings
from rankline.errors import UsageError
from rankline.io.sources import File, Tables
from rankline.io.storage import StorageConfig

Config = TypeVar("Config", bound=FrozenModel)
SOURCE_PLACEHOLDER = "{source}"  # stands for data that is not named yet, where a recipe is only shown
WORKSPACE_PLACEHOLDER = "{workspace}"  # stands for the folder that a run is given


@dataclass(frozen=True, config=ConfigDict(extra="forbid"), kw_only=True)
class Recipe:
    """One run's settings, a section a step."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="Name of the recipe; it names the pipeline, too.")
    description: str = Field("", description="One sentence for people.")
    material: tuple[str, ...] = Field((), description="Data and weights that must be there before the run.")
    ingest: IngestConfig
    validate: ValidateConfig = ValidateConfig()
    featurize: FeaturizeConfig = FeaturizeConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    distill: DistillConfig = DistillConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    decide: DecideConfig = DecideConfig()
    promote: PromoteConfig = PromoteConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    summary: SummaryConfig = SummaryConfig()
    cluster: ClusterConfig = ClusterConfig()
    storage: StorageConfig = StorageConfig()


SECTIONS = (
    "ingest", "validate", "featurize", "finetune", "distill", "export", "evaluate", "decide", "promote",
    "catalogue", "summary",
)  # fmt: skip


def smoke() -> Recipe:
    """A tiny made-up shop and a tiny random language model: the whole line in seconds, for tests."""
    return Recipe(
        name="smoke",
        description="A tiny made-up shop and a tiny random language model; the whole line in seconds, for tests.",
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
        decide=DecideConfig(min_requests=50, must_beat=["popularity"], margin=0.5, resamples=500),
        cluster=ClusterConfig(train=Resources(), serve=Resources()),
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
            floors={"ndcg@10": 0.08}, must_beat=["popularity", "item_knn"], margin=0.15, min_requests=500
        ),
    )


MINILM_FINETUNE = FinetuneConfig(
    encoder=f"{WORKSPACE_PLACEHOLDER}/material/all-MiniLM-L6-v2",
    encoder_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
# What reads words keeps all that the encoder knows: as many numbers as it has
TEXT_SETTINGS = {"vector_size": 384, "stemmer": "english", "soft_candidates": 32}
# With few validation requests the scorer takes small steps
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
        decide=DecideConfig(floors={"ndcg@10": 0.6}, must_beat=["bm25"], margin=0.2, min_requests=50),
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
        decide=DecideConfig(must_beat=["popularity"], margin=0.2, min_requests=20),
    )


def labels(path: str, map: str = "") -> Recipe:
    """Text classification: texts and labels in CSV files; the labels are the items, their chances are calibrated.

    Columns that are not called text and label are named by a map, as `interactions` takes one.
    The encoder is made of the texts' own words, so any language will do; with few texts take one that has read more.
    """
    return Recipe(
        name="labels",
        description="Text classification: a CSV of texts and labels, ranked by /v1/rank with calibrated chances.",
        ingest=_ingest_config(
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
            primary="ndcg@1", floors={"ndcg@1": 0.6}, must_beat=["popularity"], margin=0.05, min_requests=100
        ),
    )  # fmt: skip


def interactions(path: str, map: str = "") -> Recipe:
    """Anybody's event log: files of events and items under a folder, read as a TOML or JSON map says."""
    unnamed: dict[str, Any] = {"title": "", "category": "", "created_year": "", "user_attributes": ()} if map else {}
    tables = {} if map else {"events": "events.*", "items": "items.*"}
    return Recipe(
        name="interactions",
        description="Anybody's event log: events and items in files or a database, read as a map says.",
        material=("minilm",),
        ingest=_ingest_config(path, map, tables=tables, columns=unnamed),
        validate=ValidateConfig(profile_name="interactions"),
        featurize=FeaturizeConfig(train_requests_per_user=20),
        finetune=change_of(MINILM_FINETUNE, epochs=30, evaluate_every=10),
        distill=DistillConfig(epochs=30),
        export=ExportConfig(recipe="interactions", catalogue="interactions"),
        decide=DecideConfig(must_beat=["popularity"], margin=0.15),
    )


def shop(path: str = f"{WORKSPACE_PLACEHOLDER}/material/shop") -> Recipe:
    """Personalised product search: a query, who asks, and a catalogue with prices; by default a generated shop."""
    return Recipe(
        name="shop",
        description="Personalised product search: query, user and a priced catalogue together; a generated shop.",
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
        decide=DecideConfig(must_beat=["popularity", "bm25"], margin=0.2),
        cluster=ClusterConfig(train=Resources()),
    )  # fmt: skip


def change_of(config: Config, **changes: Any) -> Config:
    """The same settings with some of them changed, checked like new ones."""
    return type(config)(**{**config.model_dump(), **changes})


def _read_mapping(path: str) -> dict[str, Any]:
    """What a TOML or JSON file says of a source: ingest's own settings (tables, columns, files…).

    Raises:
        UsageError: it is not there, or cannot be read.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
        mapping = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            "the map of the source cannot be read",
            expected="a TOML or JSON file with sections such as [tables] and [columns]",
            found=" ".join(str(error).split()),
            where=str(file),
            hint="`rankline init` writes one",
        ) from error
    return dict(mapping)


def _ingest_config(
    path: str, map: str, *, tables: dict[str, str], columns: dict[str, Any], **more: Any
) -> IngestConfig:
    """Ingest's settings for anybody's data: what its recipe expects of it, and what a map says instead.

    A ``path`` that names a file stands for its folder, and the file for the events; without a table of items those are
    the ones that the file names.
    """
    values = {"format": "tables", "tables": tables, **more, **(_read_mapping(map) if map else {}), "source": path}
    values["columns"] = {**columns, **values.get("columns", {})}
    folder, slash, file = path.rpartition("/")
    is_file = "." in file and File(file).kind in READERS and not Path(path).expanduser().is_dir()
    if values["format"] == "tables" and is_file:
        values["tables"] = {**(values["tables"] if map else {}), "events": file}
        values |= {"source": folder or slash or ".", "items_from_events": "items" not in values["tables"]}
    try:
        return IngestConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"the map refuses {'.'.join(str(part) for part in first['loc'])}",
            expected=first["msg"].removeprefix("Value error, "),
            found=repr(first["input"]),
            where=map,
            hint="`rankline recipes show interactions ingest` lists every setting of a source",
        ) from error


RECIPES: dict[str, Callable[..., Recipe]] = {
    "smoke": smoke, "movielens": movielens, "faq": faq, "search": search, "labels": labels,
    "interactions": interactions, "shop": shop,
}  # fmt: skip


def named(name: str, settings: Sequence[str] = (), *, source: str | None = None, map: str | None = None) -> Recipe:
    """The recipe of this name (or `module:function`), with ``settings`` such as ``finetune.epochs=3`` applied.

    ``source`` is the path or URL of the data, where the recipe is for anybody's; ``map`` a file that says how to
    read it.

    Raises:
        UsageError: there is no such recipe, no such knob, a value does not fit its knob, or the recipe needs data.
    """
    if name in RECIPES:
        recipe = _call_recipe(name, RECIPES[name], source, map)
    elif ":" in name:
        recipe = _import_recipe(name, source, map)
    else:
        raise UsageError(
            f"there is no recipe named {name!r}",
            expected="one of " + ", ".join(RECIPES) + ", or module:function",
            hint=_closest(name, list(RECIPES)) or "`rankline recipes` lists them",
        )
    return change(recipe, settings)


def needs_source(name: str) -> bool:
    """Whether a recipe of ours says nothing until it is told where the data is."""
    path = inspect.signature(RECIPES[name]).parameters.get("path") if name in RECIPES else None
    return path is not None and path.default is inspect.Parameter.empty


def load_for_display(
    name: str, settings: Sequence[str] = (), *, source: str | None = None, map: str | None = None
) -> Recipe:
    """The same, to be looked at: where a recipe needs data and none is named, a word stands for it."""
    return named(name, settings, source=source or (SOURCE_PLACEHOLDER if needs_source(name) else None), map=map)


def _call_recipe(name: str, function: Callable[..., Recipe], source: str | None, map: str | None) -> Recipe:
    """What a recipe's function returns when it is told where the data is.

    Raises:
        UsageError: it needs a source and has none, or has one (or a map) that it does not take.
    """
    takes = inspect.signature(function).parameters
    given = {key: value for key, value in (("path", source), ("map", map)) if value is not None}
    if extra := [key for key in given if key not in takes]:
        option = {"path": "--source", "map": "--map"}[extra[0]]
        raise UsageError(
            f"recipe {name} takes no {option}",
            expected="a recipe for anybody's data: " + ", ".join(_recipes_with_source()),
            found=given[extra[0]],
            hint="set ingest.source and ingest.columns instead, or write a recipe of your own",
        )
    path = takes.get("path")
    if path is not None and path.default is inspect.Parameter.empty and source is None:
        raise UsageError(
            f"recipe {name} needs data",
            expected="--source PATH",
            found="none",
            hint=f"rankline run --recipe {name} --source /data/mine; `rankline init` looks at data and proposes",
        )
    return function(**given)


def _recipes_with_source() -> list[str]:
    return [name for name, function in RECIPES.items() if "path" in inspect.signature(function).parameters]


def _import_recipe(name: str, source: str | None, map: str | None) -> Recipe:
    """The recipe that somebody's own function returns; its module may lie in the current folder."""
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        recipe = _call_recipe(name, getattr(importlib.import_module(module), function), source, map)
        if not isinstance(recipe, Recipe):
            raise TypeError(f"it returned {type(recipe).__name__}")
    except UsageError:
        raise
    except Exception as error:  # it is somebody else's code: whatever it does is told in one message
        raise UsageError(
            f"recipe {name} cannot be loaded",
            expected="module:function, importable from here, that returns a Recipe",
            found=f"{type(error).__name__}: {' '.join(str(error).split())}",
            hint="check the spelling, or set PYTHONPATH to the folder of the module",
        ) from error
    return recipe


def change(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with single knobs changed; each setting is ``section.knob=value``, the value JSON or text."""
    values = as_dict(recipe)
    for setting in settings:
        path, found, text = setting.partition("=")
        if not found:
            raise UsageError(f"--set {setting} has no value", expected="section.knob=value", found=setting)
        _set_value(values, path.strip(), _parse(text), setting)
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"the recipe refuses {'.'.join(str(part) for part in first['loc'])}",
            expected=first["msg"].removeprefix("Value error, "),
            found=repr(first["input"]),
            hint=f"`rankline recipes show {recipe.name}` lists every knob with its bounds",
        ) from error


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Section -> plain JSON-able values."""
    plain: dict[str, Any] = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    return plain


def list_settings(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, sentence) of every knob, in the order of the line."""
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if hasattr(type(value), "model_fields"):
            yield from _settings_of(field.name, value)
        else:
            yield field.name, value, getattr(field.default, "description", None) or ""


def _settings_of(prefix: str, config: Any) -> Iterator[tuple[str, Any, str]]:
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if hasattr(type(value), "model_fields"):
            yield from _settings_of(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value, info.description or ""


def _set_value(values: dict[str, Any], path: str, value: Any, setting: str) -> None:
    *sections, key = path.split(".")
    section_values: Any = values
    for depth, section in enumerate(sections):
        if not isinstance(section_values, dict) or section not in section_values:
            _refuse(".".join([*sections[:depth], section]), list(section_values), setting)
        section_values = section_values[section]
    # an open mapping such as decide.floors takes keys of its own
    if not isinstance(section_values, dict) or (key not in section_values and sections[-1:] not in _OPEN_MAPPINGS):
        _refuse(path, list(section_values) if isinstance(section_values, dict) else [], setting)
    section_values[key] = value


_OPEN_MAPPINGS = (["floors"], ["slice_drops"], ["labels"], ["scales"], ["node_selector"], ["secrets"], ["gpus"])


def _refuse(path: str, known: list[str], setting: str) -> None:
    raise UsageError(
        f"the recipe has no knob {path!r}",
        expected="one of " + ", ".join(known),
        found=setting,
        hint=_closest(path.split(".")[-1], known) or "`rankline recipes show NAME` lists every knob",
    )


def _closest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def step_settings(recipe: Recipe, workspace: str) -> dict[str, dict[str, Any]]:
    """Section -> settings for the doors, with ``{workspace}`` standing for the run's own folder."""
    values = as_dict(recipe)
    sections = {name: values[name] for name in SECTIONS}
    resolved: dict[str, dict[str, Any]] = encode_nulls(replace_in_strings(sections, WORKSPACE_PLACEHOLDER, workspace))
    return resolved


def storage_settings(recipe: Recipe, workspace: str) -> dict[str, Any]:
    """What the doors are told of places outside the workspace; empty where there are none."""
    storage: dict[str, Any] = replace_in_strings(
        recipe.storage.model_dump(exclude_defaults=True), WORKSPACE_PLACEHOLDER, workspace
    )
    return {"storage": storage} if storage else {}
