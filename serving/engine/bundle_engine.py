"""The engine that serves a model bundle.

``prepare`` turns a request into tensors, ``run`` runs a batch through the graphs, ``finish`` ranks the items. ``run``
also draws the candidates, between the towers and the scorer, because the draw needs the query's vector.

Shapes: B requests, L history events, T tokens, I items, N candidates, D vector size, F features, H heads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rankline.contracts import FrozenState, History
from rankline.errors import IntegrityError, RanklineError, ServerError, UsageError
from rankline.features.transforms import stars
from rankline.io.files import first_line
from rankline.model import scoring
from rankline.model.bundle import Bundle, read_catalogue
from serving.engine.graphs import Floats, Ints, ModelGraphs
from serving.engine.order import ServedOrder
from serving.engine.profile import EncodedProfile, ProfileReader
from serving.engine.protocol import EngineInfo, EngineRequest, EngineResponse, RankedItem, UnknownItem
from serving.sessions import Provider


@dataclass(frozen=True)
class Prepared:
    """A request as tensors, and the candidates that are left out."""

    request: EngineRequest
    history_L: Ints
    ratings_L: Ints
    excluded: Ints
    tokens_T: Ints | None
    candidates_N: Ints | None
    unknown: list[str]
    hidden: list[str]
    withdrawn: list[str]
    profile: EncodedProfile | None = None


@dataclass(frozen=True)
class Result:
    """The candidates of a request with their logits (for `similar`: one similarity each) and their sources."""

    rows_N: Ints
    logits_NH: Floats
    proposed: Mapping[str, Ints]
    features_NF: Floats | None = None


@dataclass(frozen=True)
class _CandidateSet:
    """The candidates of a request before scoring: their features and the rows that each source proposed."""

    rows_N: Ints
    features_NF: Floats
    proposed: Mapping[str, Ints]


@dataclass(frozen=True)
class _Exclusions:
    """Items that no response contains: the ids taken down, and the rows of those and of unavailable items."""

    items: frozenset[str]
    rows: Ints


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
        _refuse_unknown_features(bundle)
        shared: ModelGraphs | None = share_graphs_with.graphs if share_graphs_with else None
        if shared is None or shared.key != (bundle.model_id, precision):
            shared = ModelGraphs.load(bundle, precision, provider=provider, threads=threads)
        self.graphs: ModelGraphs = shared
        self._profiles = ProfileReader(bundle.profile_encoder, shared)
        self.fields, self.rating_scale = self._profiles.encoder.fields, bundle.policy.rating_scale
        self._order = ServedOrder(bundle.policy, manifest.heads)
        catalogue, self._items = read_catalogue(bundle, precision, numbers=self._order.item_numbers)
        self._order.read_numbers(self._items)
        self._catalogue = replace(catalogue, vectors_ID=catalogue.vectors_ID.astype(np.float32, copy=False))
        self._feature_names, self._heads = manifest.features, manifest.heads
        self._candidate_settings, self._policy = bundle.candidate_settings, bundle.policy
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
        """Load a verified bundle and warm it up.

        ``share_graphs_with`` is an engine on the same device with as many threads; its graphs are reused if it serves
        the same model.

        Raises:
            UsageError: the bundle has no files of this precision.
            IntegrityError: the bundle does not load, or does not answer a request.
            DeviceError: CUDA was requested and is not available.
        """
        try:
            engine = cls(
                bundle, precision=precision, provider=provider, threads=threads, share_graphs_with=share_graphs_with
            )
            engine.warm_up()
        except RanklineError:
            raise
        except Exception as error:  # a malformed graph or catalogue can raise anything
            own = bundle.is_own_catalogue
            raise IntegrityError(
                "the bundle does not load and answer",
                expected="answers to its warm-up requests",
                found=f"{type(error).__name__}: {first_line(error)}",
                where=str(bundle.folder if own else bundle.catalogue),
                hint="export the model again with this version of Rankline"
                if own
                else "return to an older revision with `rankline catalogue rollback`",
            ) from error
        return engine

    def hide(self, items: Collection[str]) -> None:
        """Leave exactly these items out of every response from now on; ids outside the catalogue are allowed.

        The single assignment means that a request sees either the old or the new set. Hidden items still count in
        histories.
        """
        rows = self._catalogue.rows(list(items))
        self._exclusions = _Exclusions(frozenset(items), np.union1d(self._catalogue.withdrawn, rows))

    def warm_up(self) -> None:
        """Run every graph once, with and without a history."""
        item_ids = list(self.item_ids[:3])
        states = [FrozenState(at=0.0), FrozenState(at=0.0, history=History(item_ids=item_ids))]
        requests = [EngineRequest("recommend", state, k=10) for state in states]
        if self.graphs.text:
            requests.append(EngineRequest("rank", states[0], query="warm", candidates=item_ids, frozen=True))
        batch = [self.prepare(request) for request in requests]
        for prepared, result in zip(batch, self.run(batch)):
            self.finish(prepared, result)

    # -- prepare -------------------------------------------------------------------------------------------

    def prepare(self, request: EngineRequest) -> Prepared:
        """Turn text, history and features into tensors.

        Raises:
            UnknownItem: the item of `similar`, or every candidate of `rank`, is unknown.
            UsageError: the request has a query and the bundle has no text tower.
        """
        index, exclusions, tokenizer = self._catalogue.index, self._exclusions, self.graphs.tokenizer
        missing = [item for item in request.candidates if item not in index]
        all_missing = len(missing) == len(request.candidates)
        if request.verb == "similar" and request.item_id not in index:
            raise self._unknown_item([request.item_id])
        if request.verb == "rank" and all_missing and not exclusions.items.issuperset(missing):
            raise self._unknown_item(missing)
        if request.query is not None and tokenizer is None:
            raise UsageError(
                "this model cannot read a query",
                expected="a bundle with a text tower (text.onnx) at this precision",
                found="a query",
                hint="send a user_id or a history instead",
            )
        state = scoring.truncate_history(request.state, self._candidate_settings.max_history)
        known = [(n, index[item]) for n, item in enumerate(state.history.item_ids) if item in index]
        ratings = np.array(state.history.ratings or [0.0] * len(state.history.item_ids), np.float64)
        candidates = list(dict.fromkeys(request.candidates))
        hidden = [item for item in candidates if item in exclusions.items]
        withdrawn = [item for item in candidates if item in self._withdrawn and item not in exclusions.items]
        if request.frozen:  # ranked as they were then
            withdrawn = []
        left_out = {*hidden, *withdrawn}
        return Prepared(
            request=replace(request, state=state),
            history_L=np.array([row for _, row in known], np.int64),
            ratings_L=stars(ratings[[n for n, _ in known]]),
            excluded=np.concatenate([self._catalogue.rows(state.seen), exclusions.rows]),  # may repeat rows
            tokens_T=None if request.query is None or tokenizer is None else tokenizer([request.query])[0][0],
            candidates_N=self._catalogue.rows([item for item in candidates if item not in left_out])
            if request.verb == "rank"
            else None,
            unknown=[item for item in missing if item not in exclusions.items],
            hidden=hidden,
            withdrawn=withdrawn,
            profile=self._profiles.encode(state),
        )

    def _unknown_item(self, items: Sequence[str]) -> UnknownItem:
        return UnknownItem(
            "no such item in the catalogue",
            expected=f"one of {len(self.item_ids)} items such as {', '.join(self.item_ids[:3])}",
            found=", ".join(items[:5]),
            hint="new items appear with the next catalogue revision; /v1/model names the one that is served",
        )

    # -- run -----------------------------------------------------------------------------------------------

    def run(self, batch: Sequence[Prepared]) -> list[Result]:
        """Run a batch through the towers, draw candidates and score them."""
        results: dict[int, Result] = {n: self._similar(p) for n, p in enumerate(batch) if p.request.verb == "similar"}
        rest = [n for n in range(len(batch)) if n not in results]
        left_BD = self._query_vectors([batch[n] for n in rest])
        contexts = scoring.batch_context_features([batch[n].request.state for n in rest])
        drawn = [
            self._draw_candidates(batch[n], left_D, context) for n, left_D, context in zip(rest, left_BD, contexts)
        ]
        logits = self.graphs.logits(
            left_BD,
            [candidates.rows_N for candidates in drawn],
            [candidates.features_NF for candidates in drawn],
            self._catalogue.vectors_ID,
            heads=len(self._heads),
        )
        for n, candidates, logits_NH in zip(rest, drawn, logits):
            results[n] = Result(candidates.rows_N, logits_NH, candidates.proposed, candidates.features_NF)
        return [results[n] for n in range(len(batch))]

    def _query_vectors(self, batch: Sequence[Prepared]) -> Floats:
        """[B, D] the sum of the query's, the history's and the declared fields' vector."""
        vectors_ID = self._catalogue.vectors_ID
        left_BD = self.graphs.query_vectors(
            [prepared.tokens_T for prepared in batch],
            [(prepared.history_L, prepared.ratings_L) for prepared in batch],
            vectors_ID,
        )
        if self.graphs.profile is not None:
            left_BD += self._profiles.vectors([prepared.profile for prepared in batch], size=vectors_ID.shape[1])
        return left_BD

    def _draw_candidates(self, prepared: Prepared, left_D: Floats, context: Mapping[str, float]) -> _CandidateSet:
        state, catalogue, settings = prepared.request.state, self._catalogue, self._candidate_settings
        scores = scoring.source_scores(state, left_D, catalogue, settings, query=prepared.request.query or "")
        proposed: dict[str, Ints] = {}
        rows_N = prepared.candidates_N
        if rows_N is None:
            proposed = self._propose(scores, prepared.excluded)
            drawn_I = np.zeros(len(self.item_ids), bool)
            for rows in proposed.values():
                drawn_I[rows] = True
            rows_N = np.flatnonzero(drawn_I)
        features_NF = scoring.candidate_features(state, context, rows_N, scores, catalogue, self._feature_names)
        return _CandidateSet(rows_N, features_NF, proposed)

    def _propose(self, scores: Mapping[str, Floats], excluded: Ints) -> dict[str, Ints]:
        """Draw candidates source by source, to know which source proposed an item; the union is the same draw."""
        per_source = self._candidate_settings.candidates_per_source
        return {
            name: scoring.draw_candidates({name: values_I}, excluded, per_source=per_source)
            for name, values_I in scores.items()
        }

    def _similar(self, prepared: Prepared) -> Result:
        """Rank items by similarity to one item: the mean of two normalised ranks, by cosine and by co-visitation.

        The best of I items has rank value 1, the last 0; an item that was never visited together with this one has
        co-visitation value 0. The scorer is not used: it was trained on users, not on items.
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
        value_I = (_normalized_rank(pair["towers"]) + _normalized_rank(pair["covisit"]) * (pair["covisit"] > 0)) / 2
        rows_N = np.setdiff1d(np.arange(len(value_I)), excluded)
        return Result(rows_N, value_I[rows_N, None], self._propose(pair, excluded))

    # -- finish --------------------------------------------------------------------------------------------

    def finish(self, prepared: Prepared, result: Result) -> EngineResponse:
        """Return the best ``k`` items (all, if None) by the model's order; ties in catalogue order.

        Raises:
            ServerError: a score is NaN or infinite.
        """
        if not np.isfinite(result.logits_NH).all():
            raise ServerError(
                "the model's scores are not numbers",
                expected="finite logits",
                found="NaN or infinity",
                hint="roll back to the previous champion, and export this model again",
            )
        has_heads = prepared.request.verb != "similar"
        values = self._order.head_values(result.logits_NH) if has_heads else {}
        scores_N = self._order.scores(result.rows_N, result.logits_NH, values) if has_heads else result.logits_NH[:, 0]
        best = np.argsort(-scores_N, kind="stable")[: prepared.request.k]
        probabilities_N = self._probabilities(result) if has_heads else None
        heads = {head: values_N[best].tolist() for head, values_N in values.items()}
        logits = result.logits_NH[best].tolist()
        scores = scores_N[best].tolist()
        probabilities = [None] * len(best) if probabilities_N is None else probabilities_N[best].tolist()
        proposed = {name: set(rows.tolist()) for name, rows in result.proposed.items()}
        items = [
            RankedItem(
                item_id=self.item_ids[row],
                title=self._items[row].get("title") or "",
                score=scores[n],
                heads={head: of_head[n] for head, of_head in heads.items()},
                logits=dict(zip(self._heads, logits[n])) if has_heads else {},
                sources=[name for name, rows in proposed.items() if row in rows],
                probability=probabilities[n],
            )
            for n, row in enumerate(result.rows_N[best].tolist())
        ]
        best_probability = items[0].probability if items else None
        abstained = best_probability is not None and best_probability < self._policy.abstain_below
        return EngineResponse(
            items, prepared.unknown, abstained=abstained, hidden=prepared.hidden, withdrawn=prepared.withdrawn
        )

    def _probabilities(self, result: Result) -> Floats | None:
        """[N] the calibrated probability of each candidate; None if the model is not calibrated."""
        calibration = self._policy.calibration
        if calibration is None or result.features_NF is None or not len(result.rows_N):
            return None
        return calibration.probabilities(result.logits_NH[:, 0], result.features_NF, self._feature_names.columns)


def _refuse_unknown_features(bundle: Bundle) -> None:
    """Refuse a bundle that was trained on features that this code does not compute."""
    service = bundle.profile_encoder.fields.service
    required, supported = bundle.manifest.features, scoring.feature_names(users=True, queries=True, service=service)
    known = {*supported.user, *supported.item, *supported.context, *supported.sources}
    missing = sorted({*required.user, *required.item, *required.context, *required.sources} - known)
    if (required.service, required.cross) != (supported.service, supported.cross):
        missing.append(f"service {required.service}, {', '.join(required.cross)}")
    if missing:
        raise RanklineError(
            "the bundle needs features that this server does not know",
            expected=f"features of {supported.service}",
            found=", ".join(missing),
            where=str(bundle.folder),
            hint="serve it with the version of Rankline that exported it, or export the model again",
        )


def _normalized_rank(values_I: Floats) -> Floats:
    """[I] 1 for the best item, 0 for the last, evenly spaced; ties in catalogue order."""
    order = np.argsort(-values_I, kind="stable")
    out = np.empty(len(values_I), np.float32)
    out[order] = np.linspace(1, 0, len(values_I), dtype=np.float32)
    return out
