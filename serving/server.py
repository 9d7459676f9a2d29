"""The server process: command line, socket, start and shutdown."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rankline.errors import EXIT_OK, RanklineError, UsageError
from rankline.io.files import write_json
from rankline.runtime.listening import listen
from rankline.runtime.threads import limit_threads
from serving.sessions import Provider, require_provider

if TYPE_CHECKING:
    from serving.features.online_store import FeatureSource


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to start a server. Exactly one of ``repository`` and ``bundle`` is given."""

    repository: str | None = None
    bundle: Path | None = None
    features: str | None = None  # folder or bucket URL of a feature store, or URL of a Feast feature server
    hash_users: str = ""  # variable with the key that hashed the users of a feature server; a store knows its own
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free port
    precision: str = "fp32"
    provider: Provider = "cpu"
    threads: int = 1  # per session; requests run in parallel as well
    poll_s: float = 1.0
    drain_s: int = 30
    max_pending: int = 128  # requests that are answered or wait; more get 429
    max_body_mb: float = 8.0
    workers: int = 2  # batches in progress at once
    max_batch: int = 32
    batch_wait_ms: float = 1.0
    timeout_s: float = 10.0
    ready_file: Path | None = None


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress.

    Raises:
        UsageError: not exactly one of repository and bundle is given, or the folder is no bundle.
        ServerError: the port is in use.
        DeviceError: CUDA was requested and is not available.
        IntegrityError: a file of the bundle differs from its digest.
    """
    if (settings.repository is None) == (settings.bundle is None):
        raise UsageError(
            "the server needs a registry or a bundle to serve",
            expected="one of --repository and --bundle",
            found="both" if settings.bundle else "neither",
            hint="--repository .rankline/repository follows the champion; --bundle DIR serves one bundle",
        )
    # uvicorn drains on a signal and raises it again afterwards, when the server has ended successfully
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(EXIT_OK))
    with listen("the server", settings.host, settings.port) as listener:
        require_provider(settings.provider)
        # slow imports come after the checks of port and device
        import uvicorn

        from serving.api.app import create_app
        from serving.api.middleware import RequestLimits
        from serving.batching import BatchSettings
        from serving.features.lookup import FeatureLookup
        from serving.metrics import Metrics
        from serving.model_manager import ModelManager

        metrics = Metrics()
        models = ModelManager(
            metrics, precision=settings.precision, provider=settings.provider, threads=settings.threads
        )
        if settings.bundle:
            models.serve_bundle(settings.bundle)
        elif settings.repository:
            models.follow(settings.repository, poll_interval_s=settings.poll_s)
        features = FeatureLookup(
            _feature_source(settings), metrics, item_ids=lambda: models.item_ids, fields=lambda: models.fields
        )
        limits = RequestLimits(settings.max_pending, round(settings.max_body_mb * (1 << 20)))
        batches = BatchSettings(
            workers=settings.workers,
            max_batch=settings.max_batch,
            max_wait_ms=settings.batch_wait_ms,
            timeout_s=settings.timeout_s,
        )
        app = create_app(models, features, metrics, limits, batches)

        class Announcing(uvicorn.Server):
            """Announces its URL once it answers."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                features.start()
                _announce(listener, settings, models.model_id)

        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # nothing reads a client's address
            timeout_graceful_shutdown=settings.drain_s,
        )
        Announcing(config).run(sockets=[listener])


def _feature_source(settings: Settings) -> FeatureSource | None:
    from serving.features.online_store import FeastBucket, FeastServer, StoreFolder

    location = settings.features
    if location is None:
        return None
    if location.startswith(("http://", "https://")):
        return FeastServer(location, hash_users=settings.hash_users)
    return FeastBucket(location) if "://" in location else StoreFolder(Path(location))


def _announce(listener: socket.socket, settings: Settings, model_id: str | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    if settings.ready_file:
        write_json(settings.ready_file, {"url": url, "pid": os.getpid(), "model_id": model_id})
    print(f"serving {model_id or 'no model yet'} on {url}", flush=True)


def _positive(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


# in argparse's messages
_positive.__name__, _not_negative.__name__ = "finite number above 0", "finite number of at least 0"
_at_least_one.__name__ = "whole number above 0"


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m serving", description="Serve the champion over HTTP.")
    add: Any = parser.add_argument
    add("--repository", help="model registry (folder or URL): follow its champion")
    add("--bundle", type=Path, help="serve only the bundle in this folder")
    add(
        "--features",
        help="folder or bucket URL of a feature store (with feature_store.yaml), or URL of a feature server; a model "
        "that reads another version gets the store beside it",
    )
    add(
        "--hash-users",
        default=defaults.hash_users,
        metavar="VARIABLE",
        help="for a feature server: the environment variable with the key of ingest.hash_users",
    )
    add("--host", default=defaults.host)
    add("--port", type=int, default=defaults.port, help="0 takes any free port (default %(default)s)")
    add("--precision", default=defaults.precision, choices=("fp32", "int8", "fp16"))
    add("--provider", default=defaults.provider, choices=get_args(Provider))
    add(
        "--threads",
        type=_at_least_one,
        default=defaults.threads,
        help="threads of one ONNX Runtime session (default %(default)s)",
    )
    add(
        "--poll-s",
        type=_positive,
        default=defaults.poll_s,
        help="seconds between polls for a new champion (default %(default)s)",
    )
    add(
        "--drain-s",
        type=_at_least_one,
        default=defaults.drain_s,
        help="seconds that SIGTERM waits for requests (default %(default)s)",
    )
    add(
        "--max-pending",
        type=_at_least_one,
        default=defaults.max_pending,
        help="requests that are answered or wait at once; more get 429 (default %(default)s)",
    )
    add(
        "--max-body-mb",
        type=_positive,
        default=defaults.max_body_mb,
        help="largest body of a request in MiB; a larger one gets 413 (default %(default)s)",
    )
    _add_batching(add, defaults)
    add("--ready-file", type=Path, help="write {url, pid, model_id} to this file once requests are answered")
    return parser


def _add_batching(add: Any, defaults: Settings) -> None:
    add(
        "--workers",
        type=_at_least_one,
        default=defaults.workers,
        help="batches in progress at once: while one is in a graph, another one is prepared (default %(default)s)",
    )
    add(
        "--max-batch",
        type=_at_least_one,
        default=defaults.max_batch,
        help="requests that are answered together; 1 answers each alone (default %(default)s)",
    )
    add(
        "--batch-wait-ms",
        type=_not_negative,
        default=defaults.batch_wait_ms,
        help="longest wait for a batch as large as the last one; an idle server never waits (default %(default)s)",
    )
    add(
        "--timeout-s",
        type=_positive,
        default=defaults.timeout_s,
        help="longest time of a request, unless its X-Request-Timeout-Ms is shorter; then it gets 503 "
        "(default %(default)s)",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    limit_threads()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("rankline.serving").setLevel(logging.INFO)
    try:
        serve(Settings(**vars(_parser().parse_args(arguments))))
    except RanklineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK
