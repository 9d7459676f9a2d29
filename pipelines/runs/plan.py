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
from pipelines.recipes import Recipe, at, kept
from pipelines.runs.estimates import Estimate, estimates
from rankline.contracts import FrozenModel
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from rankline.runtime.remote_cache import RemoteCache
from rankline.runtime.run_step import RunContext
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
class Door:
    """What a step takes and gives in the flow (pipelines/training.py), and the code it uses beside its own."""

    takes: Mapping[str, tuple[str, str]]  # input -> (the step that makes it, its name there)
    gives: tuple[str, ...]
    code: tuple[str, ...] = ()


FEATURES, TEACHER, STUDENT = ("featurize", "features"), ("finetune", "teacher"), ("distill", "student")
DOORS = {
    "ingest": Door({}, ("raw",)),
    "validate": Door({"raw": ("ingest", "raw")}, ("clean", "report")),
    "featurize": Door({"clean": ("validate", "clean")}, ("features",)),
    "finetune": Door({"features": FEATURES}, ("teacher",)),
    "distill": Door({"features": FEATURES, "teacher": TEACHER}, ("student",)),
    "export": Door({"features": FEATURES, "student": STUDENT}, ("bundle",)),
    "evaluate": Door(
        {"bundle": ("export", "bundle"), "features": FEATURES, "teacher": TEACHER, "student": STUDENT},
        ("report",),
        code=("serving.server",),
    ),
}


class Step(FrozenModel):
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


class Total(FrozenModel):
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
    steps: tuple[Step, ...]
    total: Total


def plan(recipe: Recipe, workspace: Path, *, libraries: Libraries | None = None) -> Plan:
    """Foretell a run of a recipe; reads the workspace, the source and the champion, and writes nothing.

    ``libraries`` tells the versions a step will work with where these are not this process's own.

    Raises:
        SourceError: the source is not there: the run would stop at its first step.
        UsageError: the workspace's champion ranks another catalogue.
        IntegrityError: material that was fetched is damaged.
    """
    workspace = workspace.resolve()
    seer = _Seer(recipe, workspace, libraries or (lambda step: UNTOLD))
    steps = [Step(step="resolve_inputs", state="runs", why=ALWAYS_RUNS)]
    steps += [seer.foretell(step) for step in DOORS]
    steps += [Step(step="decide", state="runs", why=ALWAYS_RUNS), seer.promotion()]
    known = estimates(workspace, recipe.name)
    timed = [
        step.model_copy(update=_times("run", known.ran.get(step.step)) | _times("reuse", known.reused.get(step.step)))
        for step in steps
    ]
    around = known.around.seconds if known.around else None
    return Plan(
        recipe=recipe.name,
        workspace=str(workspace),
        champion=seer.champion,
        fetches=tuple(seer.awaited),
        steps=tuple(timed),
        total=Total(
            least_s=round(sum(step.least_s or 0.0 for step in timed) + (around or 0.0), 2),
            most_s=round(sum(step.most_s or 0.0 for step in timed) + (around or 0.0), 2),
            around_s=None if around is None else round(around, 2),
            around_from=known.around.run if known.around else "",
            without=tuple(step.step for step in timed if step.least_s is None or step.most_s is None),
        ),
    )


def _times(name: str, estimate: Estimate | None) -> dict[str, Any]:
    return {f"{name}_s": round(estimate.seconds, 2), f"{name}_from": estimate.run} if estimate else {}


UNTOLD: Mapping[str, str] = {}  # no versions are named: this process's own


@dataclass
class _Facts:
    """What a step's lineage is made of; UNKNOWN where that shows only in the run."""

    source: Any = UNKNOWN  # digest of the source
    data: Any = UNKNOWN  # digest of the tables that ingest makes of it
    model_id: Any = UNKNOWN  # of the bundle that export makes


@dataclass
class _Seer:
    """Goes along the line once and remembers what becomes of each step."""

    recipe: Recipe
    workspace: Path
    libraries: Libraries
    told: dict[str, Step] = field(default_factory=dict)
    taken: dict[str, CacheEntry] = field(default_factory=dict)  # step -> the kept work that is reused
    possible: dict[str, list[CacheEntry]] = field(
        default_factory=dict
    )  # unsure step -> the kept works, one of which may be

    def __post_init__(self) -> None:
        place = str(self.workspace)
        self.settings = at(self.recipe, place)
        self.here = RunContext.from_parameters({"workspace": place, **kept(self.recipe, place)}, "")
        self.shelf = RemoteCache(self.here.storage.artifacts) if self.here.storage.artifacts else None
        self.awaited = {name: folder for name in self.recipe.material if not (folder := self._fetched(name)).is_dir()}
        self.facts = _Facts()
        self._look()

    def _fetched(self, name: str) -> Path:
        """Where material lies; what is there is checked, as it is before a run."""
        folder = packaged.asset_folder(name, self.workspace)
        return packaged.fetch(name, self.workspace) if folder.is_dir() else folder

    def _awaits(self, path: str) -> str:
        """The material, not fetched yet, that a setting leads into; empty where it leads elsewhere."""
        return next((name for name, folder in self.awaited.items() if Path(path).is_relative_to(folder)), "")

    def _look(self) -> None:
        ingest = self.settings["ingest"]
        if self._awaits(ingest["source"]):
            self.champion = ModelRegistry(self.here.repository, repair_cache=False).champion()
            return
        seen = resolve_inputs(
            workspace=self.workspace,
            repository=self.here.repository,
            catalogue=self.recipe.export.catalogue,
            config=ResolveInputsConfig(
                **{name: ingest[name] for name in ResolveInputsConfig.model_fields if name in ingest}
            ),
            repair_cache=False,
        )
        self.champion, self.facts.source = seen["champion"], seen["source_digest"]

    def foretell(self, step: str) -> Step:
        """What will become of a step, when those before it have been foretold."""
        told = self._foretold(step)
        self.told[step] = told
        if step == "ingest" and step in self.taken:
            self.facts.data = self.taken[step].result["data_digest"]
        if step == "export" and step in self.taken:
            self.facts.model_id = self.taken[step].result["model_id"]
        return told

    def _foretold(self, step: str) -> Step:
        door, store = DOORS[step], StepCache(self.here.cache_folder(step))
        config: BaseModel = type(getattr(self.recipe, step))(**self.settings[step])
        waits = {name: maker for name, (maker, _) in door.takes.items() if maker not in self.taken}
        lineage, ignore_lineage = self._lineage(step, config, self.facts)
        key = cache_key(
            step,
            config,
            self.workspace,
            inputs={
                name: UNKNOWN if name in waits else self.taken[maker].declared_digest(output)
                for name, (maker, output) in door.takes.items()
            },
            lineage=lineage,
            code=door.code,
            libraries=self.libraries(step) or None,
        )
        awaited = self._awaited_by(step)
        if waits or awaited:
            return self._depending(step, store, config, key, waits, awaited)
        found, elsewhere = store.find(key, ignore_lineage=ignore_lineage), ""
        if found is None and self.shelf is not None:
            found, elsewhere = self._on_shelf(step, key), f", kept at {self.here.storage.artifacts}"
        if found is None:
            return Step(step=step, state="runs", why=store.why(key))
        if not elsewhere and (damage := found.find_damage(door.gives)):
            return Step(step=step, state="runs", why=damage)
        self.taken[step] = found
        return Step(step=step, state="reused", why=found.why + elsewhere)

    def _depending(
        self, step: str, store: StepCache, config: BaseModel, key: dict[str, Any], waits: dict[str, str], awaited: str
    ) -> Step:
        """The fate of a step of which something is not known yet: inputs that ``waits`` names, fetched material."""
        causes = self._causes(waits)
        whence = tuple(dict.fromkeys([*waits.values(), *([awaited] if awaited else [])]))
        fitting = [each for each in self._fitting(step, store, config, key) if not each.find_damage(DOORS[step].gives)]
        if fitting or (self.shelf is not None and self.shelf.has_step(step)):
            self.possible[step] = fitting
            why = "; ".join(f"{cause}: {self.told[cause].why}" for cause in causes) or f"{awaited} is fetched"
            unless = whence if self.shelf is not None or self._whatever_comes(step, waits, fitting) else ()
            return Step(step=step, state="unsure", why=why, unless=unless, because=causes)
        latest = store.latest()
        own = [NEVER_RAN] if latest is None else key_changes(latest.key, key)
        own += [f"its input {name} may change" for name in waits] if latest is not None else []
        return Step(step=step, state="runs", why="; ".join(own) or f"{awaited} is fetched", because=causes)

    def _whatever_comes(self, step: str, waits: dict[str, str], fitting: list[CacheEntry]) -> bool:
        """Whether each kept output that a step may get to read has kept work of this step that fits it."""
        for name, maker in waits.items():
            output = DOORS[step].takes[name][1]
            read = {each.key["inputs"][name] for each in fitting}
            if not read.issuperset(each.declared_digest(output) for each in self.possible.get(maker, ())):
                return False
        return True

    def _fitting(self, step: str, store: StepCache, config: BaseModel, key: dict[str, Any]) -> Iterator[CacheEntry]:
        """Kept work that would be taken if what is unknown came out as it was then."""
        for each in store.matching({**key, "lineage": UNKNOWN}):
            facts = _Facts(source=self.facts.source, data=_data_of(each), model_id=each.result.get("model_id", UNKNOWN))
            lineage, ignore_lineage = self._lineage(step, config, facts)
            if ignore_lineage or matches(each.key["lineage"], lineage):
                yield each

    def _lineage(self, step: str, config: Any, facts: _Facts) -> tuple[dict[str, Any], bool]:
        """What else decides the outcome of a step, and whether work of another lineage is as good: as at its door."""
        if step == "ingest":
            return {"source": facts.source}, False
        if step == "validate":
            before = (
                None
                if facts.data is UNKNOWN
                else profile.previous_profile_for(self.workspace, config.profile_name, facts.data)
            )
            told = profile.lineage(before, config)
            return (told | {"previous profile": UNKNOWN} if facts.data is UNKNOWN else told), False
        if step == "featurize":
            return self.here.storage.features.lineage, False
        if step == "finetune":
            told = {"encoder": UNKNOWN if self._awaited_by(step) else encoder.encoder_digest(config.encoder)}
            if config.warm_start:
                told[champion_weights.LINEAGE_KEY] = self._begins_with(facts)
            return told, False
        if step == "evaluate":
            if facts.model_id is UNKNOWN and self.champion:
                return {"champion": UNKNOWN}, False
            return {"champion": champion_for(facts.model_id, self.champion)}, is_champion(facts.model_id, self.champion)
        return {}, False

    def _begins_with(self, facts: _Facts) -> Any:
        """The digest of the weights that a model of this data begins with."""
        models = ModelRegistry(self.here.repository, repair_cache=False)
        if facts.data is UNKNOWN and self.champion and champion_weights.read_metadata(models, self.champion):
            return UNKNOWN
        return champion_weights.select_warm_start(models, self.champion, facts.data).digest

    def _awaited_by(self, step: str) -> str:
        """The material, not fetched yet, that a step's lineage is made of."""
        if step == "ingest":
            return self._awaits(self.settings["ingest"]["source"])
        return self._awaits(self.settings["finetune"]["encoder"]) if step == "finetune" else ""

    def _causes(self, waits: dict[str, str]) -> tuple[str, ...]:
        """The steps that run for reasons of their own, and through which these inputs may change."""
        found: dict[str, None] = {}
        for maker in waits.values():
            found |= dict.fromkeys(self.told[maker].because)
            if self.told[maker].state == "runs":
                found |= {maker: None}
        return tuple(sorted(found, key=ledger.STEPS.index))

    def _on_shelf(self, step: str, key: dict[str, Any]) -> CacheEntry | None:
        from rankline.io import digest

        name = digest.json_digest(key)
        assert self.shelf is not None
        return parse_cache_entry(self.shelf.read_entry(step, name), Path(step) / name)

    def promotion(self) -> Step:
        """What will become of promote."""
        if self.recipe.decide.mode == "review":
            return Step(step="promote", state="skipped", why="decide.mode is review: the model waits for a reviewer")
        if is_champion(self.facts.model_id, self.champion):
            return Step(step="promote", state="skipped", why=f"model {self.champion} already serves")
        unless = () if self.facts.model_id is not UNKNOWN else self._causes({"bundle": "export"})
        own = "and it is another model than the champion" if self.champion and unless else ""
        return Step(
            step="promote", state="unsure", provided=" ".join(["the gates are met", own]).strip(),
            why="it runs where the verdict is to promote", because=unless,
        )  # fmt: skip


def _data_of(validated: CacheEntry) -> Any:
    """The digest of the tables that kept work of validate was about; UNKNOWN of other steps' work."""
    try:
        return json.loads((validated.folder / "clean" / "profile.json").read_text())["data_digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN
