"""Why a schedule started a run by need is in its summary and in what people are notified of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankline.io.files import write_json
from rankline.notifications.config import NotifyConfig, Webhook
from rankline.notifications.notice import notice_of_failed_run, slack_message
from rankline.notifications.notify import notify
from rankline.registry.registry_state import Event
from rankline.runtime.run_summary import Prices, summarize
from tests.rankline.notifications.receivers import web_server

WHY = "drift:price>=0.2: items.price since run r1: PSI 0.31"


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [({"kind": "need", "why": WHY}, WHY), ({"kind": "scheduled"}, None), (None, None)],
)
def test_the_summary_of_a_run_says_why_a_need_started_it(
    tmp_path: Path, trigger: dict[str, Any] | None, expected: str | None
) -> None:
    if trigger:
        write_json(tmp_path / "trigger.json", trigger)
    summary = summarize(tmp_path, config=Prices())
    assert summary.get("why") == expected
    notice = notice_of_failed_run(summary)
    assert notice.facts.get("run started because of") == notice.payload.get("run_started_because") == expected


def test_the_notice_of_an_event_says_why_its_run_was_started(tmp_path: Path) -> None:
    write_json(tmp_path / "runs" / "r2" / "trigger.json", {"kind": "need", "why": WHY})
    with web_server([200]) as (url, received):
        settings = NotifyConfig(webhooks=(Webhook(url=url),))
        for number, run in enumerate(("r2", "r3"), 1):
            event = Event(n=number, kind="promoted", model_id="m", at="", who="the flow", why="passed", run_id=run)
            assert notify(event, settings=settings, workspace=tmp_path) == ""
    payloads = [json.loads(each.body) for each in received]
    assert [each.get("run_started_because") for each in payloads] == [WHY, None]


def test_a_chat_shows_it(tmp_path: Path) -> None:
    write_json(tmp_path / "trigger.json", {"kind": "need", "why": WHY})
    text = json.dumps(slack_message(notice_of_failed_run(summarize(tmp_path, config=Prices()))))
    assert "PSI 0.31" in text
