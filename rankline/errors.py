"""Everything Rankline refuses, in one small tree.

    RanklineError            base: one message a person can act on, and an exit code
    ├── UsageError           the command or the recipe is wrong           (exit 2)
    ├── SourceError          raw data is missing, empty or unreadable
    ├── ValidationFailed     data breaks its contract
    ├── TooSmall             not enough data to do what was asked
    ├── IntegrityError       a file is not the one its digest promises
    ├── DiskFull             there is no room for what a step writes
    ├── OutOfMemory          a step needs more memory than there is
    ├── DeviceError          a device was asked for and is not there
    ├── TrainingError        training cannot go on (NaN loss, no room for a checkpoint)
    ├── RepositoryError      the model repository cannot do what was asked
    │   └── StaleEvidence    the champion changed since the evidence was made
    ├── StorageError         a bucket does not answer, or not as it should
    ├── ServerError          the server did not start, or does not answer
    ├── AccessError          a cluster cannot be reached, or lets nobody in
    └── StepFailed           a step of the flow stopped; carries that step's message

A message says what was expected, what was found, where, and what to try. A refusal that the same inputs would meet
again is `final`: a cluster, which tries whatever failed once more, is told so before the work begins.
"""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3


class RanklineError(Exception):
    """A refusal with one kind message; ``exit_code`` is what a command ends with."""

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


class UsageError(RanklineError):
    """The command or the recipe is wrong."""

    exit_code = EXIT_USAGE
    final = True


class SourceError(RanklineError):
    """Raw data is missing, empty or unreadable."""


class ValidationFailed(RanklineError):
    """Data breaks its contract."""

    final = True


class TooSmall(RanklineError):
    """There is not enough data to do what was asked."""

    final = True


class IntegrityError(RanklineError):
    """A file is not the one its digest promises."""


class DiskFull(RanklineError):
    """There is no room for what a step writes."""


class OutOfMemory(RanklineError):
    """A step needs more memory than there is."""


class DeviceError(RanklineError):
    """A device was asked for and is not there."""


class TrainingError(RanklineError):
    """Training cannot go on."""


class RegistryError(RanklineError):
    """The model repository cannot do what was asked."""


class StaleEvidence(RegistryError):
    """The champion changed since the evidence was made."""


class StorageError(RanklineError):
    """A bucket does not answer, or not as it should."""


class ServerError(RanklineError):
    """The server did not start, or does not answer."""


class AccessError(RanklineError):
    """A cluster cannot be reached, or lets nobody in."""


class StepFailed(RanklineError):
    """A step of the flow stopped; the message is that step's own, ``summary`` what the run did up to there."""

    def __init__(self, message: str, *, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary
