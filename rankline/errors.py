"""The errors that Rankline raises: one tree below RanklineError.

A message says what was expected, what was found, where, and what to try. An error that the same inputs would cause
again is `final`: where Kubeflow retries the task, every later attempt fails at once.
"""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_STALE = 4


class RanklineError(Exception):
    """An error with one message for the user; ``exit_code`` is that of the command."""

    exit_code = EXIT_FAILED
    final = False

    def __init__(self, message: str, *, expected: str = "", found: str = "", where: str = "", hint: str = "") -> None:
        self.message, self.expected, self.found, self.where, self.hint = message, expected, found, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.message]
        for label, value in (("expected", self.expected), ("found", self.found), ("where", self.where)):
            if value:
                parts.append(f"  {label}: {value}")
        if self.hint:
            parts.append(f"  try: {self.hint}")
        return "\n".join(parts)

    @property
    def one_line(self) -> str:
        """The message and what was found, in one line."""
        return f"{self.message}: {self.found}" if self.found else self.message


class SettingError(ValueError):
    """One setting that does not fit the others: ``setting`` is its path below the settings that are validated."""

    def __init__(self, setting: str, expected: str, *, found: str = "", hint: str = "") -> None:
        self.setting, self.found, self.hint = setting, found, hint
        super().__init__(expected)


class UsageError(RanklineError):
    """The command or the recipe is wrong."""

    exit_code = EXIT_USAGE
    final = True


class NotPermitted(UsageError):
    """Another reviewer has to do this."""


class SourceError(RanklineError):
    """Raw data is missing, empty or unreadable; ``has_no_rows`` if that is all that is wrong with it."""

    has_no_rows = False


def no_rows_error(message: str, *, expected: str, found: str, where: str, hint: str) -> SourceError:
    """The error for a file or table that holds no row that can be read."""
    error = SourceError(message, expected=expected, found=found, where=where, hint=hint)
    error.has_no_rows = True
    return error


class ValidationFailed(RanklineError):
    """Data breaks its contract."""

    final = True


class TooSmall(RanklineError):
    """There is too little data."""

    final = True


class IntegrityError(RanklineError):
    """A file does not match its digest."""


class DiskFull(RanklineError):
    """The disk is full."""


class OutOfMemory(RanklineError):
    """A step needs more memory than it has."""


class DeviceError(RanklineError):
    """The requested device does not exist."""


class TrainingError(RanklineError):
    """Training cannot continue: a loss that is not finite, or no space for a checkpoint."""


class RegistryError(RanklineError):
    """The model registry cannot be read or written."""


class StaleEvidence(RegistryError):
    """The champion has changed since the evidence was computed."""

    exit_code = EXIT_STALE


class ErasureIncomplete(RanklineError):
    """Something still holds the id of a user after an erasure."""


class StorageError(RanklineError):
    """A bucket does not respond, or refuses."""


class ServerError(RanklineError):
    """The server did not start, or does not respond."""


class AccessError(RanklineError):
    """A cluster cannot be reached, or refuses access."""


class StepFailed(RanklineError):
    """A step of a run failed; the message is the step's, ``summary`` that of the run."""

    def __init__(self, message: str, *, summary: dict[str, Any], exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.summary, self.exit_code = summary, exit_code
