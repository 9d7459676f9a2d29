"""The features that requests and items carry, as Feast names them ("view:feature")."""

from feature_repo.item import CONTENT
from rankline.features import transforms

USER_FEATURE_REFS = (
    *(f"user_activity:{name}" for name in transforms.USER),
    "user_category_affinity:affinity_categories",
    "user_category_affinity:affinity_shares",
    *(f"request_context:{name}" for name in transforms.CONTEXT),
)
ITEM_FEATURE_REFS = tuple(f"item_{'content' if name in CONTENT else 'popularity'}:{name}" for name in transforms.ITEM)
