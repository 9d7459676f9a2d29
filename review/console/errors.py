"""The console's own refusals, and the HTTP status of every error."""

from __future__ import annotations

from rankline.errors import (
    IntegrityError,
    NotPermitted,
    RanklineError,
    RegistryError,
    ServerError,
    StaleEvidence,
    StorageError,
    UsageError,
)


class ConsoleError(RanklineError):
    """A request that the console refuses; ``status`` is its HTTP status."""

    status = 400


class NotSignedIn(ConsoleError):
    """Nobody is signed in, or the token is none."""

    status = 401


class Forbidden(ConsoleError):
    """The role does not allow this, or the request comes from another site."""

    status = 403


class NotFound(ConsoleError):
    """There is no such page, model or event."""

    status = 404


class TooLarge(ConsoleError):
    """The body of the request is larger than any form of the console."""

    status = 413


class Misconfigured(ConsoleError):
    """A file that the console was started with cannot be used any more."""

    status = 503


class InvalidForm(ConsoleError):
    """A field of a form is empty or too long; ``field`` is its name."""

    status = 422

    def __init__(self, message: str, *, field: str, expected: str = "", found: str = "", hint: str = "") -> None:
        super().__init__(message, expected=expected, found=found, hint=hint)
        self.field = field


# the first matching class decides
_STATUS_OF_ERROR: tuple[tuple[type[RanklineError], int], ...] = (
    (StaleEvidence, 409),
    (NotPermitted, 403),
    (UsageError, 422),
    (StorageError, 503),
    (ServerError, 502),
    (RegistryError, 409),
    (IntegrityError, 409),
)


def status_of(error: RanklineError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, ConsoleError):
        return error.status
    return next((status for family, status in _STATUS_OF_ERROR if isinstance(error, family)), 500)
