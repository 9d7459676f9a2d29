"""Which features go together; the version is in the name, and a bundle's manifest names it."""

from feast import FeatureService, FeatureView, OnDemandFeatureView

from rankline.features import transforms

# A user's history, read apart from the rest: it is pushed with every event, the rest is computed daily.
HISTORY_SERVICE = "history_v1"


def ranking_v1(*views: FeatureView | OnDemandFeatureView) -> FeatureService:
    """Everything a ranker reads but the history."""
    return FeatureService(name=transforms.SERVICE, features=list(views))


def history_v1(user_history: FeatureView) -> FeatureService:
    """A user's last events and the items to leave out."""
    return FeatureService(name=HISTORY_SERVICE, features=[user_history])
