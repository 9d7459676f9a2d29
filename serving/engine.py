"""The engine: a bundle that answers, in three verbs.

``prepare`` turns what was asked into tensors, ``run`` takes a batch of them through the sessions, ``finish``
makes ranked answers. Queue, HTTP and metrics are built around the three and never look inside. Candidates
are drawn inside ``run``, between the tower and the scorer, because the draw needs the tower's vector.

Shapes: B requests of a batch, L history events, T tokens, I items, N candidates (C when padded over a
batch), D vector size, F features, H heads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenState, History
from rankline.errors import IntegrityError, RanklineError, ServerError, UsageError
from rankline.features.transforms import stars
from rankline.model import scoring
from rankline.model.bundle import Bundle, read_catalogue
from rankline.text import Tokenizer
from serving.sessions import Graph, Provider

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class UnknownItem(UsageError):
    """An item was asked about that the catalogue does not hold."""


@dataclass(frozen=True)
class EngineRequest:
    """What is asked of an engine, once the routes have read it and looked up what belongs to it."""

    verb: Literal["recommend", "search", "rank", "similar"]
    state: FrozenState
    k: int | None = None
    query: str | None = None
    candidates: Sequence[str] = ()
    item_id: str = ""
    frozen: bool = False  # a moment that is over is asked again: what was to be had then is ranked


@dataclass(frozen=True)
class RankedItem:
    """One item of an answer.

    ``score`` orders it; ``heads`` are the logits through a sigmoid; ``probability`` is the chance that it is right,
    where the model was calibrated.
    """

    item_id: str
    title: str
    score: float
    heads: dict[str, float]
    logits: dict[str, float]
    sources: list[str]
    probability: float | None = None


@dataclass(frozen=True)
class EngineResponse:
    """The ranked items, best first, and which of the given candidates the catalogue does not hold.

    ``abstained``: the best of them is too unlikely to be given as an answer. ``hidden``: given candidates that were
    taken down; ``withdrawn``: those that are not available.
    """

    items: list[RankedItem]
    unknown: list[str]
    abstained: bool = False
    hidden: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says of itself."""

    model_id: str
    revision: str
    precision: str
    provider: str
    heads: list[str]
    manifest: dict[str, Any]


class Engine(Protocol):
    """The three verbs, and what the things around them may know. What passes between the verbs is its own."""

    info: EngineInfo
    item_ids: Sequence[str]

    def hide(self, items: Collection[str]) -> None:
        """Leave these items, and no others that were hidden before, out of every answer from now on."""

    def prepare(self, request: EngineRequest) -> Any:
        """Text, history and features to tensors."""

    def run(self, batch: Sequence[Any]) -> list[Any]:
        """Tensors of several requests through the sessions."""

    def finish(self, prepared: Any, result: Any) -> EngineResponse:
        """The result of one request, ranked."""


def run_request(engine: Engine, request: EngineRequest) -> EngineResponse:
    """One request through the three verbs, alone."""
    prepared = engine.prepare(request)
    return engine.finish(prepared, engine.run([prepared])[0])


@dataclass(frozen=True)
class Prepared:
    """One request as tensors."""

    request: EngineRequest
    history_L: Ints
    ratings_L: Ints
    context: Mapping[str, float]
    excluded: Ints
    tokens_T: Ints | None
    candidates_N: Ints | None
    unknown: list[str]
    hidden: list[str]
    withdrawn: list[str]


@dataclass(frozen=True)
class Result:
    """What came out for one request: candidates, logits (`similar`: one likeness), who proposed them."""

    rows_N: Ints
    logits_NH: Floats
    proposed: Mapping[str, Ints]
    features_NF: Floats | None = None


@dataclass(frozen=True)
class _Exclusions:
    """What no answer holds: items that were taken down, and the rows of those and of what is not to be had."""

    items: frozenset[str]
    rows: Ints


@dataclass(frozen=True)
class _CandidateSet:
    """The candidates of one request on their way through ``run``, with the scorer's features of each."""

    rows_N: Ints
    features_NF: Floats
    proposed: Mapping[str, Ints]


