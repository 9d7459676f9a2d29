"""Who gives a command."""

from __future__ import annotations

import getpass
import socket


def current_user() -> str:
    """user@host; the host alone where the user is a number without a name, as in some containers."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()
