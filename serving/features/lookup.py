"""Looks up the features of a request, or falls back to defaults and reports it.

A background thread opens the source and keeps the item features of the whole catalogue up to date. After a lookup that
took too long the source counts as down until that thread reaches it again, so requests never wait for a store that does
not answer. After a lookup that failed in another way, which may be the fault of one id, that thread asks for somebody
else: only if that fails, too, the source is down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rankline.contracts import FrozenState, History
from rankline.errors import ServerError
from rankline.features.profile import ProfileFields
from rankline.io.files import first_line
from rankline.users.hashing import UserKey
from serving.features.online_store import FeatureSource, UserState
from serving.features.sqlite_store import Columns
from serving.metrics import Metrics

log = logging.getLogger("rankline.serving")

State = Literal["off", "opening", "ready", "down"]

NOBODY = "rankline-nobody"  # the id that a store is asked for to see whether it answers


class FeatureLookup:
    """Features for requests, from a feature source that may be absent or down."""

    def __init__(
        self,
        source: FeatureSource | None,
        metrics: Metrics,
        *,
        item_ids: Callable[[], Sequence[str]],
        fields: Callable[[], ProfileFields] = ProfileFields,
        refresh_s: float = 30.0,
        retry_s: float = 1.0,
    ) -> None:
        self._source, self._metrics, self._item_ids, self._fields = source, metrics, item_ids, fields
        self._refresh_s, self._retry_s = refresh_s, retry_s
        self.state: State = "opening" if source else "off"
        self.reason = "" if source else "no feature store was given"
        self.watermark: float | None = None  # unix seconds
        self._columns: Columns = {}
        self._cached_item_ids: Sequence[str] = ()  # the catalogue that the columns belong to
        self._read_at = 0.0
        self._user_key: UserKey | None = None  # hashes the ids of requests, where those of the store are hashed
        self._stop, self._wake = threading.Event(), threading.Event()
        self._suspect = False  # a lookup failed, and nobody knows yet whether others do
        self._thread = threading.Thread(target=self._refresh_loop, name="features", daemon=True)

    def start(self) -> None:
        """Open the source in the background; requests get defaults until it is ready."""
        if self._source:
            self._thread.start()

    def close(self) -> None:
        """Stop refreshing."""
        self._stop.set()
        self._wake.set()

    @property
    def service(self) -> str:
        """The feature service that is read."""
        return self._source.service if self._source else self._fields().service

    @property
    def is_local(self) -> bool:
        """Whether a lookup takes so little time that a batch can wait for it."""
        return self._source is None or self._source.is_local

    @property
    def lag_s(self) -> float | None:
        """Seconds from the watermark to now; None if the watermark is unknown or the store has no events."""
        return time.time() - self.watermark if self.watermark else None

    def look_up(
        self, user_id: str | None, *, at: float, history: History | None, seen: Sequence[str] | None
    ) -> tuple[FrozenState, bool | None, list[str]]:
        """Return a request's state, whether the user is known (None: cannot be asked), and what was unavailable.

        A history in the request replaces the store's; its seen items are added to the store's.
        """
        user = self._user_state(user_id, at) if user_id is not None else UserState()
        ready = self.state == "ready" and user is not None
        user = user or UserState()
        if history is not None and seen is None:
            seen = history.item_ids
        # not validated: they come from the store, and thousands of numbers per request would cost milliseconds
        state = FrozenState.model_construct(
            at=at,
            history=user.history if history is None else history,
            seen=list(dict.fromkeys([*user.seen, *(seen or ())])),
            user_features=dict(user.user_features),
            affinity=dict(user.affinity),
            profile=dict(user.profile),
            time_zone=user.time_zone,
            item_features=self._columns,
        )
        if not ready:
            self._metrics.degraded.labels("features").inc()
        return state, user.known if ready and user_id is not None else None, [] if ready else ["features"]

    def _user_state(self, user_id: str, at: float) -> UserState | None:
        """What the store has of a user; None if it could not be asked."""
        if self._source is None or self.state != "ready":
            return None
        try:
            return self._source.user_state(self._user_key.hash(user_id) if self._user_key else user_id, at)
        except TimeoutError as error:
            self._mark_down(error)
        except Exception as error:  # a store can raise anything; the request is answered without it
            log.warning("the features of one user could not be read: %s", first_line(error))
            self._suspect = True
            self._wake.set()
        return None

    def _refresh_loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self.refresh()
            self._wake.wait(self._retry_s)

    def _check_suspect(self, source: FeatureSource) -> bool:
        """Whether the store answers after a lookup that failed; it counts as down if not."""
        self._suspect = False
        try:
            source.user_state(NOBODY, time.time())
        except Exception as error:
            self._mark_down(error)
            return False
        return True

    def refresh(self) -> None:
        """Open the source if necessary, and read the catalogue's item features if they are due.

        They are due periodically, and immediately after the catalogue changed or the store was written. A model that
        reads another feature service gets the source of that one.
        """
        if self._source is None:
            return
        items, fields = self._item_ids(), self._fields()
        source = self._source if self._source.service == fields.service else self._source.for_fields(fields)
        if self._suspect and not self._check_suspect(self._source):
            return
        due = time.monotonic() - self._read_at > self._refresh_s or source is not self._source
        if self.state == "ready" and items is self._cached_item_ids and not due and not source.changed():
            return
        try:
            source.open()
            user_key = _user_key(source.hash_users())
            columns: dict[str, Any] = source.item_features(items)
            watermark = source.watermark()
        except Exception as error:  # a store can raise anything; the loop tries again
            self._mark_down(error)
            return
        self._source, self._user_key = source, user_key
        self._columns, self._cached_item_ids = columns, items
        self._read_at, self.watermark = time.monotonic(), watermark
        if self.state != "ready":
            log.info("features are ready")
        self.state, self.reason = "ready", ""
        self._metrics.features_ready.set(1)
        self._metrics.set_watermark(source.service, watermark)

    def _mark_down(self, error: Exception) -> None:
        if self.state != "down":
            log.error("the feature store does not answer, using defaults: %s", error)
        self.state, self.reason = "down", first_line(error)
        self._metrics.features_ready.set(0)


def _user_key(hashed: Mapping[str, str]) -> UserKey | None:
    """The key that hashed the ids of users, from the environment; None for plain ids.

    Raises:
        UsageError: the variable is not set.
        ServerError: it holds another key.
    """
    if not hashed:
        return None
    key = UserKey.from_environment(hashed["variable"])
    if key.fingerprint != hashed.get("key", key.fingerprint):
        raise ServerError(
            "the ids of users in the feature store were hashed with another key",
            expected=f"the key with the fingerprint {hashed['key']} in {hashed['variable']}",
            found=f"one with the fingerprint {key.fingerprint}",
            hint="start the server with the key of the runs",
        )
    return key
