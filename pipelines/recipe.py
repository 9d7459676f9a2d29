"""The recipe: the settings of a run, one section per step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from components.catalogue.config import CatalogueConfig
from components.distill.config import DistillConfig
from components.evaluate.config import EvaluateConfig
from components.export.config import ExportConfig
from components.featurize.config import FeaturizeConfig
from components.finetune.config import FinetuneConfig
from components.ingest.config import IngestConfig, stored_name
from components.promote.config import DecideConfig, PromoteConfig
from components.summary.config import SummaryConfig
from components.validate.config import ValidateConfig
from pipelines.placement import ClusterConfig
from rankline.contracts import ITEMS, FrozenModel, encode_nulls, replace_in_strings
from rankline.io.storage import StorageConfig
from rankline.model.order import HEADS, RANK, Order
from rankline.notifications.config import NotifyConfig
from rankline.runtime.run_context import RunContext

Config = TypeVar("Config", bound=FrozenModel)
SOURCE_PLACEHOLDER = "{source}"  # stands for data that is not named yet, where a recipe is only displayed
WORKSPACE_PLACEHOLDER = "{workspace}"  # stands for the run's workspace


@dataclass(frozen=True, config=ConfigDict(extra="forbid"), kw_only=True)
class Recipe:
    """The settings of one run, a section for each step."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="Name of the recipe, and of its pipeline.")
    description: str = Field("", description="What the recipe is for, in one sentence.")
    material: tuple[str, ...] = Field(default=(), description="Data and weights that are downloaded before the run.")
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
    notify: NotifyConfig = NotifyConfig()

    @model_validator(mode="after")
    def _order_is_known(self) -> Recipe:
        """Refuse an order of answers with an unknown name before anything runs."""
        if self.distill.order:
            columns = self.ingest.columns
            texts = dict.fromkeys(map(stored_name, (*ITEMS.names, *columns.declared("item"))), False)
            numbers = [*(["price"] if columns.price else []), *map(stored_name, columns.item_numbers)]
            heads = [RANK, *(self.ingest.labels or HEADS)]
            Order(self.distill.order).check_names(heads, {**texts, **dict.fromkeys(numbers, True)})
        return self


NO_STEP = ("name", "description", "material", "cluster", "storage", "notify")
SECTIONS = tuple(field.name for field in dataclasses.fields(Recipe) if field.name not in NO_STEP)


def change_of(config: Config, **changes: Any) -> Config:
    """A copy of the settings with some of them changed, validated as new settings are."""
    return type(config)(**{**config.model_dump(), **changes})


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Section -> values that JSON can hold."""
    plain: dict[str, Any] = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    return plain


def list_settings(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, description) of every setting, in the order of the steps."""
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, FrozenModel):
            yield from _settings_of(field.name, value)
        else:
            yield field.name, value, getattr(field.default, "description", None) or ""


def _settings_of(prefix: str, config: FrozenModel) -> Iterator[tuple[str, Any, str]]:
    plain = config.model_dump()  # labels and gates are models, too
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, FrozenModel):
            yield from _settings_of(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", plain[name], info.description or ""


def step_settings(recipe: Recipe, workspace: str) -> dict[str, dict[str, Any]]:
    """Section -> the settings that its component is given, with the workspace filled in."""
    values = as_dict(recipe)
    sections = {name: values[name] for name in SECTIONS}
    resolved: dict[str, dict[str, Any]] = encode_nulls(replace_in_strings(sections, WORKSPACE_PLACEHOLDER, workspace))
    return resolved


def storage_settings(recipe: Recipe, workspace: str) -> dict[str, Any]:
    """The part of a run's parameters that names places outside of the workspace; empty where there are none."""
    storage: dict[str, Any] = replace_in_strings(
        recipe.storage.resolved.model_dump(exclude_defaults=True), WORKSPACE_PLACEHOLDER, workspace
    )
    return {"storage": storage} if storage else {}


def announcement_settings(recipe: Recipe, workspace: str) -> dict[str, Any]:
    """The part of a run's parameters that says where its events are shown; empty where nothing is set."""
    tracking = recipe.promote.tracking.model_dump(mode="json", exclude_defaults=True)
    named = {"mlflow": tracking, "notify": recipe.notify.model_dump(mode="json", exclude_defaults=True)}
    resolved: dict[str, Any] = replace_in_strings(named, WORKSPACE_PLACEHOLDER, workspace)
    return {name: values for name, values in resolved.items() if values}


def run_parameters(recipe: Recipe, workspace: str) -> dict[str, Any]:
    """The parameter `run` of every component: the workspace and what the recipe says of the whole run."""
    return {
        "workspace": workspace,
        "recipe": recipe.name,
        "catalogue": recipe.export.catalogue,
        **storage_settings(recipe, workspace),
        **announcement_settings(recipe, workspace),
    }


def run_context(recipe: Recipe, workspace: Path, run_id: str = "") -> RunContext:
    """The context of a run of this recipe, as its components have it."""
    return RunContext.from_parameters(run_parameters(recipe, str(workspace)), run_id)
