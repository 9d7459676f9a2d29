"""Which engine answers now: the champion of a model repository, or the one bundle of a folder.

A new champion is fetched, verified and warmed up beside the one that serves; then one assignment puts it in
its place. Requests under way keep the engine they began with, so none is dropped. A champion that cannot be
served is refused and the old one goes on.
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

from rankline.bundle import Bundle, open_bundle
from rankline.errors import RanklineError, ServerError
from rankline.repository import Repository
from serving.engine import BundleEngine, Engine
from serving.metrics import Metrics
from serving.sessions import Provider

log = logging.getLogger("rankline.serving")


class NotReady(ServerError):
    """The server has no model yet."""


@dataclass(frozen=True)
class Refused:
    """A champion that is not served, and why."""

    model_id: str
    reason: str
    until: float  # when it is tried again, by the monotonic clock


class Live:
    """Holds the engine that serves. Everybody reads ``engine`` once a request."""

    def __init__(self, metrics: Metrics, *, precision: str, provider: Provider, threads: int) -> None:
        self._metrics = metrics
        self._precision, self._provider, self._threads = precision, provider, threads
        self._engine: Engine | None = None
        self._repository: Repository | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="rankline-bundles-")  # for bundles out of a bucket
        self._fetched = Path(self._scratch.name)
        self.refused: Refused | None = None
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
        return self._engine.about.model_id if self._engine else None

    @property
    def item_ids(self) -> Sequence[str]:
        """The items of the catalogue that serves; empty before there is one."""
        return self._engine.item_ids if self._engine else ()

    def use(self, engine: Engine) -> None:
        """Let this engine answer from now on."""
        before, self._engine = self._engine, engine
        if before:
            self._metrics.serves(before.about).set(0)
        self._metrics.serves(engine.about).set(1)

    def serve_bundle(self, folder: Path) -> None:
        """Serve one bundle for good.

        Raises:
            RanklineError: it is no bundle, is damaged, or cannot be served here.
        """
        self.use(self._load(open_bundle(folder)))

    def follow(self, url: str, *, every_s: float) -> None:
        """Serve the champion of a repository, and each later one within ``every_s`` seconds.

        Raises:
            RanklineError: the present champion cannot be served. That there is none yet is no error.
        """
        self._repository = Repository(url)
        champion = self._repository.champion()
        if champion:
            self.use(self._load(self._repository.bundle(champion, into=self._fetched)))
        self._thread = threading.Thread(target=self._watch, args=(every_s,), name="champion", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking for new champions."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)
        self._scratch.cleanup()

    def _watch(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            self.poll()

    def poll(self, *, retry_s: float = 30.0) -> None:
        """Take up the champion if it is a new one; a refused one is tried again after ``retry_s``."""
        if self._repository is None:
            return
        try:
            champion = self._repository.champion()
            self.repository_error = ""
        except (RanklineError, OSError) as error:
            self.repository_error = str(error).splitlines()[0]
            return
        if not champion or champion == self.model_id:
            self.refused = None
            return
        now = time.monotonic()
        if self.refused and self.refused.model_id == champion and now < self.refused.until:
            return
        try:
            self.use(self._load(self._repository.bundle(champion, into=self._fetched)))
        except Exception as error:  # nothing that a new bundle does may stop the old one
            self.refused = Refused(champion, str(error), now + retry_s)
            self._metrics.swaps.labels("refused").inc()
            log.error("champion %s is not served, %s goes on: %s", champion, self.model_id, error)
            return
        self.refused = None
        self._metrics.swaps.labels("swapped").inc()
        log.warning("now serving %s", champion)
        for old in self._fetched.iterdir():
            if old.name != champion:
                shutil.rmtree(old, ignore_errors=True)

    def _load(self, bundle: Bundle) -> Engine:
        return BundleEngine.load(bundle, precision=self._precision, provider=self._provider, threads=self._threads)
