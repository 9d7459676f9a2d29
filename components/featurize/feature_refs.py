"""The features that requests and items carry, as Feast names them ("view:feature")."""

from feature_repo.profile import USER_PROFILE
from feature_repo.views import CONTENT
from rankline.features import transforms
from rankline.features.profile import CONTEXT, PROFILE, ProfileFields

USER_FEATURE_REFS = (
    *(f"user_activity:{name}" for name in transforms.USER),
    "user_category_affinity:affinity_categories",
    "user_category_affinity:affinity_shares",
    *(f"request_context:{name}" for name in transforms.CONTEXT),
)
ITEM_FEATURE_REFS = tuple(f"item_{'content' if name in CONTENT else 'popularity'}:{name}" for name in transforms.ITEM)


def user_feature_refs(fields: ProfileFields) -> list[str]:
    """The features that requests carry, with the declared ``fields`` of users and of requests."""
    return [
        *USER_FEATURE_REFS,
        *(f"{USER_PROFILE}:{PROFILE}{name}" for name in fields.user),
        *(f"request_fields:{CONTEXT}{name}" for name in fields.context),
    ]
