"""The desk: approve, reject and roll back, with what that needs of the workspace.

An approval is one event `promoted` with the reviewer's name: the features come online before it, and `Desk.announce`
lets MLflow follow it. With four eyes and a run that nobody is known to have started, the first of two approvals is an
event `approved`.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.promote.commit import OnlinePlace, materialize_then_append
from components.promote.config import PromoteConfig
from components.promote.step import move_proven_anchor
from components.promote.verdict_files import VERDICT
from pipelines.recipe import Recipe, run_context
from pipelines.runs.announcing import announcer_of
from pipelines.runs.artifacts import find_output
from pipelines.runs.evaluation import runs_of
from pipelines.runs.folder import RECIPE, read_recipe
from rankline.errors import IntegrityError, NotPermitted, RanklineError, RegistryError, StaleEvidence, UsageError
from rankline.evaluation.decision import Verdict
from rankline.evaluation.report import REPORT, Report
from rankline.features.watermark import FILE as WATERMARK
from rankline.io.files import first_line, read_json_object
from rankline.io.storage import StorageConfig
from rankline.model.bundle import Bundle
from rankline.registry import anchor, rollback
from rankline.registry.bundle_store import RESTORE_HINT
from rankline.registry.erased_evidence import evidence_digest
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.run_context import RunContext
from review.queue import MIN_DIGEST, REVIEW, Candidate, candidates, find, still_waiting

EVIDENCE_PAGE, MODEL_CARD = "evidence.html", "MODEL_CARD.md"
Step = Literal["approved", "promoted"]


@dataclass(frozen=True)
class Evidence:
    """The evidence for a candidate; evidence of earlier versions has no page and no card."""

    report: Report
    verdict: Verdict
    page: bytes | None  # evidence.html
    card: str | None  # MODEL_CARD.md


class Desk:
    """A registry, and the workspace whose online store serves its models."""

    def __init__(
        self,
        models: ModelRegistry,
        workspace: Path,
        *,
        recipe: Recipe | None = None,
        bucket: BucketWorkspace | None = None,
        warn: Callable[[str], object] | None = None,
        later: Callable[[Callable[[], None]], object] = lambda work: work(),
    ) -> None:
        """``recipe`` names the stores and MLflow; by default the one of each candidate's run does.

        ``bucket`` is the workspace in a bucket that ``workspace`` is the copy of. ``warn`` receives what went wrong
        after an event that stands. ``later`` runs what nobody needs to wait for: `announce_later`.
        """
        self.models, self.workspace, self._recipe, self._bucket = models, workspace.resolve(), recipe, bucket
        self._warn = warn or (lambda text: print(f"warning: {text}", file=sys.stderr))
        self._later = later

    @classmethod
    def open(cls, workspace: Path, repository: str = "", **more: Any) -> Desk:
        """The desk of a workspace; an empty ``repository`` is the workspace's own. See `Desk` for ``more``."""
        return cls(ModelRegistry(repository or str(workspace / "repository")), workspace, **more)

    def warning(self, warn: Callable[[str], object]) -> Desk:
        """The same desk, with another receiver of warnings."""
        other = copy.copy(self)
        other._warn = warn
        return other

    def approve(self, model: str, *, verdict: str, who: str, why: str = "") -> Event:
        """Make a candidate that waits the champion, or record the first of two approvals that it needs.

        ``model`` and ``verdict`` may be abbreviated, the digest to 8 characters.

        Raises:
            UsageError: there is no such candidate, or the evidence is another's.
            NotPermitted: another reviewer has to approve it.
            StaleEvidence: it was decided on meanwhile, or the champion, its catalogue or the bundle changed.
            IntegrityError: its evidence changed, or cannot be read.
            RegistryError: its evidence is gone, or its features are nowhere or could not be brought online; nothing
                changed.
        """
        _require_name(who)
        candidate = still_waiting(self.models.history(), self._named(model, verdict))
        decided = self._verdict(candidate)
        self._refuse_changed_evaluation(candidate)
        self._refuse_changed_bundle(candidate)
        while True:
            now = still_waiting(self.models.history(), candidate)
            step = next_step(now, who, four_eyes=decided.policy.four_eyes or now.four_eyes)
            reason = why or f"approved: {decided.sentence}"
            try:
                if step == "approved":
                    return self._append("approved", now, who=who, why=reason)
                return self._promote(now, decided, who=who, why=reason)
            except _OvertakenError:  # another reviewer approved it meanwhile: this may be the second approval
                continue

    def reject(self, model: str, *, verdict: str, who: str, why: str) -> Event:
        """Reject a candidate that waits, even one whose evidence is stale; ``why`` is a sentence.

        Raises:
            UsageError: there is no such candidate, the evidence is another's, or there is no reason.
            StaleEvidence: it was decided on meanwhile.
        """
        _require_name(who)
        if len(why.split()) < 2:
            raise UsageError(
                "a rejection needs a reason",
                expected="a sentence that others will understand",
                found=why or "nothing",
                hint='--reason "it recommends recalled items"',
            )
        candidate = self._named(model, verdict)

        def waits(history: list[Event]) -> None:
            still_waiting(history, candidate, stale=True)

        waits(self.models.history())
        return self._write("rejected", candidate, who=who, why=why, condition=waits)

    def roll_back(self, model: str, *, who: str, why: str, champion: str | None = None) -> Event:
        """Make a former champion serve again, the nearest one if ``model`` is empty; see `rankline.registry.rollback`.

        ``champion`` is the one that the reader saw, which must serve still.

        Raises:
            RanklineError: as `rollback.roll_back` does.
        """
        _require_name(who)
        self._download_stores()
        event = rollback.roll_back(self.models, to=model, who=who, why=why, workspace=self.workspace, champion=champion)
        self._warn_of_relisted(event)
        return event

    def announce(self, event: Event) -> None:
        """Let MLflow show an event of this desk, and notify of it: takes seconds, so show the event first.

        What goes wrong is a warning: the event stands, and `rankline sync` does the rest later.
        """
        sys.stdout.flush()  # what was printed of the event: MLflow takes seconds
        try:
            if self._bucket is not None:
                self._bucket.download("runs", suffixes=("recipe.json",))
            named = run_context(self._recipe, self.workspace).announcer if self._recipe else None
            announcer = named or announcer_of(self.workspace, self.models, event.model_id)
            warnings = announcer.announce(self.models, event.model_id, [event]).warnings if announcer else ()
        except (RanklineError, OSError) as problem:
            warnings = (f"MLflow is not up to date: {first_line(problem)}; `rankline sync` mends it later",)
        for warning in warnings:
            self._warn(warning)

    def announce_later(self, event: Event) -> None:
        """Announce an event without making anybody wait for it."""
        self._later(lambda: self.announce(event))

    def break_glass(self, model: str, *, who: str, why: str) -> Event:
        """Make a registered model serve that no gate has passed; see `rankline.registry.anchor`.

        Raises:
            RanklineError: as `anchor.break_glass` does.
        """
        _require_name(who)
        self._download_stores()

        def check(model_id: str) -> None:
            rollback.refuse_missing_features(self.models.manifest(model_id).features.service, self.workspace)

        event = anchor.break_glass(self.models, model, who=who, why=why, check=check)
        self._warn_of_relisted(event)
        return event

    def _download_stores(self) -> None:
        if self._bucket is not None:
            self._bucket.download("online", suffixes=("feature_store.yaml",))

    def evidence(self, candidate: Candidate) -> Evidence:
        """The evidence for a candidate.

        Raises:
            RegistryError: it is not in the registry any more.
            IntegrityError: it cannot be read.
        """
        content = self.models.read_evidence(candidate.evaluation, REPORT)
        if content is None:
            raise _gone(candidate, "evaluation", candidate.evaluation, self.models)
        try:
            report = Report.model_validate_json(content)
        except ValueError as error:
            raise _unreadable(self.models, candidate.evaluation, REPORT, error) from error
        card = self.models.read_evidence(candidate.verdict, MODEL_CARD)
        return Evidence(
            report=report,
            verdict=self._verdict(candidate, verified=False),
            page=self.models.read_evidence(candidate.verdict, EVIDENCE_PAGE),
            card=None if card is None else card.decode("utf-8", "replace"),
        )

    # -- what an approval is checked by ------------------------------------------------------------------------

    def _named(self, model: str, verdict: str) -> Candidate:
        """The candidate that a model id and the digest of its verdict name, both perhaps abbreviated."""
        history = self.models.history()
        newest = find(history, model)
        own = [each for each in candidates(history) if each.model_id == newest.model_id]
        matches = [each for each in own if len(verdict) >= MIN_DIGEST and each.verdict.startswith(verdict)]
        if matches:
            return matches[0]
        others = [each.model_id for each in candidates(history) if verdict and each.verdict.startswith(verdict)]
        shown = f"{verdict}, the evidence for model {others[0]}" if others else verdict or "no digest"
        raise UsageError(
            f"this is not the evidence for candidate {newest.model_id}",
            expected=f"the digest of its verdict, at least {MIN_DIGEST} characters of it",
            found=shown,
            where=self.models.root,
            hint=f"read it first: `rankline review show {newest.model_id}` prints the digest",
        )

    def _verdict(self, candidate: Candidate, *, verified: bool = True) -> Verdict:
        """The stored verdict on a candidate, whose files still have the digest that names them."""
        with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
            folder = self.models.evidence_folder(candidate.verdict, Path(scratch))
            if verified:
                self._refuse_changed_evidence(candidate, candidate.verdict, folder)
            try:
                return Verdict.model_validate_json((folder / VERDICT).read_bytes())
            except (OSError, ValueError) as error:
                raise _unreadable(self.models, candidate.verdict, VERDICT, error) from error

    def _refuse_changed_evaluation(self, candidate: Candidate) -> None:
        with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
            folder = self.models.evidence_folder(candidate.evaluation, Path(scratch))
            self._refuse_changed_evidence(candidate, candidate.evaluation, folder)

    def _refuse_changed_evidence(self, candidate: Candidate, name: str, folder: Path) -> None:
        """Refuse evidence whose files have not the digest that names it, but for those without erased users."""
        actual = evidence_digest(folder, complete=(VERDICT,))
        if actual != name:
            raise IntegrityError(
                "the evidence changed since it was stored",
                expected=f"files with the digest {name}",
                found=f"files with the digest {actual}",
                where=self.models.evidence(name),
                hint=f"`rankline evaluate --candidate {candidate.model_id}` measures it again",
            )

    def _refuse_changed_bundle(self, candidate: Candidate) -> None:
        """Refuse a candidate whose files are not the ones that were measured."""
        try:
            self._bundle(candidate.model_id)
        except IntegrityError as error:
            raise StaleEvidence(
                f"the bundle of candidate {candidate.model_id} changed since it was judged: {error.message}",
                expected=error.expected,
                found=error.found,
                where=error.where,
                hint=RESTORE_HINT,
            ) from error

    def _bundle(self, model_id: str) -> Bundle:
        """A stored bundle with its own catalogue, verified."""
        with tempfile.TemporaryDirectory(prefix="rankline-") as scratch:
            return self.models.bundle(model_id, revision="", into=Path(scratch))

    # -- the events --------------------------------------------------------------------------------------------

    def _append(self, kind: Step, candidate: Candidate, *, who: str, why: str, **details: Any) -> Event:
        """Append an approval, if the candidate still waits and nobody else has approved it for the first time."""

        def condition(history: list[Event]) -> None:
            now = still_waiting(history, candidate)
            if kind == "approved" and now.approvals != candidate.approvals:
                raise _OvertakenError

        return self._write(kind, candidate, who=who, why=why, condition=condition, **details)

    def _write(
        self,
        kind: Literal["approved", "promoted", "rejected"],
        candidate: Candidate,
        *,
        who: str,
        why: str,
        condition: Callable[[list[Event]], object],
        **details: Any,
    ) -> Event:
        review = {
            "pending": candidate.verdict_event,
            "verdict": candidate.verdict,
            "approvals": [each.model_dump() for each in candidate.approvals],
        }
        return self.models.append(
            kind, candidate.model_id, who=who, why=why, run_id=candidate.run_id, condition=condition,
            digests={"evaluation": candidate.evaluation, "verdict": candidate.verdict},
            details={**details, REVIEW: review},
        )  # fmt: skip

    def _promote(self, candidate: Candidate, decided: Verdict, *, who: str, why: str) -> Event:
        """Bring the features online and append the event; the anchor and MLflow follow it."""
        settings, bundle = self._settings(candidate), self._bundle(candidate.model_id)
        runs = runs_of(self.models.history(), candidate.model_id)
        features = find_output(runs, "featurize", "features", settings.context)

        def append(details: dict[str, Any]) -> Event:
            return self._append("promoted", candidate, who=who, why=why, **details)

        if features is None:
            event = append(self._online_already(bundle, settings.context))
        else:
            event, _ = materialize_then_append(
                self.models, bundle, features, place=settings.place, owner={"who": who, "run": candidate.run_id},
                check=lambda: still_waiting(self.models.history(), candidate), append=append,
            )  # fmt: skip
        self._follow(event, decided)
        return event

    def _online_already(self, bundle: Bundle, context: RunContext) -> dict[str, Any]:
        """What the event says of an online store that stays as it is, as the features of the run are gone."""
        service = bundle.manifest.features.service
        context.download(f"online/{service}")
        folder = self.workspace / "online" / service
        if not (folder / "feature_store.yaml").is_file():
            raise RegistryError(
                f"the features that model {bundle.model_id} reads are not online, and those of its run are gone",
                expected=f"the features of its run, or the feature service {service} online",
                found="neither",
                where=str(self.workspace),
                hint="-w names the workspace of that run; else run its recipe again: finished steps are reused",
            )
        self._warn(f"the features of its run are gone: the online store {service} stays as it is")
        return {"service": service, "online_until": read_json_object(folder / WATERMARK).get("until", "")}

    def _follow(self, event: Event, decided: Verdict) -> None:
        """What follows a promotion: the anchor and the warnings. The promotion stands whatever becomes of them."""
        self._warn_of_relisted(event)
        try:
            move_proven_anchor(self.models, decided, run_id=event.run_id)
        except (RanklineError, OSError) as problem:
            self._warn(first_line(problem))

    def _warn_of_relisted(self, event: Event) -> None:
        if warning := self.models.relisted_warning(event.champion_before, event.model_id):
            self._warn(warning)

    def _settings(self, candidate: Candidate) -> _Settings:
        """Where a candidate's features come from and go to: by the desk's recipe, or the one of the candidate's run."""
        if self._bucket is not None and candidate.run_id:
            self._bucket.download(f"runs/{candidate.run_id}", suffixes=(".json",))
        folder = self.workspace / "runs" / candidate.run_id
        recipe = self._recipe or (read_recipe(folder) if candidate.run_id and (folder / RECIPE).is_file() else None)
        if recipe is None:
            context = RunContext(self.workspace, candidate.run_id, StorageConfig())
        else:
            context = run_context(recipe, self.workspace, candidate.run_id)
        if self._bucket is not None:
            context.storage = context.storage.model_copy(update={"workspace": self._bucket.url}).resolved
        config = recipe.promote if recipe else PromoteConfig()
        place = OnlinePlace(
            workspace=self.workspace, config=config, stores=context.storage.features, bucket=context.bucket
        )
        return _Settings(context, place)


