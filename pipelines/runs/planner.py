"""Walks along the steps of a training run and plans each, with the same cache keys that the run itself will use.

Where the steps before it are reused, the inputs of a step are known, and so is what becomes of it. Where one of them
runs, its outputs are UNKNOWN in the key; cached outputs that fit such a key may or may not be reused.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from components.evaluate.champion_for import is_champion
from components.resolve_inputs.config import ResolveInputsConfig
from components.resolve_inputs.step import resolve_inputs
from pipelines.assets import packaged
from pipelines.recipe import Recipe, run_context, step_settings
from pipelines.steps import CACHED_TRAINING_STEPS, STEPS, component_module
from rankline.contracts import FrozenModel
from rankline.io.files import read_json_object
from rankline.registry.anchor import anchor
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.remote_cache import RemoteCache
from rankline.runtime.step_cache import (
    ALWAYS_RUNS,
    NEVER_RAN,
    UNKNOWN,
    CacheEntry,
    StepCache,
    cache_key,
    key_changes,
    matches,
)
from rankline.runtime.steps import TRAINING_STEPS

Libraries = Callable[[str], Mapping[str, str]]  # step -> the versions it will work with


class PlannedStep(FrozenModel):
    """What becomes of one step."""

    step: str
    state: Literal["reused", "runs", "unsure", "skipped"]
    why: str
    unless: tuple[str, ...] = ()  # unsure: it runs unless the outputs of all of these come out as before
    provided: str = ""  # unsure: it runs if this comes true
    because: tuple[str, ...] = ()  # the earlier steps that run and cause this
    run_s: float | None = None  # what it took when it last ran, and in which run
    run_from: str = ""
    reuse_s: float | None = None  # what it took when it was last reused, and in which run
    reuse_from: str = ""

    @property
    def least_s(self) -> float | None:
        """The shortest time it may take; None where no earlier run tells."""
        if self.state == "skipped" or self.provided:
            return 0.0
        return self.run_s if self.state == "runs" else self.reuse_s

    @property
    def most_s(self) -> float | None:
        """The longest time it may take; None where no earlier run tells."""
        if self.state == "skipped":
            return 0.0
        return self.reuse_s if self.state == "reused" else self.run_s


@dataclass(frozen=True)
class _StepKey:
    """A step, its settings and its cache key, in which UNKNOWN stands for what only the run will tell."""

    step: str
    config: BaseModel
    key: dict[str, Any]
    ignore_lineage: bool
    cache: StepCache
    pending: Mapping[str, str]  # input that is not known yet -> the step that makes it


@dataclass
class Planner:
    """Plans the steps in their order and remembers what follows for the later ones."""

    recipe: Recipe
    workspace: Path
    libraries: Libraries | None = None
    _planned: dict[str, PlannedStep] = field(default_factory=dict)
    _reused: dict[str, CacheEntry] = field(default_factory=dict)
    _candidates: dict[str, list[CacheEntry]] = field(default_factory=dict)  # unsure step -> entries it may reuse

    def __post_init__(self) -> None:
        self.settings = step_settings(self.recipe, str(self.workspace))
        self.run_context = run_context(self.recipe, self.workspace)
        artifacts = self.run_context.storage.artifacts
        self.remote_cache = RemoteCache(artifacts) if artifacts else None
        self.missing_assets = {
            name: folder for name in self.recipe.material if not (folder := self._asset_folder(name)).is_dir()
        }
        self.champion, source = self._resolve_inputs()
        self.facts = LineageFacts(
            run=self.run_context,
            source=source,
            champion=self.champion,
            anchor=anchor(ModelRegistry(self.run_context.repository, repair_cache=False).history()),
            encoder_missing=bool(self._missing_asset_of("finetune")),
        )

    def plan_steps(self) -> list[PlannedStep]:
        """What becomes of each step, in their order."""
        for step in TRAINING_STEPS:
            if step == "promote":
                self._planned[step] = self._plan_promotion()
            elif step in CACHED_TRAINING_STEPS:
                self._planned[step] = self._plan_cached(self._step_key(step))
                self._learn_from(step)
            else:
                self._planned[step] = PlannedStep(step=step, state="runs", why=ALWAYS_RUNS)
        return list(self._planned.values())

    # -- what is known before the first step -----------------------------------------------------------------

    def _asset_folder(self, name: str) -> Path:
        """Where an asset lies; one that is there is verified, as it is before a run."""
        folder = packaged.asset_folder(name, self.workspace)
        return packaged.fetch(name, self.workspace) if folder.is_dir() else folder

    def _missing_asset_at(self, path: str) -> str:
        """The missing asset that a path leads into; empty where it leads elsewhere."""
        return next((name for name, folder in self.missing_assets.items() if Path(path).is_relative_to(folder)), "")

    def _missing_asset_of(self, step: str) -> str:
        """The missing asset that a step's lineage depends on."""
        setting = {"ingest": "source", "finetune": "encoder"}.get(step)
        return self._missing_asset_at(self.settings[step][setting]) if setting else ""

    def _resolve_inputs(self) -> tuple[str, Any]:
        """(the champion, the digest of the source or UNKNOWN)."""
        repository = self.run_context.repository
        if self._missing_asset_of("ingest"):
            return ModelRegistry(repository, repair_cache=False).champion(), UNKNOWN
        ingest = self.settings["ingest"]
        config = {name: ingest[name] for name in ResolveInputsConfig.model_fields if name in ingest}
        inputs = resolve_inputs(
            workspace=self.workspace,
            repository=repository,
            catalogue=self.recipe.export.catalogue,
            config=ResolveInputsConfig(**config),
            repair_cache=False,
        )
        return inputs["champion"], inputs["source_digest"]

    def _learn_from(self, step: str) -> None:
        """What a reused step tells of the lineage of the later ones."""
        if step == "ingest" and step in self._reused:
            self.facts = replace(self.facts, data=self._reused[step].result["data_digest"])
        if step == "export" and step in self._reused:
            self.facts = replace(self.facts, model_id=self._reused[step].result["model_id"])

    # -- a cached step ---------------------------------------------------------------------------------------

    def _step_key(self, step: str) -> _StepKey:
        spec = STEPS[step]
        config: BaseModel = type(getattr(self.recipe, step))(**self.settings[step])
        pending = {name: producer for name, (producer, _) in spec.inputs.items() if producer not in self._reused}
        lineage, ignore_lineage = self._lineage(step, config, self.facts)
        key = cache_key(
            step,
            config,
            self.workspace,
            inputs={
                name: UNKNOWN if name in pending else self._reused[producer].declared_digest(output)
                for name, (producer, output) in spec.inputs.items()
            },
            lineage=lineage,
            code=spec.code,
            libraries=(self.libraries(step) if self.libraries else None) or None,
        )
        cache = StepCache(self.run_context.cache_folder(step))
        return _StepKey(step, config, key, ignore_lineage, cache, pending)

    def _lineage(self, step: str, config: BaseModel, facts: LineageFacts) -> tuple[dict[str, Any], bool]:
        """The lineage of a step, and whether outputs of any other lineage are as good."""
        if not STEPS[step].lineage:
            return {}, False
        module = importlib.import_module(component_module(step, "lineage"))
        return module.lineage(config, facts), step == "evaluate" and is_champion(facts.model_id, facts.champion)

    def _plan_cached(self, step: _StepKey) -> PlannedStep:
        if step.pending or self._missing_asset_of(step.step):
            return self._plan_dependent(step)
        entry, origin = step.cache.find(step.key, ignore_lineage=step.ignore_lineage), ""
        if entry is None and self.remote_cache is not None:
            entry = self.remote_cache.find(step.step, step.key, ignore_lineage=step.ignore_lineage)
            origin = f", kept at {self.run_context.storage.artifacts}"
        if entry is None:
            why = step.cache.explain_miss(step.key, remote_latest=lambda: self._remote_latest(step.step))
            return PlannedStep(step=step.step, state="runs", why=why)
        if not origin and (damage := entry.find_damage(STEPS[step.step].outputs)):
            return PlannedStep(step=step.step, state="runs", why=damage)
        self._reused[step.step] = entry
        return PlannedStep(step=step.step, state="reused", why=entry.reason + origin)

    def _remote_latest(self, step: str) -> CacheEntry | None:
        return None if self.remote_cache is None else self.remote_cache.latest(step)

    def _plan_dependent(self, step: _StepKey) -> PlannedStep:
        """What becomes of a step that depends on something unknown: an input, or an asset that is not there."""
        missing_asset = self._missing_asset_of(step.step)
        download = f"{missing_asset} is downloaded" if missing_asset else ""
        causes = self._causes(step.pending)
        fitting = [entry for entry in self._fitting_entries(step) if not entry.find_damage(STEPS[step.step].outputs)]
        if fitting or (self.remote_cache is not None and self.remote_cache.has_step(step.step)):
            self._candidates[step.step] = fitting
            why = "; ".join(f"{cause}: {self._planned[cause].why}" for cause in causes) or download
            sources = tuple(dict.fromkeys([*step.pending.values(), *filter(None, [missing_asset])]))
            sufficient = self.remote_cache is not None or self._covers_candidates(step, fitting)
            return PlannedStep(
                step=step.step, state="unsure", why=why, unless=sources if sufficient else (), because=causes
            )
        latest = step.cache.latest()
        if latest is None:
            return PlannedStep(step=step.step, state="runs", why=NEVER_RAN, because=causes)
        changed = [*key_changes(latest.key, step.key), *(f"its input {name} may change" for name in step.pending)]
        return PlannedStep(step=step.step, state="runs", why="; ".join(changed) or download, because=causes)

    def _fitting_entries(self, step: _StepKey) -> Iterator[CacheEntry]:
        """Cached outputs that are reused if what is unknown comes out as it was then."""
        for entry in step.cache.matching({**step.key, "lineage": UNKNOWN}):
            model_id = entry.result.get("model_id", UNKNOWN)
            facts = replace(self.facts, data=_data_digest_of(entry), model_id=model_id)
            lineage, ignore_lineage = self._lineage(step.step, step.config, facts)
            if ignore_lineage or matches(entry.key["lineage"], lineage):
                yield entry

    def _covers_candidates(self, step: _StepKey, fitting: list[CacheEntry]) -> bool:
        """Whether the step is reused whichever of their cached outputs the steps before it come to."""
        for name, producer in step.pending.items():
            output = STEPS[step.step].inputs[name][1]
            covered = {entry.key["inputs"][name] for entry in fitting}
            if not covered.issuperset(entry.declared_digest(output) for entry in self._candidates.get(producer, ())):
                return False
        return True

    def _causes(self, pending: Mapping[str, str]) -> tuple[str, ...]:
        """The steps that run for reasons of their own, and through which these inputs may change."""
        causes: set[str] = set()
        for producer in pending.values():
            causes.update(self._planned[producer].because)
            if self._planned[producer].state == "runs":
                causes.add(producer)
        return tuple(sorted(causes, key=TRAINING_STEPS.index))

    # -- promote ---------------------------------------------------------------------------------------------

    def _plan_promotion(self) -> PlannedStep:
        if self.recipe.decide.mode == "review":
            return PlannedStep(
                step="promote", state="skipped", why="decide.mode is review: the model waits for a reviewer"
            )
        if is_champion(self.facts.model_id, self.champion):
            return PlannedStep(step="promote", state="skipped", why=f"model {self.champion} already serves")
        causes = () if self.facts.model_id is not UNKNOWN else self._causes({"bundle": "export"})
        provided = "the gates are met"
        if self.champion and causes:
            provided += " and it is another model than the champion"
        return PlannedStep(
            step="promote",
            state="unsure",
            why="it runs where the verdict is to promote",
            provided=provided,
            because=causes,
        )


def _data_digest_of(entry: CacheEntry) -> Any:
    """The digest of the data that cached outputs of validate are about; UNKNOWN for other steps."""
    return read_json_object(entry.folder / "clean" / "profile.json").get("data_digest", UNKNOWN)
