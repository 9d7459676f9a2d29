"""The engine that serves: the registry's champion, or one bundle.

A new champion or catalogue is fetched, verified and warmed up next to the engine that serves; one assignment then
swaps them. Requests in progress keep their engine, so none is dropped. A bundle that cannot be served is rejected and
the old engine stays.

Takedowns need no new engine. One thread polls the registry and hides items, another loads models, so that a takedown
never waits for a large catalogue.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankline.errors import RanklineError, RegistryError, ServerError
from rankline.features.profile import ProfileFields
from rankline.io.files import first_line
from rankline.model.bundle import Bundle, open_bundle
from rankline.registry.anchor import warning_of
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Champion
from serving.engine import BundleEngine, Engine
from serving.metrics import Metrics
from serving.sessions import Provider

log = logging.getLogger("rankline.serving")


class NotReady(ServerError):
    """The server has no model yet."""


@dataclass(frozen=True)
class RejectedChampion:
    """A champion, or a catalogue of it, that cannot be served."""

    model_id: str
    revision: str  # empty: the bundle's own
    reason: str
    retry_at: float  # on the monotonic clock

    @property
    def summary(self) -> dict[str, str]:
        """The fields shown by /readyz."""
        return {"model_id": self.model_id, "revision": self.revision, "reason": self.reason}


class ModelManager:
    """Holds the engine that serves. A request reads ``engine`` once and keeps it."""

    def __init__(self, metrics: Metrics, *, precision: str, provider: Provider, threads: int) -> None:
        self._metrics = metrics
        self._precision, self._provider, self._threads = precision, provider, threads
        self._engine: Engine | None = None
        self._registry: ModelRegistry | None = None
        self._champion: Champion | None = None  # as last read from the registry
        self._served = ("", "")  # model id and published revision of the engine
        self._hide_lock = threading.Lock()  # a new engine must hide what its predecessor hid
        self._stop, self._champion_polled = threading.Event(), threading.Event()
        self._threads_started: list[threading.Thread] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="rankline-bundles-")
        self._download_folder = Path(self._scratch.name)
        self.hidden: tuple[str, ...] = ()
        self.rejected: RejectedChampion | None = None
        self.registry_error = ""
        self.registry_read_at = time.monotonic()
        self.warning = ""  # of a champion that was promoted past the gates

    @property
    def registry_age_s(self) -> float | None:
        """Seconds since the registry was last read; None for a server that follows none."""
        return time.monotonic() - self.registry_read_at if self._registry else None

    @property
    def engine(self) -> Engine:
        """The engine that serves.

        Raises:
            NotReady: no model has been loaded yet.
        """
        engine = self._engine
        if engine is None:
            raise NotReady(
                "the server has no model yet",
                expected="a champion in the model registry",
                found=self.rejected.reason if self.rejected else self.registry_error or "no promoted model",
                hint="run `rankline run` until a model is promoted; the server loads it automatically",
            )
        return engine

    @property
    def model_id(self) -> str | None:
        return self._engine.info.model_id if self._engine else None

    @property
    def item_ids(self) -> Sequence[str]:
        """The items of the catalogue that serves; empty without an engine."""
        return self._engine.item_ids if self._engine else ()

    @property
    def fields(self) -> ProfileFields:
        """The declared fields that the model reads, which also name its feature service."""
        return self._engine.fields if self._engine else ProfileFields()

    def use(self, engine: Engine) -> None:
        """Serve with this engine, without the hidden items."""
        with self._hide_lock:
            engine.hide(self.hidden)
            self._engine = engine
        self._metrics.set_model(engine.info)

    def hide(self, items: Sequence[str]) -> None:
        """Leave exactly these items out of every response from now on, with this engine and later ones."""
        with self._hide_lock:
            if self._engine:
                self._engine.hide(items)
            self.hidden = tuple(items)
        self._metrics.hidden.set(len(self.hidden))

    def serve_bundle(self, folder: Path) -> None:
        """Serve one bundle.

        Raises:
            RanklineError: the folder is no bundle, or the bundle is damaged or cannot be served here.
        """
        self.use(self._load(open_bundle(folder)))

    def follow(self, url: str, *, poll_interval_s: float) -> None:
        """Serve the champion of a registry, and later ones as they are promoted; there may be none yet.

        Raises:
            RanklineError: the present champion cannot be served.
        """
        self._registry = ModelRegistry(url)
        self._metrics.registry_age.set_function(lambda: self.registry_age_s or 0.0)
        self._champion = self._registry.champion_record()
        if self._champion:
            self.hide(self._champion.hidden)
            self.warning = warning_of(self._registry, self._champion)
            self._load_champion(self._registry, self._champion)
        for name, work in (("champion", self._poll_loop), ("loader", self._swap_loop)):
            self._threads_started.append(threading.Thread(target=work, args=(poll_interval_s,), name=name, daemon=True))
            self._threads_started[-1].start()

    def close(self) -> None:
        """Stop following the registry and remove downloads."""
        self._stop.set()
        self._champion_polled.set()
        for thread in self._threads_started:
            thread.join(timeout=5)
        self._scratch.cleanup()

    def _poll_loop(self, poll_interval_s: float) -> None:
        while not self._stop.wait(poll_interval_s):
            self.refresh_champion()
            self._champion_polled.set()

    def _swap_loop(self, poll_interval_s: float) -> None:
        while not self._stop.is_set():
            self._champion_polled.wait()
            self._champion_polled.clear()
            if not self._stop.is_set():
                try:
                    self.swap_if_changed()
                except Exception:  # the thread must survive
                    log.exception("the new champion cannot be loaded and will be retried")

    def refresh_champion(self) -> None:
        """Read the champion from the registry and hide the items that were taken down.

        An error is stored in ``registry_error`` and the next poll tries again.
        """
        if self._registry is None:
            return
        try:
            champion = self._registry.champion_record()
            if champion is None and self._champion is not None:
                raise _no_events_error(self._registry)
            self._champion = champion
            if champion and champion.hidden != self.hidden:
                self.hide(champion.hidden)
                log.info("%d items are now hidden", len(self.hidden))
            self.warning = warning_of(self._registry, self._champion) if self._champion else ""
            self.registry_error, self.registry_read_at = "", time.monotonic()
        except Exception as error:  # without this thread no takedown would take effect
            has_message = isinstance(error, RanklineError | OSError) and str(error)
            reason = first_line(error) if has_message else f"{type(error).__name__}: {error}"
            if reason != self.registry_error:
                log.error("cannot read the model registry, still serving %s: %s", self.model_id, reason)
            self.registry_error = reason

    def swap_if_changed(self, *, retry_s: float = 30.0) -> None:
        """Serve the champion if it or its catalogue changed; a rejected one is retried after ``retry_s``."""
        champion, registry = self._champion, self._registry
        if registry is None or champion is None or (champion.model_id, champion.revision) == self._served:
            self.rejected = None
            return
        now, rejected = time.monotonic(), self.rejected
        is_same = rejected and (rejected.model_id, rejected.revision) == (champion.model_id, champion.revision)
        if rejected and is_same and now < rejected.retry_at:
            return
        description = f"{champion.model_id} with catalogue {champion.revision or 'of its bundle'}"
        try:
            bundle = self._load_champion(registry, champion)
        except Exception as error:  # a bad bundle must not stop the engine that serves
            self.rejected = RejectedChampion(champion.model_id, champion.revision, str(error), now + retry_s)
            self._metrics.swaps.labels("refused").inc()
            log.error("cannot serve champion %s, still serving %s: %s", description, self.model_id, error)
            return
        self.rejected = None
        self._metrics.swaps.labels("swapped").inc()
        log.info("now serving %s", description)
        for old in self._download_folder.iterdir():
            if old not in (bundle.folder, bundle.catalogue):
                shutil.rmtree(old, ignore_errors=True)

    def _load_champion(self, registry: ModelRegistry, champion: Champion) -> Bundle:
        bundle = registry.bundle(champion.model_id, revision=champion.revision, into=self._download_folder)
        self.use(self._load(bundle))
        self._served = (champion.model_id, champion.revision)
        return bundle

    def _load(self, bundle: Bundle) -> Engine:
        current = self._engine if isinstance(self._engine, BundleEngine) else None
        return BundleEngine.load(
            bundle, precision=self._precision, provider=self._provider, threads=self._threads, share_graphs_with=current
        )


def _no_events_error(registry: ModelRegistry) -> RegistryError:
    """Events are never removed: a registry without any, after one with a champion, is a folder that vanished."""
    return RegistryError(
        "the model registry has no events any more",
        expected="the events that were there",
        found="none",
        where=registry.root,
        hint="mount the folder or the bucket again; takedowns and promotions are followed once it is back",
    )
