"""The message about an event or a failed run, and its form for each kind of receiver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, cast, get_args

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.notifications.config import NoticeKind
from rankline.registry.anchor import BREAK_GLASS
from rankline.registry.registry_state import Event

_STARTED = "run started because of"
_LONGEST_TEXT = 2000  # Slack takes 3000 characters in a block
_TITLES = {
    "pending": "waits for review",
    "approved": "has one of two approvals",
    "promoted": "serves now",
    "rejected": "was refused",
    "rolled_back": "serves again",
}


class Notice(FrozenModel):
    """A message for people, and ``payload`` for programs; ``key`` is the same each time it is sent."""

    kind: NoticeKind
    key: str
    title: str
    text: str
    facts: dict[str, str] = Field(default={}, description="short lines below the text")
    link: str = ""
    payload: dict[str, Any]


def notice_of_event(event: Event, *, recipe: str = "", console_url: str = "", why_started: str = "") -> Notice | None:
    """The message about a registry event; None for events that nobody waits for.

    ``why_started`` is why a schedule started the run by need.
    """
    if event.kind not in get_args(NoticeKind):
        return None
    kind, recipe = cast(NoticeKind, event.kind), recipe or str(event.details.get("recipe", ""))
    past_gates = bool(event.details.get(BREAK_GLASS))
    verdict = event.digests.get("verdict", "")
    approve = f"rankline review approve {event.model_id} --evidence {verdict}"
    command = approve if kind in ("pending", "approved") else ""
    link = f"{console_url.rstrip('/')}/candidates/{event.model_id}" if console_url else ""
    title = f"model {event.model_id} {_TITLES[kind]}" + (", PROMOTED PAST THE GATES" if past_gates else "")
    facts = {"by": event.who, "run": event.run_id, "champion before": event.champion_before, "approve": command}
    facts[_STARTED] = why_started[:_LONGEST_TEXT]
    return Notice(
        kind=kind,
        key=f"event-{event.n}-{kind}-{event.model_id}",
        title=f"{recipe}: {title}" if recipe else title[0].upper() + title[1:],
        text=event.why[:_LONGEST_TEXT],
        facts={name: value for name, value in facts.items() if value},
        link=link,
        payload={
            "event": kind,
            "number": event.n,
            "at": event.at,
            "model_id": event.model_id,
            "recipe": recipe,
            "run": event.run_id,
            **({"run_started_because": why_started} if why_started else {}),
            "who": event.who,
            "why": event.why,
            "champion_before": event.champion_before,
            "past_gates": past_gates,
            "outcome": str(event.details.get("outcome", "")),
            "failures": list(event.details.get("failures", [])),
            "digests": {name: event.digests[name] for name in ("evaluation", "verdict") if name in event.digests},
            "link": link,
        },
    )


def notice_of_failed_run(summary: Mapping[str, Any], *, recipe: str = "") -> Notice:
    """The message about a run without a verdict; ``summary`` is that of its folder."""
    run, step = str(summary["run"]), str(summary.get("failed_step", ""))
    text, why = str(summary.get("error", ""))[:_LONGEST_TEXT], str(summary.get("why", ""))
    title = f"run {run} {summary['outcome']}" + (f" in {step}" if step else "")
    return Notice(
        kind="failed",
        key=f"run-{run}-{summary['outcome']}",
        title=f"{recipe}: {title}" if recipe else title[0].upper() + title[1:],
        text=text,
        facts={"show": f"rankline runs show {run}", **({_STARTED: why[:_LONGEST_TEXT]} if why else {})},
        payload={
            "event": "failed", "run": run, "recipe": recipe, "outcome": summary["outcome"], "step": step, "error": text,
            **({"run_started_because": why} if why else {}),
        },
    )  # fmt: skip


def slack_message(notice: Notice) -> dict[str, Any]:
    """The message for a webhook of Slack, or of what understands Slack's."""
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": notice.title[:150]}},
        {"type": "section", "text": {"type": "mrkdwn", "text": _for_slack(notice.text) or "-"}},
    ]
    facts = {**notice.facts, **({"page": notice.link} if notice.link else {})}
    if facts:
        lines = "\n".join(f"*{name}* {_for_slack(value)}" for name, value in facts.items())
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": lines}})
    return {"text": _for_slack(f"{notice.title}: {notice.text}"), "blocks": blocks}


def _for_slack(text: str) -> str:
    """Text in which nothing mentions people or links under another name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams_message(notice: Notice) -> dict[str, Any]:
    """The message for a workflow of Teams: an adaptive card."""
    content: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {"type": "TextBlock", "text": _for_teams(notice.title), "weight": "Bolder", "size": "Medium", "wrap": True},
            {"type": "TextBlock", "text": _for_teams(notice.text), "wrap": True},
            {
                "type": "FactSet",
                "facts": [{"title": name, "value": _for_teams(value)} for name, value in notice.facts.items()],
            },
        ],
    }
    if notice.link:
        content["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": notice.link}]
    card = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": content}
    return {"type": "message", "attachments": [card]}


def _for_teams(text: str) -> str:
    """Text without Markdown."""
    return re.sub(r"([\\`*_\[\]()#])", r"\\\1", text)


def mail(notice: Notice, *, sender: str, recipients: tuple[str, ...]) -> EmailMessage:
    """The mail; its id is made of the key, so that a program can tell that it came twice."""
    message = EmailMessage()
    message["Subject"] = " ".join(notice.title.split())
    message["From"], message["To"] = sender, ", ".join(recipients)
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{re.sub(r'[^A-Za-z0-9.-]', '-', notice.key)}@rankline>"
    message["Auto-Submitted"] = "auto-generated"
    facts = "\n".join(f"{name}: {value}" for name, value in {**notice.facts, "page": notice.link}.items() if value)
    message.set_content(f"{notice.text}\n\n{facts}\n")
    return message
