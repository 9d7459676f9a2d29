"""Feature services. The name contains the version, and a bundle's manifest names its service."""

from feast import FeatureService, FeatureView, OnDemandFeatureView

from rankline.features import transforms


def ranking(name: str, *views: FeatureView | OnDemandFeatureView) -> FeatureService:
    """All features of a ranker except the history."""
    return FeatureService(name=name, features=list(views))


def history_v1(user_history: FeatureView) -> FeatureService:
    """A user's last events and seen items."""
    return FeatureService(name=transforms.HISTORY_SERVICE, features=[user_history])