@dataclass(frozen=True)
class _Settings:
    """The context of a candidate's run, and the online store that its features come to."""

    context: RunContext
    place: OnlinePlace


class _OvertakenError(Exception):
    """Another reviewer approved a candidate meanwhile."""


def same_user(one: str, other: str) -> bool:
    """Whether two names may be those of one user: ann@laptop and oidc:ann+work@example.com may."""
    return _plain_name(one) == _plain_name(other)


def _plain_name(name: str) -> str:
    """A name without the prefix of its provider, the tag of a mailbox and the host."""
    return name.partition("@")[0].rpartition(":")[2].partition("+")[0].strip().casefold()


def next_step(candidate: Candidate, who: str, *, four_eyes: bool) -> Step:
    """What an approval by this reviewer is: the promotion, or the first of two approvals.

    Raises:
        NotPermitted: it needs another reviewer.
    """
    if not four_eyes:
        return "promoted"
    expected = "an approval by another reviewer (decide.four_eyes)"
    if candidate.started_by:
        if same_user(candidate.started_by, who):
            raise NotPermitted(
                "who started a run may not approve its model",
                expected=expected,
                found=f"{who}; {candidate.started_by} started run {candidate.run_id}",
                hint="ask another reviewer",
            )
        return "promoted"
    if not candidate.approvals:
        return "approved"
    if any(not same_user(each.who, who) for each in candidate.approvals):
        return "promoted"
    raise NotPermitted(
        "a second reviewer has to approve this model: it is not known who started its run",
        expected=expected,
        found=f"{who}, who approved it at {candidate.approvals[0].at}",
        hint="ask another reviewer",
    )


def _require_name(who: str) -> None:
    if not who.strip():
        raise UsageError("a decision needs the name of the one who decides", expected="a name", found="none")


def _gone(candidate: Candidate, what: str, name: str, models: ModelRegistry) -> RegistryError:
    return RegistryError(
        f"the {what} of candidate {candidate.model_id} is not in the registry any more",
        expected=f"evidence/{name}",
        found="no such folder",
        where=models.root,
        hint=f"`rankline evaluate --candidate {candidate.model_id}` measures it again",
    )


def _unreadable(models: ModelRegistry, name: str, file: str, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"{file} of the evidence cannot be read",
        expected=f"{file}, as a version of Rankline that is not newer than this one writes it",
        found=first_line(error),
        where=f"{models.evidence(name)}/{file}",
        hint="restore it from a backup, or evaluate the candidate again",
    )
