"""The socket that a server listens on."""

from __future__ import annotations

import socket

from rankline.errors import ServerError


def listen(name: str, host: str, port: int) -> socket.socket:
    """Open the listening socket of the server that is called ``name``; port 0 is any free one.

    Raises:
        ServerError: the port is in use, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ServerError(
            f"{name} cannot listen on {host}:{port}",
            expected="a free port",
            found=getattr(error, "strerror", None) or str(error),
            hint=f"stop the process that uses it (`lsof -i :{port}`), or give another --port; 0 takes any free port",
        ) from error
