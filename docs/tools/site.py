"""The hooks of mkdocs: pages from outside of docs/, the navigation, links between pages.

README.md, CONTRIBUTING.md, CHANGELOG.md and the READMEs of components and of the server become pages as they are. Links
between pages become links of the site. A link to another file of the repository becomes its name, and the file has to
exist.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from rankline.runtime.steps import ALL_STEPS, SUMMARY_STEP, component_folder

ROOT = Path(__file__).resolve().parents[2]
LOG = logging.getLogger("mkdocs.hooks.rankline")  # a warning fails a strict build

# page of the site -> file outside of docs/
EXTERNAL_PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
COMPONENTS = tuple(dict.fromkeys(component_folder(step) for step in (*ALL_STEPS, SUMMARY_STEP)))
# the order of pages in the navigation; the others follow
ORDER = (
    "index.md", "guide.md", "operations.md", "runs.md", "schedules.md", "gates.md", "evidence.md", "review.md",
    "console.md", "refresh.md", "features.md", "housekeeping.md", "privacy.md", "cluster.md", "data.md", "labels.md",
    "training.md", "tuning.md", "storage.md", "mlflow.md", "notifications.md", "images.md", "faults.md", "serving.md",
    "reference.md", "benchmarks.md",
)  # fmt: skip
# code, which stays as it is, or [text](target)
_LINK = re.compile(r"(^```.*?^```|`[^`\n]+`)|(!?)\[([^\]]+)\]\(([^)\s]+)\)", re.MULTILINE | re.DOTALL)


def external_pages() -> dict[str, str]:
    """Page of the site -> file, for every page from outside of docs/."""
    component_pages = {f"components/{component}.md": f"components/{component}/README.md" for component in COMPONENTS}
    pages = {**EXTERNAL_PAGES, **component_pages, "components/server.md": "serving/README.md"}
    return {page: source for page, source in pages.items() if (ROOT / source).is_file()}


def on_config(config: Any) -> Any:
    """Build the navigation: the known pages in their order, the others of docs/, components, decisions, project."""
    docs = Path(config["docs_dir"])
    docs_pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    external = external_pages()
    decisions = sorted(page for page in docs_pages if page.startswith("decisions/") and page != "decisions/index.md")
    ordered = [page for page in ORDER if page in docs_pages or page in external]
    others = sorted(docs_pages - {*ordered, *decisions})
    config["nav"] = [
        *({"Home": page} if page == "index.md" else page for page in (*ordered, *others)),
        {"Components": [{posixpath.basename(page)[:-3]: page} for page in external if page.startswith("components/")]},
        {"Decisions": decisions},
        {"Project": [page for page in ("contributing.md", "changelog.md") if page in external]},
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from outside of docs/."""
    from mkdocs.structure.files import File

    for page, source in external_pages().items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a page."""
    return rewrite_links(markdown, page.file.src_uri, {file.src_uri for file in files if file.is_documentation_page()})


def rewrite_links(markdown: str, page: str, pages: set[str]) -> str:
    """The text of ``page`` with links to the site's ``pages``; warns of links to files that do not exist."""
    external = external_pages()
    source = external.get(page, f"docs/{page}")
    site = {**{f"docs/{each}": each for each in pages}, **{file: each for each, file in external.items()}}

    def link(match: re.Match[str]) -> str:
        code, image, words, target = match.groups()
        path, _, anchor = (target or "").partition("#")
        if code or image or not path or re.match(r"[a-z]+:", path):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if file == "docs/decisions":
            file = next(each for each in sorted(site) if each.startswith("docs/decisions/"))
        if file in site:
            to = os.path.relpath(site[file], posixpath.dirname(page) or ".")
            return f"[{words}]({to}{'#' + anchor if anchor else ''})"
        if not (ROOT / file).exists():
            LOG.warning("%s links to %s, which is neither a page nor a file of the repository", source, target)
        return words if words.strip("`") == file else f"{words} (`{file}`)"

    return _LINK.sub(link, markdown)
