"""The console's process: socket, start and shutdown."""

from __future__ import annotations

import os
import signal
import socket
import sys

import uvicorn

from rankline.errors import EXIT_OK
from rankline.io.files import write_json
from rankline.runtime.listening import listen
from review.console.app import create_app
from review.console.settings import ConsoleSettings, checked
from review.desk import Desk

_DRAIN_S = 30  # that a shutdown waits for actions in progress


def serve(desk: Desk, settings: ConsoleSettings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress.

    Raises:
        UsageError: the settings would let anybody in, or a file that they name cannot be read.
        ServerError: the port is in use.
    """
    settings = checked(settings)
    app = create_app(desk, settings)
    # uvicorn drains on a signal and raises it again afterwards, when the server has ended successfully
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(EXIT_OK))
    with listen("the console", settings.host, settings.port) as listener:

        class Announcing(uvicorn.Server):
            """Says where it answers, once it does."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                _announce(listener, settings)

        # addresses and schemes that a client writes into X-Forwarded headers are not believed
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, proxy_headers=False, server_header=False,
            timeout_graceful_shutdown=_DRAIN_S,
        )  # fmt: skip
        Announcing(config).run(sockets=[listener])


def _announce(listener: socket.socket, settings: ConsoleSettings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = settings.url or f"http://{host}:{listener.getsockname()[1]}"
    if settings.ready_file:
        write_json(settings.ready_file, {"url": f"http://{host}:{listener.getsockname()[1]}", "pid": os.getpid()})
    print(f"the console is on {url} (sign-in: {settings.auth})", flush=True)