@dataclass(frozen=True)
class _Graphs:
    """The model part of a bundle in memory; sessions may be shared, so every catalogue of a model can stand on them."""

    key: tuple[str, str]  # model id and precision
    text: Graph | None
    user: Graph | None
    scorer: Graph
    tokenizer: Tokenizer | None

    @classmethod
    def load(cls, bundle: Bundle, precision: str, *, provider: Provider, threads: int) -> _Graphs:
        """The graphs of a bundle at one precision."""
        files, text = bundle.manifest.precisions[precision], bundle.manifest.text

        def graph(name: str) -> Graph:
            return Graph(bundle.folder / name, provider=provider, threads=threads)

        return cls(
            key=(bundle.model_id, precision),
            text=graph(files.text) if files.text else None,
            user=graph(files.user) if files.user else None,
            scorer=graph(files.scorer),
            tokenizer=Tokenizer(bundle.folder / "tokenizer.json", max_tokens=text.max_tokens)
            if text and files.text
            else None,
        )


class BundleEngine:
    """A bundle at one precision on one device."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: str,
        provider: Provider,
        threads: int,
        share_graphs_with: BundleEngine | None = None,
    ) -> None:
        manifest = bundle.manifest
        if precision not in manifest.precisions:
            raise UsageError(
                f"this bundle has no {precision} files",
                expected=", ".join(sorted(manifest.precisions)),
                found=precision,
                where=str(bundle.folder),
                hint=f"start with --precision {next(iter(manifest.precisions))}",
            )
        _check_features(bundle)
        is_same_model = share_graphs_with is not None and share_graphs_with.graphs.key == (bundle.model_id, precision)
        self.graphs: _Graphs = (
            share_graphs_with.graphs
            if share_graphs_with and is_same_model
            else _Graphs.load(bundle, precision, provider=provider, threads=threads)
        )
        catalogue, self._items = read_catalogue(bundle, precision)
        self._catalogue = replace(catalogue, vectors_ID=catalogue.vectors_ID.astype(np.float32, copy=False))
        self._feature_names, self._heads, self._candidate_settings = (
            manifest.features,
            manifest.heads,
            bundle.candidate_settings,
        )
        self._policy = bundle.policy
        of = manifest.features
        self._feature_columns = [*of.user, *of.item, *of.cross, *of.context, *of.sources]
        self.item_ids: Sequence[str] = catalogue.item_ids
        self._withdrawn = frozenset(catalogue.item_ids[row] for row in catalogue.withdrawn)
        self.hide(())
        self.info = EngineInfo(
            model_id=bundle.model_id,
            revision=bundle.revision,
            precision=precision,
            provider=provider,
            heads=manifest.heads,
            manifest=manifest.model_dump(mode="json", exclude={"files"}),
        )

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        *,
        precision: str,
        provider: Provider,
        threads: int,
        share_graphs_with: BundleEngine | None = None,
    ) -> BundleEngine:
        """An engine of a verified bundle that has answered once before anybody asks it.

        ``like`` is one on the same device and with as many threads, whose graphs are shared if its model is the same.

        Raises:
            UsageError: the bundle has no files of this precision.
            IntegrityError: the bundle cannot be loaded or does not answer.
            DeviceError: CUDA was asked for and is not there.
        """
        try:
            engine = cls(
                bundle, precision=precision, provider=provider, threads=threads, share_graphs_with=share_graphs_with
            )
            engine.warm_up()
        except RanklineError:
            raise
        except Exception as error:  # whatever a malformed graph or catalogue may do
            raise IntegrityError(
                "the bundle does not load and answer",
                expected="answers to its warm-up requests",
                found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                where=str(bundle.folder if bundle.is_own_catalogue else bundle.catalogue),
                hint="export the model again with this version of Rankline"
                if bundle.is_own_catalogue
                else "go back to an older revision: `rankline catalogue rollback`",
            ) from error
        return engine

    def hide(self, items: Collection[str]) -> None:
        """Leave these items out of every answer from now on; those that the catalogue does not know may come later.

        One assignment: a request sees the items of before or those of now. What was hidden still counts in histories.
        """
        rows = self._catalogue.rows(list(items))
        self._exclusions = _Exclusions(frozenset(items), np.union1d(self._catalogue.withdrawn, rows))

    def warm_up(self) -> None:
        """Go through every graph once, with a history and without one."""
        item_ids = list(self.item_ids[:3])
        states = [FrozenState(at=0.0), FrozenState(at=0.0, history=History(item_ids=item_ids))]
        requests = [EngineRequest("recommend", state, k=10) for state in states]
        if self.graphs.text:
            requests.append(EngineRequest("rank", states[0], query="warm", candidates=item_ids, frozen=True))
        batch = [self.prepare(request) for request in requests]
        for prepared, result in zip(batch, self.run(batch)):
            self.finish(prepared, result)

    # prepare ------------------------------------------------------------------------------------------------

    def prepare(self, request: EngineRequest) -> Prepared:
        """Text, history and features to tensors.

        Raises:
            UnknownItem: the item of `similar`, or every candidate of `rank`, is unknown.
            UsageError: a query, and this bundle has no text tower.
        """
        index, exclusions = self._catalogue.index, self._exclusions
        state = scoring.truncate_history(request.state, self._candidate_settings.max_history)
        known = [(n, index[item]) for n, item in enumerate(state.history.item_ids) if item in index]
        ratings = np.array(state.history.ratings or [0.0] * len(state.history.item_ids), np.float64)
        unknown = [item for item in request.candidates if item not in index]
        if request.verb == "similar" and request.item_id not in index:
            raise self._unknown_item([request.item_id])
        if (
            request.verb == "rank"
            and len(unknown) == len(request.candidates)
            and not exclusions.items.issuperset(unknown)
        ):
            raise self._unknown_item(unknown)
        tokenizer = self.graphs.tokenizer
        if request.query is not None and tokenizer is None:
            raise UsageError(
                "this model cannot read a query",
                expected="a bundle with a text tower (text.onnx) at this precision",
                found="a query",
                hint="ask with a user_id or a history",
            )
        hidden = [item for item in dict.fromkeys(request.candidates) if item in exclusions.items]
        given = [item for item in dict.fromkeys(request.candidates) if item not in exclusions.items]
        withdrawn = [] if request.frozen else [item for item in given if item in self._withdrawn]
        given = [item for item in given if request.frozen or item not in self._withdrawn]
        return Prepared(
            request=replace(request, state=state),
            history_L=np.array([row for _, row in known], np.int64),
            ratings_L=stars(ratings[[n for n, _ in known]]),
            context=scoring.context_features(state),
            excluded=np.concatenate([self._catalogue.rows(state.seen), exclusions.rows]),  # twice does no harm
            tokens_T=None if request.query is None or tokenizer is None else tokenizer([request.query])[0][0],
            candidates_N=self._catalogue.rows(given) if request.verb == "rank" else None,
            unknown=[item for item in unknown if item not in exclusions.items],
            hidden=hidden,
            withdrawn=withdrawn,
        )

    def _unknown_item(self, items: Sequence[str]) -> UnknownItem:
        return UnknownItem(
            "no such item in the catalogue",
            expected=f"one of {len(self.item_ids)} items such as {', '.join(self.item_ids[:3])}",
            found=", ".join(items[:5]),
            hint="items appear with the next catalogue revision; /v1/model says which one is served",
        )

    # run ----------------------------------------------------------------------------------------------------

    def run(self, batch: Sequence[Prepared]) -> list[Result]:
        """Tensors of several requests through the sessions: left vectors, candidates, logits."""
        results: dict[int, Result] = {n: self._similar(p) for n, p in enumerate(batch) if p.request.verb == "similar"}
        rest = [n for n in range(len(batch)) if n not in results]
        left_BD = self._query_vectors([batch[n] for n in rest])
        drawn = [self._candidates(batch[n], left_D) for n, left_D in zip(rest, left_BD)]
        for n, candidates, logits_NH in zip(rest, drawn, self._logits(left_BD, drawn)):
            results[n] = Result(candidates.rows_N, logits_NH, candidates.proposed, candidates.features_NF)
        return [results[n] for n in range(len(batch))]

    def _query_vectors(self, batch: Sequence[Prepared]) -> Floats:
        """[B, D] what a history and a query say, added up; zeros where there is neither."""
        left_BD = np.zeros((len(batch), self._catalogue.vectors_ID.shape[1]), np.float32)
        with_query = [n for n, prepared in enumerate(batch) if prepared.tokens_T is not None]
        if with_query and self.graphs.text:
            ids_BT, mask_BT = _pad([batch[n].tokens_T for n in with_query])
            left_BD[with_query] = self.graphs.text({"input_ids": ids_BT, "attention_mask": mask_BT})
        with_history = [n for n, prepared in enumerate(batch) if prepared.history_L.size]
        if with_history and self.graphs.user:
            rows_BL, mask_BL = _pad([batch[n].history_L for n in with_history])
            left_BD[with_history] += self.graphs.user(
                {
                    "items_BLD": self._catalogue.vectors_ID[rows_BL] * mask_BL[:, :, None].astype(np.float32),
                    "ratings_BL": _pad([batch[n].ratings_L for n in with_history])[0],
                    "lengths_B": mask_BL.sum(1),
                }
            )
        return left_BD

    def _candidates(self, prepared: Prepared, left_D: Floats) -> _CandidateSet:
        state, catalogue, candidate_settings = prepared.request.state, self._catalogue, self._candidate_settings
        scores = scoring.source_scores(state, left_D, catalogue, candidate_settings, query=prepared.request.query or "")
        if prepared.candidates_N is not None:
            proposed: dict[str, Ints] = {}
            rows_N = prepared.candidates_N
        else:
            # source by source, to say who proposed an item; together they are what one draw gives
            proposed = {
                name: scoring.draw_candidates(
                    {name: values}, prepared.excluded, per_source=candidate_settings.candidates_per_source
                )
                for name, values in scores.items()
            }
            rows_N = np.unique(np.concatenate(list(proposed.values())))
        features_NF = scoring.candidate_features(
            state, prepared.context, rows_N, scores, catalogue, self._feature_names
        )
        return _CandidateSet(rows_N, features_NF, proposed)

    def _similar(self, prepared: Prepared) -> Result:
        """Items like one item: the mean of two normalised ranks, by cosine and by co-visitation.

        The best of I items has rank value 1, the last 0; an item nobody visited beside it has co-visitation
        value 0. No learnt scorer: it was trained on users, not on items.
        """
        row = self._catalogue.index[prepared.request.item_id]
        scores = scoring.source_scores(
            prepared.request.state,
            self._catalogue.vectors_ID[row],
            self._catalogue,
            self._candidate_settings,
            similar_to=np.array([row], np.int64),
        )
        norms_I = np.linalg.norm(self._catalogue.vectors_ID, axis=1)
        pair = {"towers": scores["towers"] / np.maximum(norms_I, 1e-9), "covisit": scores["covisit"]}
        excluded = np.union1d(prepared.excluded, row)
        proposed = {
            name: scoring.draw_candidates(
                {name: values}, excluded, per_source=self._candidate_settings.candidates_per_source
            )
            for name, values in pair.items()
        }
        value_I = (_normalized_rank(pair["towers"]) + _normalized_rank(pair["covisit"]) * (pair["covisit"] > 0)) / 2
        rows_N = np.setdiff1d(np.arange(len(value_I)), excluded)
        return Result(rows_N, value_I[rows_N, None], proposed)

    def _logits(self, left_BD: Floats, drawn: Sequence[_CandidateSet]) -> list[Floats]:
        """[N, H] for each request, by one call of the scorer; shorter candidate lists are padded."""
        widest = max((len(candidates.rows_N) for candidates in drawn), default=0)
        if widest == 0:
            return [np.zeros((0, len(self._heads)), np.float32) for _ in drawn]
        size, width = self._catalogue.vectors_ID.shape[1], drawn[0].features_NF.shape[1]
        items_BCD = np.zeros((len(drawn), widest, size), np.float32)
        features_BCF = np.zeros((len(drawn), widest, width), np.float32)
        for b, candidates in enumerate(drawn):
            items_BCD[b, : len(candidates.rows_N)] = self._catalogue.vectors_ID[candidates.rows_N]
            features_BCF[b, : len(candidates.rows_N)] = candidates.features_NF
        logits_BCH = self.graphs.scorer({"left_BD": left_BD, "items_BCD": items_BCD, "features_BCF": features_BCF})
        return [logits_BCH[b, : len(candidates.rows_N)] for b, candidates in enumerate(drawn)]

    # finish -------------------------------------------------------------------------------------------------

    def finish(self, prepared: Prepared, result: Result) -> EngineResponse:
        """The best ``k`` (all, if None) by the first head; ties in the catalogue's order.

        Raises:
            ServerError: the model gave something that is no number.
        """
        if not np.isfinite(result.logits_NH).all():
            raise ServerError(
                "the model's scores are not numbers",
                expected="finite logits",
                found="NaN or infinity",
                hint="roll back to the previous champion; export this model again",
            )
        best = np.argsort(-result.logits_NH[:, 0], kind="stable")[: prepared.request.k]
        has_heads = prepared.request.verb != "similar"
        probabilities_N = self._probabilities(result) if has_heads else None
        items = []
        for n in best:
            row = int(result.rows_N[n])
            logits = dict(zip(self._heads, map(float, result.logits_NH[n]))) if has_heads else {}
            items.append(
                RankedItem(
                    item_id=self.item_ids[row],
                    title=self._items[row].get("title") or "",
                    score=float(result.logits_NH[n, 0]),
                    heads={head: float(1 / (1 + np.exp(-value))) for head, value in logits.items()},
                    logits=logits,
                    sources=[name for name, rows in result.proposed.items() if row in rows],
                    probability=None if probabilities_N is None else float(probabilities_N[n]),
                )
            )
        best_probability = items[0].probability if items else None
        abstained = best_probability is not None and best_probability < self._policy.abstain_below
        return EngineResponse(
            items, prepared.unknown, abstained=abstained, hidden=prepared.hidden, withdrawn=prepared.withdrawn
        )

    def _probabilities(self, result: Result) -> Floats | None:
        """[N] how likely each candidate is right; None where the model was not calibrated."""
        calibration = self._policy.calibration
        if calibration is None or result.features_NF is None or not len(result.rows_N):
            return None
        return calibration.probabilities(result.logits_NH[:, 0], result.features_NF, self._feature_columns)


def _check_features(bundle: Bundle) -> None:
    """Refuse a bundle trained on features that this code does not make."""
    required, supported = bundle.manifest.features, scoring.feature_names(users=True, queries=True)
    known = {*supported.user, *supported.item, *supported.context, *supported.sources}
    missing = sorted({*required.user, *required.item, *required.context, *required.sources} - known)
    if (required.service, required.cross) != (supported.service, supported.cross):
        missing.append(f"service {required.service}, {', '.join(required.cross)}")
    if missing:
        raise RanklineError(
            "the bundle reads features that this server does not know",
            expected=f"features of {supported.service}",
            found=", ".join(missing),
            where=str(bundle.folder),
            hint="serve it with the version of Rankline that made it, or export the model again",
        )


def _pad(rows: Sequence[Any]) -> tuple[Ints, Ints]:
    """[B, L] rows left-aligned with 0 behind, and [B, L] 1 where there is a value."""
    width = max(len(row) for row in rows)
    out_BL, mask_BL = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for b, row in enumerate(rows):
        out_BL[b, : len(row)] = row
        mask_BL[b, : len(row)] = 1
    return out_BL, mask_BL


def _normalized_rank(values_I: Floats) -> Floats:
    """[I] 1 for the best, 0 for the last, evenly between; ties in the catalogue's order."""
    order = np.argsort(-values_I, kind="stable")
    out = np.empty(len(values_I), np.float32)
    out[order] = np.linspace(1, 0, len(values_I), dtype=np.float32)
    return out
