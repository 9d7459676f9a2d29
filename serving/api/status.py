"""Routes that describe the server: the model, probes, metrics.

They run on the event loop, so that they answer while every worker thread ranks.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rankline.contracts import TIME_ZONE
from serving.api.schemas import ModelResponse, Readiness
from serving.api.services import services_of
from serving.model_manager import NotReady

router = APIRouter()


@router.get("/v1/model")
async def model(request: Request) -> ModelResponse:
    """Describe the model that serves: ids, heads, features, parity."""
    models = services_of(request).models
    engine = models.engine
    info = engine.info
    return ModelResponse(
        request_id=request.state.request_id,
        model_id=info.model_id,
        revision=info.revision,
        precision=info.precision,
        provider=info.provider,
        heads=info.heads,
        items=len(engine.item_ids),
        hidden=list(models.hidden),
        warning=models.warning or None,
        context={**engine.fields.context, **({TIME_ZONE: "zone"} if engine.fields.time_zone else {})},
        manifest=info.manifest,
    )


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> dict[str, bool]:
    """Report that the process is alive."""
    return {"live": True}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Report whether requests are answered; missing features degrade answers but the server stays ready."""
    services = services_of(request)
    models, features = services.models, services.features
    try:
        info = models.engine.info
    except NotReady:
        info = None
        response.status_code = 503
    rejected = models.rejected
    return Readiness(
        ready=info is not None,
        model_id=info.model_id if info else None,
        revision=info.revision if info else None,
        precision=info.precision if info else None,
        provider=info.provider if info else None,
        features={
            "state": features.state,
            "why": features.reason,
            "service": features.service,
            "watermark": features.watermark,
            "lag_s": None if features.lag_s is None else round(features.lag_s, 1),
        },
        refused=rejected.summary if rejected else None,
        hidden=len(models.hidden),
        warning=models.warning or None,
        repository_error=models.registry_error or None,
        repository_age_s=None if models.registry_age_s is None else round(models.registry_age_s, 1),
    )


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", include_in_schema=False)
async def metrics_text(request: Request) -> Response:
    """Metrics in Prometheus's text format."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return Response(generate_latest(services_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
