"""What happened, what serves, where a model comes from, and how two models compare."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from rankline.errors import RanklineError, RegistryError, UsageError
from rankline.registry.registry_state import Kind
from rankline.utc import parse_utc
from review.comparison import compare
from review.console.errors import InvalidForm, NotFound, status_of
from review.console.paging import page_of
from review.console.rendering import STATIC
from review.console.routes.candidates import ModelId, PageNumber
from review.console.snapshots import Snapshot
from review.console.visit import Viewer, Visit, console_of
from review.timeline import Serving, events_of, lineage, serving_at

router = APIRouter()

KINDS: tuple[str, ...] = get_args(Kind)
Text = Annotated[str, Query(max_length=100)]
_LISTED_MODELS = 50  # suggestions where a model is asked for


@router.get("/healthz")
def health(request: Request) -> JSONResponse:
    """Whether the registry can be read; needs no sign-in and says nothing else."""
    try:
        console_of(request).snapshots.now()
    except (RanklineError, OSError):
        return JSONResponse({"ready": False}, status_code=503)
    return JSONResponse({"ready": True})


@router.get("/static/console.css")
def stylesheet() -> FileResponse:
    """The styles of every page."""
    return FileResponse(STATIC / "console.css", media_type="text/css")


@router.get("/timeline")
def timeline_page(visit: Viewer, kind: Text = "", model: Text = "", page: PageNumber = 1) -> Response:
    """Every event, the newest first."""
    if kind and kind not in KINDS:
        raise UsageError("there is no such kind of event", expected=", ".join(KINDS), found=kind)
    snapshot = visit.snapshot
    events = [each for each in reversed(snapshot.history) if not kind or each.kind == kind]
    shown = page_of([each for each in events if each.model_id.startswith(model)], page)
    entries = shown.showing(snapshot.entries(shown.rows))
    return visit.page("timeline.html", entries=entries, kind=kind, model=model, kinds=KINDS)


@router.get("/at")
def at_page(visit: Viewer, time: Text = "") -> Response:
    """What served at a time."""
    serving: Serving | None = None
    error: InvalidForm | None = None
    if time:
        try:
            serving = serving_at(visit.snapshot.history, parse_utc(time.strip()))
        except ValueError:
            error = InvalidForm(
                "Enter a time", field="time", expected="an ISO time, such as 2026-11-30T08:00 (UTC)", found=time
            )
    return visit.page(
        "at.html", status=status_of(error) if error else 200, time=time, serving=serving, error=error,
        field="time" if error else "",
    )  # fmt: skip


@router.get("/serving")
def serving(visit: Viewer, event: int = 0) -> Response:
    """What serves now, since when and why, and how the servers do."""
    return serving_page(visit, event=event)


def serving_page(
    visit: Visit, *, event: int = 0, error: RanklineError | None = None, typed: dict[str, str] | None = None
) -> Response:
    """The page of what serves; after a refused action with the error and what was typed."""
    snapshot = visit.snapshot
    champion = snapshot.champion
    return visit.page(
        "serving.html",
        status=status_of(error) if error else 200,
        champion=champion,
        promotion=snapshot.history[champion.event - 1] if champion else None,
        publication=snapshot.history[champion.published - 1] if champion and champion.published else None,
        break_glass_warning=snapshot.warning,
        servers=visit.console.servers.health(),
        former=snapshot.former_champions,
        nearest=next(iter(snapshot.rollback_candidates), ""),
        done=snapshot.history[event - 1] if 0 < event <= len(snapshot.history) else None,
        error=error,
        field=error.field if isinstance(error, InvalidForm) else "",
        typed=typed or {},
    )


@router.get("/models/{model}")
def model_page(visit: Viewer, model: ModelId, page: PageNumber = 1) -> Response:
    """Where a model comes from."""
    model_id = model_of(visit.snapshot, model)
    champion = visit.snapshot.champion
    try:
        origin, problem = lineage(visit.console.desk.models, model_id), ""
    except RegistryError as error:  # it was removed: its events are still there
        origin, problem = None, error.one_line
    own = page_of(events_of(visit.snapshot.history, model_id)[::-1], page)
    events = own.showing(visit.snapshot.entries(own.rows))
    return visit.page(
        "model.html", model_id=model_id, lineage=origin, problem=problem, events=events,
        champion=champion.model_id if champion else "",
    )  # fmt: skip


@router.get("/compare")
def compare_page(visit: Viewer, first: Text = "", second: Text = "") -> Response:
    """Two models side by side."""
    comparison, error = None, None
    if first and second:
        try:
            comparison = compare(visit.console.desk.models, first, second)
        except RanklineError as refusal:
            error = refusal
    elif first or second:
        error = InvalidForm("Enter two models", field="second" if first else "first", expected="the id of a model")
    return visit.page(
        "compare.html", status=status_of(error) if error else 200, first=first, second=second, comparison=comparison,
        models=visit.snapshot.model_ids[:_LISTED_MODELS], error=error,
        field=error.field if isinstance(error, InvalidForm) else "first",
    )  # fmt: skip


def model_of(snapshot: Snapshot, beginning: str) -> str:
    """The one model whose id begins like this.

    Raises:
        NotFound: there is none, or several.
    """
    matches = [each for each in snapshot.model_ids if each.startswith(beginning)]
    if len(matches) != 1:
        raise NotFound(
            "several models begin like that" if matches else "there is no such model",
            expected="the id of a registered model",
            found=beginning,
            hint="the timeline lists every registered model",
        )
    return matches[0]
