"""What a trigger is: its kind, what it is about, its limit, and where its data is; as text `drift:price>=0.2`.

events>=10000          new events since the data of the last training; or a share of its events: events>=20%
drift:price>=0.2       population stability index of a column of events, items or users, training against live
scores>=0.2 in PATH    the same of the served scores, which a table or a folder of Parquet files holds
decay:ndcg@10>=5%      the champion's metric on newer requests, below its own by so much; or `in PATH`, a live metric
code                   new code or new settings: a step of the last training would not be reused
webhook:VARIABLE       a signed POST to the scheduler; the environment variable holds its key
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rankline.contracts import FrozenModel

Kind = Literal["events", "drift", "scores", "decay", "code", "webhook"]
_FORM = re.compile(
    r"(?P<kind>[a-z]+)(?::(?P<subject>[^\s<>=]+))?"
    r"(?:\s*>=\s*(?P<limit>[0-9.]+)(?P<percent>%?))?(?:\s+in\s+(?P<path>\S.*))?"
)
EXAMPLES = (
    "events>=10000, events>=20%, drift:price>=0.2, scores>=0.2 in PATH, decay:ndcg@10>=5%, code or webhook:VARIABLE"
)


@dataclass(frozen=True)
class KindRules:
    """What a trigger of this kind is written with."""

    flows: tuple[str, ...]
    subject: str = ""  # what follows the colon; empty where nothing may
    limit: float | None = None  # the default; None where there is none
    needs_limit: bool = False
    percent: Literal["never", "may", "must"] = "never"
    path: Literal["never", "may", "must"] = "never"


KINDS: Mapping[Kind, KindRules] = {
    "events": KindRules(("train", "features"), needs_limit=True, percent="may"),
    "drift": KindRules(("train",), subject="a column, such as drift:price", limit=0.2),
    "scores": KindRules(("train",), limit=0.2, path="must"),
    "decay": KindRules(("train",), subject="a metric, such as decay:ndcg@10", limit=0.05, percent="must", path="may"),
    "code": KindRules(("train",)),
    "webhook": KindRules(
        ("train", "features", "refresh"), subject="an environment variable, such as webhook:DEPLOY_KEY"
    ),
}
STATISTICAL = ("drift", "scores", "decay")  # that may fire by chance


class Trigger(FrozenModel):
    """One trigger of a schedule."""

    kind: Kind
    subject: str = ""
    limit: float | None = None
    percent: bool = False  # of events: whether the limit is a share
    path: str = ""

    def __str__(self) -> str:
        name = f"{self.kind}:{self.subject}" if self.subject else self.kind
        limit = "" if self.limit is None else f">={self.limit_text}"
        return f"{name}{limit}{f' in {self.path}' if self.path else ''}"

    @property
    def limit_text(self) -> str:
        """The limit as it is written."""
        if self.limit is None:
            return ""
        return f"{self.limit * 100:g}%" if self.percent else f"{self.limit:.15g}"


def parse(text: str) -> Trigger:
    """The trigger that a text names.

    Raises:
        ValueError: it is none; the message says what is expected.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or match["kind"] not in KINDS:
        raise ValueError(f"a trigger is one of {EXAMPLES}")
    kind: Kind = match["kind"]  # type: ignore[assignment]
    rules = KINDS[kind]
    if bool(match["subject"]) != bool(rules.subject):
        expected = rules.subject or f"{kind} without a colon"
        raise ValueError(f"a trigger {kind} names {expected}" if rules.subject else f"expected {expected}")
    if kind == "webhook" and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", match["subject"]):
        raise ValueError("webhook: is followed by the name of an environment variable: letters, digits and _")
    if match["percent"] and rules.percent == "never":
        raise ValueError(f"the limit of a trigger {kind} has no %")
    if match["limit"] and not match["percent"] and rules.percent == "must":
        raise ValueError(f"the limit of a trigger {kind} is a share, such as >=5%")
    if bool(match["path"]) != (rules.path == "must") and rules.path != "may":
        raise ValueError(f"a trigger {kind} reads {'no' if match['path'] else 'its data'} `in PATH`")
    return Trigger(
        kind=kind,
        subject=match["subject"] or "",
        limit=_limit(kind, rules, match["limit"], bool(match["percent"])),
        percent=bool(match["percent"]) or rules.percent == "must",
        path=match["path"] or "",
    )


def _limit(kind: Kind, rules: KindRules, text: str | None, percent: bool) -> float | None:
    if text is None:
        if rules.needs_limit:
            raise ValueError(f"a trigger {kind} has a limit, such as {kind}>=10000")
        return rules.limit
    if rules.limit is None and not rules.needs_limit:
        raise ValueError(f"a trigger {kind} has no limit")
    try:
        value = float(text) / (100 if percent else 1)
    except ValueError:
        raise ValueError(f"{text} is not a number") from None
    if not value > 0:
        raise ValueError("a limit is more than 0: every check would fire")
    if kind == "decay" and value >= 1:
        raise ValueError("a metric cannot fall by 100% or more")
    return value
