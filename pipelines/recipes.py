"""Recipes: everything a run needs to be told, one function each.

A recipe starts from another and changes a few lines. `--recipe my_module:my_recipe` names one of your own,
`--set finetune.epochs=3` changes a single knob. A knob that does not exist is refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from components.distill.config import DistillConfig
from components.evaluate.config import EvaluateConfig
from components.export.config import ExportConfig
from components.featurize.config import FeaturizeConfig
from components.finetune.config import FinetuneConfig
from components.ingest.config import Columns, IngestConfig
from components.promote.config import DecideConfig, PromoteConfig
from components.summary.config import SummaryConfig
from components.validate.config import ValidateConfig
from pipelines.cluster import ClusterConfig, Resources
from rankline.contracts import replaced, without_nulls
from rankline.errors import UsageError

WORKSPACE = "{workspace}"  # stands for the folder that a run is given


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
    summary: SummaryConfig = SummaryConfig()
    cluster: ClusterConfig = ClusterConfig()


SECTIONS = (
    "ingest", "validate", "featurize", "finetune", "distill", "export", "evaluate", "decide", "promote",
    "summary",
)  # fmt: skip


def smoke() -> Recipe:
    """A tiny made-up shop and a tiny random language model: the whole line in seconds, for tests."""
    return Recipe(
        name="smoke",
        description="A tiny made-up shop and a tiny random language model; the whole line in seconds, for tests.",
        material=("smoke",),
        ingest=IngestConfig(source=f"{WORKSPACE}/material/smoke", columns=Columns(user_attributes=())),
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
        ingest=IngestConfig(source=f"{WORKSPACE}/material/ml-100k"),
        validate=ValidateConfig(profile_name="movielens", min_items=1000, min_users=500, min_events=10_000),
        featurize=FeaturizeConfig(train_requests_per_user=20),
        finetune=FinetuneConfig(
            encoder=f"{WORKSPACE}/material/all-MiniLM-L6-v2",
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


RECIPES: dict[str, Callable[[], Recipe]] = {"smoke": smoke, "movielens": movielens}


def named(name: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of this name (or `module:function`), with ``settings`` such as ``finetune.epochs=3`` applied.

    Raises:
        UsageError: there is no such recipe, no such knob, or a value does not fit its knob.
    """
    if name in RECIPES:
        recipe = RECIPES[name]()
    elif ":" in name:
        recipe = _loaded(name)
    else:
        raise UsageError(
            f"there is no recipe named {name!r}",
            expected="one of " + ", ".join(RECIPES) + ", or module:function",
            hint=_closest(name, list(RECIPES)) or "`rankline recipes` lists them",
        )
    return change(recipe, settings)


def _loaded(name: str) -> Recipe:
    """The recipe that somebody's own function returns; its module may lie in the current folder."""
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        recipe = getattr(importlib.import_module(module), function)()
        if not isinstance(recipe, Recipe):
            raise TypeError(f"it returned {type(recipe).__name__}")
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
        _put(values, path.strip(), _parse(text), setting)
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"the recipe refuses {'.'.join(str(part) for part in first['loc'])}",
            expected=first["msg"],
            found=repr(first["input"]),
            hint=f"`rankline recipes show {recipe.name}` lists every knob with its bounds",
        ) from error


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Section -> plain JSON-able values."""
    plain: dict[str, Any] = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    return plain


def knobs(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, sentence) of every knob, in the order of the line."""
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if hasattr(type(value), "model_fields"):
            yield from _knobs_of(field.name, value)
        else:
            yield field.name, value, getattr(field.default, "description", None) or ""


def _knobs_of(prefix: str, config: Any) -> Iterator[tuple[str, Any, str]]:
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if hasattr(type(value), "model_fields"):
            yield from _knobs_of(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value, info.description or ""


def _put(values: dict[str, Any], path: str, value: Any, setting: str) -> None:
    *sections, knob = path.split(".")
    place: Any = values
    for depth, section in enumerate(sections):
        if not isinstance(place, dict) or section not in place:
            _refuse(".".join([*sections[:depth], section]), list(place), setting)
        place = place[section]
    # an open mapping such as decide.floors takes keys of its own
    if not isinstance(place, dict) or (knob not in place and sections[-1:] not in _OPEN):
        _refuse(path, list(place) if isinstance(place, dict) else [], setting)
    place[knob] = value


_OPEN = (["floors"], ["slice_drops"], ["labels"], ["scales"], ["node_selector"], ["secrets"], ["gpus"])


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


def at(recipe: Recipe, workspace: str) -> dict[str, dict[str, Any]]:
    """Section -> settings for the doors, with ``{workspace}`` standing for the run's own folder."""
    values = as_dict(recipe)
    sections = {name: values[name] for name in SECTIONS}
    placed: dict[str, dict[str, Any]] = without_nulls(replaced(sections, WORKSPACE, workspace))
    return placed
