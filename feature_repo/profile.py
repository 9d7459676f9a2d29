"""What a recipe declares of users and of requests, as feature views: registered only where declared."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import FeatureView, Field, OnDemandFeatureView, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, String

from feature_repo.sources import Tables
from feature_repo.views import USER, feature_view
from rankline.contracts import TIME_ZONE
from rankline.features.profile import CONTEXT, DECLARED, GIVEN, PROFILE, Kind, ProfileFields

USER_PROFILE = "user_profile"
_TYPES: dict[Kind, Any] = {"number": Float64, "choice": String, "choices": Array(String), "text": String}


def read_declared(sources: Path) -> ProfileFields:
    """The fields that the sources in a folder were computed for; none in those of a recipe that declares none."""
    path = sources / DECLARED
    return ProfileFields.model_validate_json(path.read_text()) if path.is_file() else ProfileFields()


def user_profile(sources: Path | Tables, fields: ProfileFields) -> FeatureView:
    """The declared fields of a user; without a TTL, since each user has one row, valid at any time."""
    zone: dict[str, Kind] = {TIME_ZONE: "choice"} if fields.time_zone else {}
    schema = {f"{PROFILE}{name}": _TYPES[kind] for name, kind in {**fields.user, **zone}.items()}
    return feature_view(USER_PROFILE, USER, schema, sources, ttl=timedelta(0))


def request_fields(fields: ProfileFields) -> OnDemandFeatureView:
    """The declared fields of the request, as the request gives them."""

    @on_demand_feature_view(
        sources=[RequestSource(name="given", schema=_given(fields, GIVEN))],
        schema=_given(fields, CONTEXT),
        mode="python",
    )
    def request_fields(inputs: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("given_", "context_", 1): values for name, values in inputs.items()}

    view: OnDemandFeatureView = request_fields
    return view


def _given(fields: ProfileFields, prefix: str) -> list[Field]:
    return [Field(name=f"{prefix}{name}", dtype=_TYPES[kind]) for name, kind in fields.context.items()]
