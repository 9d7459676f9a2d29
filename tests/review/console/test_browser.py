"""The console in a real headless Chromium: read, approve and roll back with the keyboard, and watch a server swap."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rankline.registry.registry_state import Event
from tests.review.console.process import RunningConsole, running_console
from tests.review.console.world import World
from tests.serving.conftest import Server, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REASON = "it recommends new items"
# texts whose contrast with what is behind them is below 4.5 (WCAG AA), and fields without a label
PROBLEMS = """() => {
  const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      const color = rgba(getComputedStyle(each).backgroundColor);
      if (color[3]) layers.unshift(color);
      if (color[3] === 1) break;
    }
    return layers.reduce((under, over) => under.map((v, i) => v * (1 - over[3]) + over[i] * over[3]), [255, 255, 255]);
  };
  const problems = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (own && element.checkVisibility() && element.tagName !== "OPTION") {
      const pair = [light(rgba(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
      const contrast = (pair[0] + .05) / (pair[1] + .05);
      if (contrast < 4.5) problems.push(`${contrast.toFixed(2)}: ${element.textContent.trim().slice(0, 40)}`);
    }
  }
  for (const field of document.querySelectorAll("input:not([type=hidden]), textarea, select"))
    if (!field.labels.length) problems.push(`no label: ${field.name}`);
  const ids = [...document.querySelectorAll("[id]")].map(each => each.id);
  ids.filter((id, n) => ids.indexOf(id) !== n).forEach(id => problems.push(`twice: #${id}`));
  for (const each of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
    for (const id of ["labelledby", "describedby"].flatMap(name => each.getAttribute(`aria-${name}`)?.split(" ") ?? []))
      if (id && !document.getElementById(id)) problems.push(`nothing has #${id}`);
  return problems;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; where there is none the tests are skipped, unless CI needs one."""
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        reason = "there is no chromium on PATH" if CHROMIUM is None else "playwright is not installed"
        if os.environ.get("CI") == "true" and os.environ.get("RANKLINE_NEEDS_BROWSER") == "1":
            pytest.fail(f"{reason}, and RANKLINE_NEEDS_BROWSER is set")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def server(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that follows the champion."""
    options = ("--repository", str(world.workspace / "repository"), "--poll-s", "0.2")
    with running(tmp_path_factory.mktemp("server"), *options) as started:
        yield started


@pytest.fixture(scope="module")
def watching(world: World, server: Server) -> Iterator[RunningConsole]:
    """A console that watches the server."""
    with running_console(world.workspace, "--server", server.url) as console:
        yield console


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page of a browser that prefers light or dark; at its end nothing may have been refused by the policy."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1200, "height": 900})
    opened, messages = context.new_page(), []
    opened.set_default_timeout(120_000)  # MLflow's copy of a promotion is made at the same time
    opened.on("console", lambda message: messages.append(message.text))
    yield opened
    context.close()
    assert [text for text in messages if "Content Security Policy" in text] == []


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not come to {selector}")


def until_the_server_is_shown_with(page: Page, model_id: str) -> None:
    """Load the page of what serves until it says that the server answers with this model."""
    for _ in range(50):
        if page.get_by_role("row").filter(has_text=model_id[:12]).get_by_text("serves the champion").count():
            return
        page.wait_for_timeout(200)
        page.get_by_role("link", name="Ask the servers again").click()
    raise AssertionError(page.locator("main").inner_text())


@pytest.mark.integration
def test_a_reviewer_approves_and_rolls_back_with_the_keyboard_alone(
    page: Page, watching: RunningConsole, world: World, server: Server, candidate: Callable[..., Event], tmp_path: Path
) -> None:
    model, before = candidate().model_id, world.models.champion()
    page.goto(watching.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    tab_to(page, f"a[href^='/candidates/{model}']")
    page.screenshot(path=tmp_path / "queue.png")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/candidates/{model}*")

    evidence = page.frame_locator("iframe")
    assert evidence.get_by_role("heading").inner_text() == f"Evidence of {model[:12]}"
    assert "hurt" not in evidence.locator("body").inner_text(), "a script of the evidence page ran"
    tab_to(page, "#approval")
    page.keyboard.type(REASON)
    page.screenshot(path=tmp_path / "candidate.png", full_page=True)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("is recorded").wait_for()
    page.screenshot(path=tmp_path / "approved.png", full_page=True)
    event = world.models.history()[-1]
    assert (event.kind, event.model_id, event.why) == ("promoted", model, REASON)

    tab_to(page, "a[href='/serving']")
    page.keyboard.press("Enter")
    until_the_server_is_shown_with(page, model)
    assert server.client.get("/readyz").json()["model_id"] == model
    page.screenshot(path=tmp_path / "serving.png", full_page=True)

    tab_to(page, "#reason")
    page.keyboard.type("returns doubled since yesterday")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("rolled back by").wait_for()
    assert world.models.champion() == before
    until_the_server_is_shown_with(page, before)
    assert server.client.get("/readyz").json()["model_id"] == before


def test_a_missing_reason_is_reported_where_it_belongs(
    page: Page, watching: RunningConsole, candidate: Callable[..., Event], tmp_path: Path
) -> None:
    model = candidate().model_id
    page.goto(f"{watching.url}/candidates/{model}")
    tab_to(page, "#rejection")
    page.keyboard.type("bad")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_role("link", name="Enter a reason").focus()
    page.keyboard.press("Enter")
    page.screenshot(path=tmp_path / "refused.png", full_page=True)
    assert page.evaluate("document.activeElement.id") == "rejection"
    assert page.locator("#rejection").input_value() == "bad"
    assert page.evaluate(PROBLEMS) == []


def test_a_page_that_cannot_be_read_is_seen(page: Page) -> None:
    page.set_content("<p style='color: #999'>pale</p><input name=a><i id=b></i><i id=b aria-labelledby=c></i>")
    problems = " ".join(page.evaluate(PROBLEMS))
    for part in ("pale", "no label: a", "twice: #b", "nothing has #c"):
        assert part in problems


@pytest.mark.integration
@pytest.mark.parametrize("width", [1200, 390])
def test_every_page_can_be_read(page: Page, watching: RunningConsole, world: World, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paths: dict[str, str] = {
        "queue": "/", "decided": "/decided", "rejected": f"/candidates/{world.rejected}", "serving": "/serving",
        "timeline": "/timeline", "at": "/at?time=2099-01-01", "model": f"/models/{world.champion}",
        "compare": f"/compare?first={world.waiting}&second={world.rejected}", "error": "/candidates/nonsense",
    }  # fmt: skip
    for name, path in paths.items():
        page.goto(watching.url + path)
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        assert page.evaluate(PROBLEMS) == [], path
        overflow: Any = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{path} is {overflow} pixels too wide"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") is not dark
