"""The server as a process: settings, a socket, a model, and how it starts and ends."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rankline.errors import EXIT_OK, RanklineError, ServerError, UsageError
from serving.sessions import Provider, require_provider

if TYPE_CHECKING:
    from serving.feature_source import FeatureSource


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server is started. Exactly one of ``repository`` and ``bundle`` is given."""

    repository: str | None = None
    bundle: Path | None = None
    features: str | None = None  # a feature store's folder, or the URL of Feast's feature server
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    precision: str = "fp32"
    provider: Provider = "cpu"
    threads: int = 1  # of one session; requests run beside each other as well
    poll_s: float = 2.0
    drain_s: int = 30
    ready_file: Path | None = None


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests under way.

    Raises:
        UsageError: no bundle is where one was named, or both or neither of repository and bundle.
        ServerError: the port is in use.
        DeviceError: CUDA was asked for and is not there.
        IntegrityError: a byte of the bundle differs from its digest.
    """
    if (settings.repository is None) == (settings.bundle is None):
        raise UsageError(
            "the server has to know what to serve",
            expected="one of --repository and --bundle",
            found="both" if settings.bundle else "neither",
            hint="--repository .rankline/repository follows the champion; --bundle DIR serves one folder",
        )
    # uvicorn drains on a signal and then raises it again: by then the work is done, which is no failure
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(EXIT_OK))
    with _listen(settings.host, settings.port) as listener:
        require_provider(settings.provider)
        # imported here, so that a port in use or an absent device is told at once
        import uvicorn

        from serving.app import create_app
        from serving.features import FeatureLookup
        from serving.live import ModelManager
        from serving.metrics import Metrics

        metrics = Metrics()
        live = ModelManager(metrics, precision=settings.precision, provider=settings.provider, threads=settings.threads)
        if settings.bundle:
            live.serve_bundle(settings.bundle)
        elif settings.repository:
            live.follow(settings.repository, poll_interval_s=settings.poll_s)
        features = FeatureLookup(_feature_source(settings.features), metrics, item_ids=lambda: live.item_ids)
        app = create_app(live, features, metrics)

        class Announcing(uvicorn.Server):
            """Says where it listens once it does."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                features.start()
                _announce(listener, settings, live.model_id)

        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=settings.drain_s)
        Announcing(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything slow is done."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ServerError(
            f"the server cannot listen on {host}:{port}",
            expected="a free port",
            found=getattr(error, "strerror", None) or str(error),
            hint=f"stop what uses it (`lsof -i :{port}` tells), or give another --port; 0 takes a free one",
        ) from error


def _feature_source(location: str | None) -> FeatureSource | None:
    from serving.feature_source import FeastLibrary, FeastServer

    if location is None:
        return None
    return FeastServer(location) if location.startswith(("http://", "https://")) else FeastLibrary(Path(location))


def _announce(listener: socket.socket, settings: Settings, model_id: str | None) -> None:
    from rankline.runtime import ledger

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    if settings.ready_file:
        ledger.write_json(settings.ready_file, {"url": url, "pid": os.getpid(), "model_id": model_id})
    print(f"serving {model_id or 'no model yet'} on {url}", flush=True)


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m serving", description="Serve the champion over HTTP.")
    add: Any = parser.add_argument
    add("--repository", help="model repository (folder or URL): follow its champion")
    add("--bundle", type=Path, help="serve this bundle's folder and nothing else")
    add("--features", help="feature store's folder (feature_store.yaml in it), or a feature server's URL")
    add("--host", default=defaults.host)
    add("--port", type=int, default=defaults.port, help="0 takes any free one (default %(default)s)")
    add("--precision", default=defaults.precision, choices=("fp32", "int8", "fp16"))
    add("--provider", default=defaults.provider, choices=get_args(Provider))
    add("--threads", type=int, default=defaults.threads, help="of one ONNX Runtime session (default %(default)s)")
    add("--poll-s", type=float, default=defaults.poll_s, help="how often to look for a champion (%(default)s)")
    add("--drain-s", type=int, default=defaults.drain_s, help="how long SIGTERM waits for requests (%(default)s)")
    add("--ready-file", type=Path, help="write {url, pid, model_id} here once requests are answered")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Serve as the command line says; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("rankline.serving").setLevel(logging.INFO)  # what serves, and what is hidden, is worth a line
    try:
        serve(Settings(**vars(_parser().parse_args(arguments))))
    except RanklineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK
