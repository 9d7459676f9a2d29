"""The documentation site builds strictly, needs no network, and has no broken links."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools import site

ROOT = Path(__file__).resolve().parents[2]


def build(into: Path, *, docs: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Do what `make docs` does, into another folder, and optionally with another docs/."""
    config = (
        (ROOT / "mkdocs.yml").read_text().replace("- docs/tools/site.py", f"- {ROOT / 'docs' / 'tools' / 'site.py'}")
    )
    here = into.parent / "mkdocs.yml"
    here.write_text(config.replace("docs_dir: docs", f"docs_dir: {docs or ROOT / 'docs'}"))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(here), "-d", str(into)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "true", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.integration
def test_the_site_builds_and_reads_without_a_network(tmp_path: Path) -> None:
    done = build(tmp_path / "site")
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    names = {page.relative_to(tmp_path / "site").as_posix() for page in pages}
    assert {
        "index.html",
        "reference.html",
        "contributing.html",
        "components/finetune.html",
        "components/server.html",
    } <= names
    assert any(name.startswith("decisions/0001") for name in names)
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(https?:|//)", page.read_text())
        assert loaded == [], page


@pytest.mark.integration
def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "assets").mkdir(parents=True)
    (docs / "assets" / "site.css").touch()
    for page in ("decisions/0001-one.md", "reference.md", "benchmarks.md"):
        (docs / page).parent.mkdir(exist_ok=True)
        (docs / page).write_text("# A page\n")
    (docs / "guide.md").write_text("# Guide\n\n[gone](nowhere.md)\n")
    done = build(tmp_path / "site", docs=docs)
    assert done.returncode != 0
    assert "docs/guide.md links to nowhere.md" in done.stderr + done.stdout
    (docs / "guide.md").write_text("# Guide\n\n[gone](benchmarks.md#no-such-heading)\n")
    done = build(tmp_path / "site", docs=docs)
    assert done.returncode != 0
    assert "no-such-heading" in done.stderr + done.stdout


def test_the_navigation_has_the_existing_pages_in_order(tmp_path: Path) -> None:
    for page in ("storage.md", "data.md", "reference.md", "more.md", "decisions/0002-b.md", "decisions/0001-a.md"):
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).touch()
    *pages, components, decisions, project = site.on_config({"docs_dir": str(tmp_path)})["nav"]
    assert pages == [{"Home": "index.md"}, "data.md", "storage.md", "reference.md", "more.md"]
    assert {"ingest": "components/ingest.md"} in components["Components"]
    assert decisions == {"Decisions": ["decisions/0001-a.md", "decisions/0002-b.md"]}
    assert project == {"Project": ["contributing.md", "changelog.md"]}


@pytest.mark.parametrize(
    ("page", "text", "becomes"),
    [
        ("index.md", "[a](docs/benchmarks.md#x)", "[a](benchmarks.md#x)"),
        ("index.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("index.md", "[the licence](LICENSE)", "the licence (`LICENSE`)"),
        ("components/server.md", "[openapi](openapi.json)", "openapi (`serving/openapi.json`)"),
        ("benchmarks.md", "[b](../components/distill/README.md)", "[b](components/distill.md)"),
        ("components/distill.md", "[c](../../docs/benchmarks.md)", "[c](../benchmarks.md)"),
        ("index.md", "`[a](LICENSE)` [b](https://x.org) [c](#here)", "`[a](LICENSE)` [b](https://x.org) [c](#here)"),
        ("index.md", "```\n[a](LICENSE)\n```", "```\n[a](LICENSE)\n```"),
    ],
)
def test_links_between_files_become_links_of_the_site(page: str, text: str, becomes: str) -> None:
    assert site.rewrite_links(text, page, {"benchmarks.md", "decisions/0001-one.md"}) == becomes


def test_a_link_to_a_missing_file_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        site.rewrite_links("[a](docs/gone.md)", "index.md", set())
    assert "README.md links to docs/gone.md" in caplog.text
