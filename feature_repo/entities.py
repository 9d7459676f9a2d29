"""Whom and what features are of."""

from feast import Entity, ValueType

# Somebody who clicks, buys or rates.
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)

# Something that can be ranked.
ITEM = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
