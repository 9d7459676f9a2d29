"""What the pages show, to a browser and to a script."""

from __future__ import annotations

import httpx
import pytest

from rankline.evaluation.report import Report, SystemScores
from review.console.routes.candidates import metric_rows
from tests.review.console.process import RunningConsole
from tests.review.console.world import World, estimate


@pytest.fixture(scope="module")
def browser(console: RunningConsole) -> httpx.Client:
    return console.client()


@pytest.mark.integration
def test_the_queue_has_what_waits_and_the_others_are_decided(browser: httpx.Client, world: World) -> None:
    queue, decided = browser.get("/").text, browser.get("/decided").text
    assert f"/candidates/{world.waiting}" in queue
    assert f"/candidates/{world.rejected}" not in queue
    assert f"/candidates/{world.rejected}" in decided
    assert "Queue (1)" in decided
    assert 'href="/" aria-current="page"' in queue


@pytest.mark.parametrize("path", ["/", "/decided", "/timeline", "/serving", "/at", "/compare"])
def test_every_page_has_landmarks_a_title_and_one_heading(browser: httpx.Client, path: str) -> None:
    page = browser.get(path)
    assert page.status_code == 200
    for part in ('<html lang="en">', "<main id=", '<nav aria-label="Main">', 'href="#main"', "aria-current"):
        assert part in page.text
    assert page.text.count("<h1") == 1
    assert "<script" not in page.text
    assert " style=" not in page.text


def test_a_candidate_has_its_gates_metrics_and_the_digest_of_its_evidence(browser: httpx.Client, world: World) -> None:
    page = browser.get(f"/candidates/{world.waiting[:8]}").text
    assert "floor ndcg@10" in page
    assert "0.31" in page
    assert f'name="verdict" value="{world.verdict}"' in page
    assert f'/candidates/{world.waiting}/evidence?verdict={world.verdict}" sandbox' in page


def test_the_primary_metric_comes_first_and_all_rows_have_the_same_systems() -> None:
    scores = {"candidate": (0.1, 0.2), "popularity": (0.1, 0.4), "item_knn": (0.2, 0.3)}
    systems = {
        name: SystemScores(metrics={"hr@10": estimate(hr), "ndcg@10": estimate(ndcg)})
        for name, (ndcg, hr) in scores.items()
    }
    report = Report(model_id="m", recipe="tiny", run_id="", champion="", requests=1, systems=systems)
    rows = metric_rows(report, "ndcg@10")
    assert [row["metric"] for row in rows] == ["ndcg@10", "hr@10"]
    assert [[system for system, _ in row["systems"]] for row in rows] == [["candidate", "item_knn"]] * 2


def test_text_of_others_stays_text(browser: httpx.Client, world: World) -> None:
    for path in ("/decided", "/timeline", f"/candidates/{world.rejected}", f"/models/{world.rejected}"):
        page = browser.get(path).text
        assert "&lt;script&gt;" in page
        assert "<script" not in page


def test_the_evidence_page_has_a_policy_of_its_own(browser: httpx.Client, world: World) -> None:
    response = browser.get(f"/candidates/{world.waiting}/evidence")
    policy = response.headers["content-security-policy"]
    assert "Evidence of" in response.text
    assert policy.startswith("sandbox;")
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy


def test_the_timeline_is_filtered_by_kind_and_model(browser: httpx.Client, world: World) -> None:
    events = httpx.Client(base_url=browser.base_url, headers={"accept": "application/json"}).get
    every = events("/timeline").json()["entries"]
    promoted = events("/timeline", params={"kind": "promoted"}).json()["entries"]
    of_model = events("/timeline", params={"model": world.waiting[:6]}).json()["entries"]
    assert every["total"] == len(world.models.history())
    assert [entry["model_id"] for entry in promoted["rows"]] == [world.champion, world.former]
    assert promoted["rows"][0]["before"] == world.former
    assert {entry["model_id"] for entry in of_model["rows"]} == {world.waiting}
    assert browser.get("/timeline", params={"kind": "nonsense"}).status_code == 422


def test_what_served_at_a_time(browser: httpx.Client, world: World) -> None:
    first, second = (event.at for event in world.models.history() if event.kind == "promoted")
    assert world.former in browser.get("/at", params={"time": first}).text
    assert world.champion in browser.get("/at", params={"time": second}).text
    assert "No model served then" in browser.get("/at", params={"time": "1999-01-01"}).text
    assert browser.get("/at", params={"time": "0001-01-01T00:00+05:00"}).status_code == 422  # no year of UTC
    refused = browser.get("/at", params={"time": "yesterday"})
    assert refused.status_code == 422
    assert 'href="#time"' in refused.text


def test_where_a_model_comes_from(browser: httpx.Client, world: World) -> None:
    page = browser.get(f"/models/{world.waiting}").text
    assert "tiny" in page
    assert world.verdict in page
    assert f"first={world.champion}" in page


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/candidates/nonsense", 404), ("/models/nonsense", 404), ("/nonsense", 404), ("/timeline?page=0", 422),
        ("/candidates/nonsense/evidence", 404), ("/compare?first=a", 422),
    ],
)  # fmt: skip
def test_an_error_is_a_page_with_what_to_try(browser: httpx.Client, path: str, status: int) -> None:
    page = browser.get(path)
    assert page.status_code == status
    assert "Expected" in page.text or "Found" in page.text
    assert "Traceback" not in page.text
    as_json = browser.get(path, headers={"accept": "application/json"})
    assert as_json.status_code == status
    assert {"error", "expected", "found", "hint"} <= as_json.json().keys()


@pytest.mark.parametrize("path", ["/", "/serving", "/nonsense", "/healthz", "/static/console.css", "/timeline?page=0"])
def test_every_response_has_the_headers(browser: httpx.Client, path: str) -> None:
    headers = browser.get(path).headers
    policy = headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert {
        "style-src 'self'", "img-src 'self' data:", "form-action 'self'", "frame-src 'self'", "frame-ancestors 'none'",
        "base-uri 'none'",
    } == set(policy[1:])  # fmt: skip
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers
    for cookie in headers.get_list("set-cookie"):
        assert "httponly; samesite=lax" in cookie.lower()


def test_a_server_that_does_not_answer_is_shown(world: World, bundles: list[object]) -> None:
    from review.console.servers import Servers

    (health,) = Servers(["http://127.0.0.1:9"]).health()
    assert health.problem.startswith("it does not answer")
    assert not health.serves(world.champion)


def test_a_damaged_registry_is_an_error_without_a_trace(console: RunningConsole, world: World) -> None:
    damaged = world.workspace / "repository" / "events" / f"{len(world.models.history()) + 1}.json"
    damaged.write_text("{")
    try:
        page = console.client().get("/")
        assert page.status_code == 409
        assert "the history of the model registry is damaged" in page.text
        assert "Traceback" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert console.client().get("/healthz").json() == {"ready": False}
    finally:
        damaged.unlink()
    assert console.client().get("/").status_code == 200
