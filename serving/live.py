"""Which engine answers now: the champion of a model repository, or the one bundle of a folder.

A new champion, or a new catalogue of the present one, is fetched, verified and warmed up beside the engine that
serves; then one assignment puts it in its place. Requests under way keep the engine they began with, so none is
dropped. What cannot be served is refused and the old engine goes on.

Items that are taken down need no new engine. One thread looks at the repository and hides them, another loads: so
a takedown does not wait for a large catalogue.
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

from rankline.errors import RanklineError, ServerError
from rankline.model.bundle import Bundle, open_bundle
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
    """A champion or a catalogue of it that is not served, and why."""

    model_id: str
    revision: str  # empty: the bundle's own
    reason: str
    retry_at: float  # when it is tried again, by the monotonic clock

    @property
    def summary(self) -> dict[str, str]:
        """For people."""
        return {"model_id": self.model_id, "revision": self.revision, "reason": self.reason}


class ModelManager:
    """Holds the engine that serves. Everybody reads ``engine`` once a request."""

    def __init__(self, metrics: Metrics, *, precision: str, provider: Provider, threads: int) -> None:
        self._metrics = metrics
        self._precision, self._provider, self._threads = precision, provider, threads
        self._engine: Engine | None = None
        self._repository: ModelRegistry | None = None
        self._champion: Champion | None = None  # as the repository said last
        self._served = ("", "")  # the model and the published revision that serve
        self._hide_lock = threading.Lock()  # an engine that takes over hides what the one before it hid
        self._stop, self._champion_polled = threading.Event(), threading.Event()
        self._threads_started: list[threading.Thread] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="rankline-bundles-")  # for bundles out of a bucket
        self._download_folder = Path(self._scratch.name)
        self.hidden: tuple[str, ...] = ()
        self.refused: RejectedChampion | None = None
        self.repository_error = ""

    @property
    def engine(self) -> Engine:
        """The engine that serves.

        Raises:
            NotReady: there is none yet.
        """
        engine = self._engine
        if engine is None:
            raise NotReady(
                "no model serves here yet",
                expected="a champion in the model repository",
                found=self.refused.reason if self.refused else self.repository_error or "none promoted so far",
                hint="run `rankline run` until a model is promoted; the server will take it up by itself",
            )
        return engine

    @property
    def model_id(self) -> str | None:
        """The id of the model that serves."""
        return self._engine.info.model_id if self._engine else None

    @property
    def item_ids(self) -> Sequence[str]:
        """The items of the catalogue that serves; empty before there is one."""
        return self._engine.item_ids if self._engine else ()

    def use(self, engine: Engine) -> None:
        """Let this engine answer from now on, without what is hidden."""
        with self._hide_lock:
            engine.hide(self.hidden)
            self._engine = engine
        self._metrics.set_model(engine.info)

    def hide(self, items: Sequence[str]) -> None:
        """Leave these items out of every answer from now on, whichever engine gives it."""
        with self._hide_lock:
            if self._engine:
                self._engine.hide(items)
            self.hidden = tuple(items)
        self._metrics.hidden.set(len(self.hidden))

    def serve_bundle(self, folder: Path) -> None:
        """Serve one bundle for good.

        Raises:
            RanklineError: it is no bundle, is damaged, or cannot be served here.
        """
        self.use(self._load(open_bundle(folder)))

    def follow(self, url: str, *, poll_interval_s: float) -> None:
        """Serve the champion of a repository, and each later one within ``every_s`` seconds.

        Raises:
            RanklineError: the present champion cannot be served. That there is none yet is no error.
        """
        self._repository = ModelRegistry(url)
        self._champion = self._repository.champion_record()
        if self._champion:
            self.hide(self._champion.hidden)
            self._load_champion(self._champion)
        for name, work in (("champion", self._poll_loop), ("loader", self._swap_loop)):
            self._threads_started.append(threading.Thread(target=work, args=(poll_interval_s,), name=name, daemon=True))
            self._threads_started[-1].start()

    def close(self) -> None:
        """Stop looking for new champions."""
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
                except Exception:  # the thread has to outlive whatever there is
                    log.exception("what is new cannot be taken up; it is tried again")

    def poll(self, *, retry_s: float = 30.0) -> None:
        """Look and take up what is new, one after the other."""
        self.refresh_champion()
        self.swap_if_changed(retry_s=retry_s)

    def refresh_champion(self) -> None:
        """Read who serves, over which catalogue, and hide what was taken down since.

        Whatever goes wrong is told in ``repository_error`` and tried again: without this no takedown is followed.
        """
        if self._repository is None:
            return
        try:
            self._champion = self._repository.champion_record()
            if self._champion and self._champion.hidden != self.hidden:
                self.hide(self._champion.hidden)
                log.info("%d items are hidden now", len(self.hidden))
            self.repository_error = ""
        except Exception as error:
            message = str(error).splitlines()[0] if isinstance(error, RanklineError | OSError) and str(error) else ""
            reason = message or f"{type(error).__name__}: {error}"
            if reason != self.repository_error:
                log.error("the model repository cannot be followed, %s goes on: %s", self.model_id, reason)
            self.repository_error = reason

    def swap_if_changed(self, *, retry_s: float = 30.0) -> None:
        """Serve the champion if it, or its catalogue, is a new one; a refused one is tried again after ``retry_s``."""
        champion = self._champion
        if champion is None or (champion.model_id, champion.revision) == self._served:
            self.refused = None
            return
        now, refused = time.monotonic(), self.refused
        is_same = refused and (refused.model_id, refused.revision) == (champion.model_id, champion.revision)
        if refused and is_same and now < refused.retry_at:
            return
        description = f"{champion.model_id} over catalogue {champion.revision or 'of its bundle'}"
        try:
            bundle = self._load_champion(champion)
        except Exception as error:  # nothing that a new bundle does may stop the old one
            self.refused = RejectedChampion(champion.model_id, champion.revision, str(error), now + retry_s)
            self._metrics.swaps.labels("refused").inc()
            log.error("champion %s is not served, %s goes on: %s", description, self.model_id, error)
            return
        self.refused = None
        self._metrics.swaps.labels("swapped").inc()
        log.info("now serving %s", description)
        for old in self._download_folder.iterdir():
            if old not in (bundle.folder, bundle.catalogue):
                shutil.rmtree(old, ignore_errors=True)

    def _load_champion(self, champion: Champion) -> Bundle:
        """Load what the repository says serves, and let it."""
        assert self._repository is not None
        bundle = self._repository.bundle(champion.model_id, revision=champion.revision, into=self._download_folder)
        self.use(self._load(bundle))
        self._served = (champion.model_id, champion.revision)
        return bundle

    def _load(self, bundle: Bundle) -> Engine:
        current = self._engine if isinstance(self._engine, BundleEngine) else None
        return BundleEngine.load(
            bundle, precision=self._precision, provider=self._provider, threads=self._threads, share_graphs_with=current
        )
