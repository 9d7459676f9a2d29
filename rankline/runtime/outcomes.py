"""How a run can end: the label, and everything that follows from it."""

from __future__ import annotations

from enum import StrEnum

from rankline.errors import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, EXIT_STALE

EXIT_INTERRUPTED = 130  # as typer's after Ctrl-C
VERDICT_EXIT_CODES = (EXIT_OK, EXIT_REFUSED)  # of runs that came to a verdict


class Outcome(StrEnum):
    """The outcome of a run; its value is the label in summary.json, in firings and on the screen.

    Attributes:
        verdict: what the deciding step returns for it, in verdict.json and checks.json.
        exit_code: of the command that ran it; None while there is no end.
        event: the registry event that `decide` records; a promotion and a publication are recorded by the next step.
        step: the step that has to follow the verdict.
        sentence: what a cluster, which knows no ledger, says of it.
    """

    verdict: str
    exit_code: int | None
    event: str
    step: str
    sentence: str

    def __new__(
        cls, label: str, verdict: str, exit_code: int | None, event: str, step: str, sentence: str = ""
    ) -> Outcome:
        member = str.__new__(cls, label)
        member._value_ = label
        member.verdict, member.exit_code, member.event = verdict, exit_code, event
        member.step, member.sentence = step, sentence
        return member

    # fmt: off
    #           label, verdict, exit code, event, next step, sentence
    PROMOTED = ("promoted", "promote", EXIT_OK, "", "promote",
                "Every gate is met; the model serves.")
    PUBLISHED = ("published", "publish", EXIT_OK, "", "publish",
                 "Every check is met; the champion serves over the new catalogue.")
    MATERIALIZED = ("materialized", "", EXIT_OK, "", "materialize",
                    "The champion's features are online, or the online ones are newer already.")
    ALREADY_SERVING = ("already serving", "already_serving", EXIT_OK, "", "",
                       "The candidate is the champion; there was nothing to decide.")
    PENDING = ("waiting for review", "pending", EXIT_OK, "pending", "",
               "Every gate is met; a reviewer decides: `rankline review list`.")
    REFUSED = ("refused", "refused", EXIT_REFUSED, "rejected", "",
               "A gate is not met; verdict.md of the step decide says which.")
    INSUFFICIENT_DATA = ("insufficient data", "insufficient_data", EXIT_REFUSED, "rejected", "",
                         "There is too little data for a verdict.")
    UNCHANGED = ("nothing changed", "unchanged", EXIT_OK, "", "",
                 "Every item is as it was; nothing was published.")
    CANCELLED = ("cancelled", "", EXIT_INTERRUPTED, "", "", "It was cancelled before it was finished.")
    STALE = ("stale", "", EXIT_STALE, "", "", "Another model came to serve while it ran; run it again.")
    FAILED = ("failed", "", EXIT_FAILED, "", "")
    INCOMPLETE = ("incomplete", "", EXIT_FAILED, "", "", "It ended without a verdict.")
    # a run without a summary
    RUNNING = ("running", "", None, "", "")
    UNFINISHED = ("unfinished", "", None, "", "")  # its process was killed
    UNREADABLE = ("unreadable", "", None, "", "")  # the summary is there and cannot be read
    # fmt: on

    @property
    def has_verdict(self) -> bool:
        """Whether the run came to one that holds: neither a failure, nor a cancellation, nor a comparison too late."""
        return self.exit_code in VERDICT_EXIT_CODES

    @property
    def task(self) -> str:
        """The task that stands for this verdict on a cluster; empty where a step of its own follows the verdict.

        Packages of this version have one for `branch` alone; those of earlier versions have one for each verdict.
        """
        return "" if self.step else self.verdict.replace("_", "-")

    @property
    def branch(self) -> str:
        """What the deciding step returns to a pipeline, which has one branch for every refusal."""
        return Outcome.REFUSED.verdict if self.exit_code == EXIT_REFUSED else self.verdict

    def sentence_for(self, flow: str) -> str:
        """What a cluster says of a run of this flow."""
        if self is Outcome.REFUSED and flow == "refresh":
            return "A check is not met, and what serves stays; summary.json of the run, in the workspace, says which."
        return self.sentence

    @classmethod
    def of_verdict(cls, verdict: str) -> Outcome:
        """The outcome of a run whose deciding step returned this; incomplete where there is no such verdict."""
        return next((each for each in cls if verdict and each.verdict == verdict), cls.INCOMPLETE)


_BY_LABEL = {str(outcome): outcome for outcome in Outcome}


def exit_code(label: str) -> int:
    """The exit code of a command whose run ended like this; 1 for a label of another version."""
    outcome = _BY_LABEL.get(label)
    return EXIT_FAILED if outcome is None or outcome.exit_code is None else outcome.exit_code


def has_verdict(label: str) -> bool:
    """Whether a run with this label came to a verdict; not where the label is of another version."""
    return label in _BY_LABEL and _BY_LABEL[label].has_verdict
