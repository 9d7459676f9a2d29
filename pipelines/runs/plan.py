"""What a run would reuse and what it would do, why, and for how long: told before it begins, and nothing is done.

A step's fate hangs on what the steps before it make. Where these are reused, their outputs are known and so is the
fate: it is `reused`, or it `runs`. Where one of them runs, its output may still come out the same, byte for byte;
a step whose kept work would fit then is `unsure`: it runs unless that happens. One that no kept work can fit,
whatever comes out, `runs`. What is said for certain here is asked of the same module as at the doors
(rankline/runtime/step_cache.py), so it is what happens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from components.evaluate.champion_for import champion_for, is_champion
from components.finetune import encoder
from components.resolve_inputs.config import ResolveInputsConfig
from components.resolve_inputs.step import resolve_inputs
from components.validate import profile
from pipelines.assets import packaged
from pipelines.recipes import Recipe, step_settings, storage_settings
from pipelines.runs.estimates import Estimate, estimates
from rankline.contracts import FrozenModel
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from rankline.runtime.remote_cache import RemoteCache
from rankline.runtime.run_context import RunContext
from rankline.runtime.step_cache import (
    ALWAYS_RUNS,
    NEVER_RAN,
    UNKNOWN,
    CacheEntry,
    StepCache,
    cache_key,
    key_changes,
    matches,
    parse_cache_entry,
)
from rankline.train import champion_weights

State = Literal["reused", "runs", "unsure", "skipped"]
Libraries = Callable[[str], Mapping[str, str]]  # step -> the versions it will work with


@dataclass(frozen=True)
class StepArtifacts:
    """What a step takes and gives in the flow (pipelines/training.py), and the code it uses beside its own."""

    inputs: Mapping[str, tuple[str, str]]  # input -> (the step that makes it, its name there)
    outputs: tuple[str, ...]
    code: tuple[str, ...] = ()


FEATURES, TEACHER, STUDENT = ("featurize", "features"), ("finetune", "teacher"), ("distill", "student")
REUSABLE_STEPS = {
    "ingest": StepArtifacts({}, ("raw",)),
    "validate": StepArtifacts({"raw": ("ingest", "raw")}, ("clean", "report")),
    "featurize": StepArtifacts({"clean": ("validate", "clean")}, ("features",)),
    "finetune": StepArtifacts({"features": FEATURES}, ("teacher",)),
    "distill": StepArtifacts({"features": FEATURES, "teacher": TEACHER}, ("student",)),
    "export": StepArtifacts({"features": FEATURES, "student": STUDENT}, ("bundle",)),
    "evaluate": StepArtifacts(
        {"bundle": ("export", "bundle"), "features": FEATURES, "teacher": TEACHER, "student": STUDENT},
        ("report",),
        code=("serving.server",),
    ),
}


class PlannedStep(FrozenModel):
    """What will become of one step."""

    step: str
    state: State
    why: str
    unless: tuple[str, ...] = ()  # unsure: it runs unless the outputs of all of these come out as they once did
    provided: str = ""  # unsure: it runs if this comes true
    because: tuple[str, ...] = ()  # the steps before it that run, and with which this begins
    run_s: float | None = None  # what it took when it last ran, and in which run
    run_from: str = ""
    reuse_s: float | None = None  # what it took when it was last reused
    reuse_from: str = ""

    @property
    def least_s(self) -> float | None:
        """The shortest it may take; none where no earlier run tells."""
        if self.state == "skipped" or self.provided:
            return 0.0
        return self.run_s if self.state == "runs" else self.reuse_s

    @property
    def most_s(self) -> float | None:
        """The longest it may take; none where no earlier run tells."""
        if self.state == "skipped":
            return 0.0
        return self.reuse_s if self.state == "reused" else self.run_s


class TotalTime(FrozenModel):
    """How long the whole run takes, as far as earlier runs tell."""

    least_s: float
    most_s: float
    around_s: float | None  # of both: around the steps, and in which run
    around_from: str
    without: tuple[str, ...]  # steps that no earlier run tells of; they are not counted


class Plan(FrozenModel):
    """What a run would do."""

    recipe: str
    workspace: str
    champion: str
    fetches: tuple[str, ...]  # material that is not there yet
    steps: tuple[PlannedStep, ...]
    total: TotalTime


def plan(recipe: Recipe, workspace: Path, *, libraries: Libraries | None = None) -> Plan:
    """Foretell a run of a recipe; reads the workspace, the source and the champion, and writes nothing.

    ``libraries`` tells the versions a step will work with where these are not this process's own.

    Raises:
        SourceError: the source is not there: the run would stop at its first step.
        UsageError: the workspace's champion ranks another catalogue.
        IntegrityError: material that was fetched is damaged.
    """
    workspace = workspace.resolve()
    planner = _Planner(recipe, workspace, libraries or (lambda step: OWN_LIBRARIES))
    steps = [PlannedStep(step="resolve_inputs", state="runs", why=ALWAYS_RUNS)]
    steps += [planner.plan_step(step) for step in REUSABLE_STEPS]
    steps += [PlannedStep(step="decide", state="runs", why=ALWAYS_RUNS), planner.plan_promotion()]
    known = estimates(workspace, recipe.name)
    timed = [
        step.model_copy(update=_times("run", known.ran.get(step.step)) | _times("reuse", known.reused.get(step.step)))
        for step in steps
    ]
    overhead = known.overhead.seconds if known.overhead else None
    return Plan(
        recipe=recipe.name,
        workspace=str(workspace),
        champion=planner.champion,
        fetches=tuple(planner.missing_assets),
        steps=tuple(timed),
        total=TotalTime(
            least_s=round(sum(step.least_s or 0.0 for step in timed) + (overhead or 0.0), 2),
            most_s=round(sum(step.most_s or 0.0 for step in timed) + (overhead or 0.0), 2),
            around_s=None if overhead is None else round(overhead, 2),
            around_from=known.overhead.run if known.overhead else "",
            without=tuple(step.step for step in timed if step.least_s is None or step.most_s is None),
        ),
    )


def _times(name: str, estimate: Estimate | None) -> dict[str, Any]:
    return {f"{name}_s": round(estimate.seconds, 2), f"{name}_from": estimate.run} if estimate else {}


OWN_LIBRARIES: Mapping[str, str] = {}  # no versions are named: this process's own


@dataclass
class _LineageFacts:
    """What a step's lineage is made of; UNKNOWN where that shows only in the run."""

    source: Any = UNKNOWN  # digest of the source
    data: Any = UNKNOWN  # digest of the tables that ingest makes of it
    model_id: Any = UNKNOWN  # of the bundle that export makes


@dataclass
class _Planner:
    """Goes along the line once and remembers what becomes of each step."""

    recipe: Recipe
    workspace: Path
    libraries: Libraries
    planned: dict[str, PlannedStep] = field(default_factory=dict)
    reused: dict[str, CacheEntry] = field(default_factory=dict)  # step -> the kept work that is reused
    candidate_entries: dict[str, list[CacheEntry]] = field(
        default_factory=dict
    )  # unsure step -> the kept works, one of which may be

    def __post_init__(self) -> None:
        workspace = str(self.workspace)
        self.settings = step_settings(self.recipe, workspace)
        self.run_context = RunContext.from_parameters(
            {"workspace": workspace, **storage_settings(self.recipe, workspace)}, ""
        )
        self.remote_cache = (
            RemoteCache(self.run_context.storage.artifacts) if self.run_context.storage.artifacts else None
        )
        self.missing_assets = {
            name: folder for name in self.recipe.material if not (folder := self._asset_folder(name)).is_dir()
        }
        self.facts = _LineageFacts()
        self._resolve_inputs()

    def _asset_folder(self, name: str) -> Path:
        """Where material lies; what is there is checked, as it is before a run."""
        folder = packaged.asset_folder(name, self.workspace)
        return packaged.fetch(name, self.workspace) if folder.is_dir() else folder

    def _missing_asset_at(self, path: str) -> str:
        """The material, not fetched yet, that a setting leads into; empty where it leads elsewhere."""
        return next((name for name, folder in self.missing_assets.items() if Path(path).is_relative_to(folder)), "")

    def _resolve_inputs(self) -> None:
        ingest = self.settings["ingest"]
        if self._missing_asset_at(ingest["source"]):
            self.champion = ModelRegistry(self.run_context.repository, repair_cache=False).champion()
            return
        inputs = resolve_inputs(
            workspace=self.workspace,
            repository=self.run_context.repository,
            catalogue=self.recipe.export.catalogue,
            config=ResolveInputsConfig(
                **{name: ingest[name] for name in ResolveInputsConfig.model_fields if name in ingest}
            ),
            repair_cache=False,
        )
        self.champion, self.facts.source = inputs["champion"], inputs["source_digest"]

    def plan_step(self, step: str) -> PlannedStep:
        """What will become of a step, when those before it have been foretold."""
        planned = self._plan_by_key(step)
        self.planned[step] = planned
        if step == "ingest" and step in self.reused:
            self.facts.data = self.reused[step].result["data_digest"]
        if step == "export" and step in self.reused:
            self.facts.model_id = self.reused[step].result["model_id"]
        return planned

    def _plan_by_key(self, step: str) -> PlannedStep:
        artifacts, store = REUSABLE_STEPS[step], StepCache(self.run_context.cache_folder(step))
        config: BaseModel = type(getattr(self.recipe, step))(**self.settings[step])
        pending_inputs = {
            name: producer for name, (producer, _) in artifacts.inputs.items() if producer not in self.reused
        }
        lineage, ignore_lineage = self._lineage(step, config, self.facts)
        key = cache_key(
            step,
            config,
            self.workspace,
            inputs={
                name: UNKNOWN if name in pending_inputs else self.reused[producer].declared_digest(output)
                for name, (producer, output) in artifacts.inputs.items()
            },
            lineage=lineage,
            code=artifacts.code,
            libraries=self.libraries(step) or None,
        )
        missing_asset = self._missing_asset_of(step)
        if pending_inputs or missing_asset:
            return self._plan_dependent(step, store, config, key, pending_inputs, missing_asset)
        entry, origin = store.find(key, ignore_lineage=ignore_lineage), ""
        if entry is None and self.remote_cache is not None:
            entry, origin = self._find_remote(step, key), f", kept at {self.run_context.storage.artifacts}"
        if entry is None:
            return PlannedStep(step=step, state="runs", why=store.explain_miss(key))
        if not origin and (damage := entry.find_damage(artifacts.outputs)):
            return PlannedStep(step=step, state="runs", why=damage)
        self.reused[step] = entry
        return PlannedStep(step=step, state="reused", why=entry.reason + origin)

    def _plan_dependent(
        self,
        step: str,
        store: StepCache,
        config: BaseModel,
        key: dict[str, Any],
        pending_inputs: dict[str, str],
        missing_asset: str,
    ) -> PlannedStep:
        """The fate of a step of which something is not known yet: inputs that ``waits`` names, fetched material."""
        causes = self._causes(pending_inputs)
        sources = tuple(dict.fromkeys([*pending_inputs.values(), *([missing_asset] if missing_asset else [])]))
        matching = [
            each
            for each in self._matching_entries(step, store, config, key)
            if not each.find_damage(REUSABLE_STEPS[step].outputs)
        ]
        if matching or (self.remote_cache is not None and self.remote_cache.has_step(step)):
            self.candidate_entries[step] = matching
            why = "; ".join(f"{cause}: {self.planned[cause].why}" for cause in causes) or f"{missing_asset} is fetched"
            unless = (
                sources if self.remote_cache is not None or self._always_cached(step, pending_inputs, matching) else ()
            )
            return PlannedStep(step=step, state="unsure", why=why, unless=unless, because=causes)
        latest = store.latest()
        changed = [NEVER_RAN] if latest is None else key_changes(latest.key, key)
        changed += [f"its input {name} may change" for name in pending_inputs] if latest is not None else []
        return PlannedStep(
            step=step, state="runs", why="; ".join(changed) or f"{missing_asset} is fetched", because=causes
        )

    def _always_cached(self, step: str, pending_inputs: dict[str, str], matching: list[CacheEntry]) -> bool:
        """Whether each kept output that a step may get to read has kept work of this step that fits it."""
        for name, producer in pending_inputs.items():
            output = REUSABLE_STEPS[step].inputs[name][1]
            known_digests = {entry.key["inputs"][name] for entry in matching}
            if not known_digests.issuperset(
                entry.declared_digest(output) for entry in self.candidate_entries.get(producer, ())
            ):
                return False
        return True

    def _matching_entries(
        self, step: str, store: StepCache, config: BaseModel, key: dict[str, Any]
    ) -> Iterator[CacheEntry]:
        """Kept work that would be taken if what is unknown came out as it was then."""
        for entry in store.matching({**key, "lineage": UNKNOWN}):
            facts = _LineageFacts(
                source=self.facts.source, data=_data_digest_of(entry), model_id=entry.result.get("model_id", UNKNOWN)
            )
            lineage, ignore_lineage = self._lineage(step, config, facts)
            if ignore_lineage or matches(entry.key["lineage"], lineage):
                yield entry

    def _lineage(self, step: str, config: Any, facts: _LineageFacts) -> tuple[dict[str, Any], bool]:
        """What else decides the outcome of a step, and whether work of another lineage is as good: as at its door."""
        if step == "ingest":
            return {"source": facts.source}, False
        if step == "validate":
            previous = (
                None
                if facts.data is UNKNOWN
                else profile.previous_profile_for(self.workspace, config.profile_name, facts.data)
            )
            lineage = profile.lineage(previous, config)
            return (lineage | {"previous profile": UNKNOWN} if facts.data is UNKNOWN else lineage), False
        if step == "featurize":
            return self.run_context.storage.features.lineage, False
        if step == "finetune":
            lineage = {"encoder": UNKNOWN if self._missing_asset_of(step) else encoder.encoder_digest(config.encoder)}
            if config.warm_start:
                lineage[champion_weights.LINEAGE_KEY] = self._initial_weights(facts)
            return lineage, False
        if step == "evaluate":
            if facts.model_id is UNKNOWN and self.champion:
                return {"champion": UNKNOWN}, False
            return {"champion": champion_for(facts.model_id, self.champion)}, is_champion(facts.model_id, self.champion)
        return {}, False

    def _initial_weights(self, facts: _LineageFacts) -> Any:
        """The digest of the weights that a model of this data begins with."""
        models = ModelRegistry(self.run_context.repository, repair_cache=False)
        if facts.data is UNKNOWN and self.champion and champion_weights.read_metadata(models, self.champion):
            return UNKNOWN
        return champion_weights.select_warm_start(models, self.champion, facts.data).digest

    def _missing_asset_of(self, step: str) -> str:
        """The material, not fetched yet, that a step's lineage is made of."""
        if step == "ingest":
            return self._missing_asset_at(self.settings["ingest"]["source"])
        return self._missing_asset_at(self.settings["finetune"]["encoder"]) if step == "finetune" else ""

    def _causes(self, pending_inputs: dict[str, str]) -> tuple[str, ...]:
        """The steps that run for reasons of their own, and through which these inputs may change."""
        causes: dict[str, None] = {}
        for producer in pending_inputs.values():
            causes |= dict.fromkeys(self.planned[producer].because)
            if self.planned[producer].state == "runs":
                causes |= {producer: None}
        return tuple(sorted(causes, key=ledger.STEPS.index))

    def _find_remote(self, step: str, key: dict[str, Any]) -> CacheEntry | None:
        from rankline.io import digest

        name = digest.json_digest(key)
        assert self.remote_cache is not None
        return parse_cache_entry(self.remote_cache.read_entry(step, name), Path(step) / name)

    def plan_promotion(self) -> PlannedStep:
        """What will become of promote."""
        if self.recipe.decide.mode == "review":
            return PlannedStep(
                step="promote", state="skipped", why="decide.mode is review: the model waits for a reviewer"
            )
        if is_champion(self.facts.model_id, self.champion):
            return PlannedStep(step="promote", state="skipped", why=f"model {self.champion} already serves")
        unless = () if self.facts.model_id is not UNKNOWN else self._causes({"bundle": "export"})
        condition = "and it is another model than the champion" if self.champion and unless else ""
        return PlannedStep(
            step="promote", state="unsure", provided=" ".join(["the gates are met", condition]).strip(),
            why="it runs where the verdict is to promote", because=unless,
        )  # fmt: skip


def _data_digest_of(validated: CacheEntry) -> Any:
    """The digest of the tables that kept work of validate was about; UNKNOWN of other steps' work."""
    try:
        return json.loads((validated.folder / "clean" / "profile.json").read_text())["data_digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN
