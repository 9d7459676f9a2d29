"""The user who runs a command."""

from __future__ import annotations

import getpass
import socket


def current_user() -> str:
    """user@host; only the host if the user has no name, as in some containers."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()
