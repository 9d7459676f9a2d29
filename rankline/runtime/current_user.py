"""The user who runs a command."""

from __future__ import annotations

import getpass
import os
import socket


def current_user() -> str:
    """user@host; only the host if the user has no name, as in some containers.

    The name is that of the system: the environment, which anyone can set, is asked only where the system has none.
    """
    try:
        return f"{_system_user() or getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


def _system_user() -> str:
    try:
        import pwd
    except ImportError:  # Windows
        return ""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""
