"""The first run on a cluster in docs/cluster.md: ten commands, each of which names what the others make."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.recipes import named
from tests.cli.in_process import rankline
from tests.cli.test_main import COMMANDS

PAGE = Path(__file__).resolve().parents[2] / "docs/cluster.md"
SECTION = PAGE.read_text().partition("## A first run, from nothing\n")[2].partition("\n## ")[0]
IMAGE = "registry.example/acme/rankline/x@sha256:" + "a" * 64


def blocks() -> list[list[list[str]]]:
    """The words of every command of each block."""
    texts = re.findall(r"^```\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    return [[shlex.split(line) for line in text.replace("\\\n", " ").splitlines()] for text in texts]


FIRST, WITH_BUCKET = blocks()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What `cluster init` of the page writes, with digests in the place of its dots."""
    monkeypatch.chdir(tmp_path)
    (words,) = [each for each in FIRST if each[:3] == ["rankline", "cluster", "init"]]
    done = rankline(*(word.replace("…", IMAGE) for word in words[1:]))
    assert done.returncode == 0, done.stderr
    yield tmp_path / "first"
    for name in [each for each in sys.modules if each.partition(".")[0] == "first"]:
        del sys.modules[name]


def test_it_takes_ten_commands_and_nothing_is_edited_by_hand() -> None:
    assert len(FIRST) == 10
    assert "These ten commands" in SECTION
    assert not {"sed", "vi", "$EDITOR"} & {word for words in FIRST for word in words}


@pytest.mark.parametrize("words", [w for block in (FIRST, WITH_BUCKET) for w in block if "rankline" in w], ids=" ".join)
def test_a_command_has_these_options(words: list[str]) -> None:
    words = words[words.index("rankline") + 1 :]
    words = [word.replace("…", IMAGE) for word in (words[: words.index("|")] if "|" in words else words)]
    count = next(n for n in range(len(words), 0, -1) if tuple(words[:n]) in COMMANDS)
    COMMANDS[tuple(words[:count])].make_context("rankline", words[count:], resilient_parsing=False)


def test_each_command_finds_what_those_before_it_create(folder: Path) -> None:
    objects: dict[str, dict[str, Any]] = {}
    for path in folder.glob("*.yaml"):
        for each in yaml.safe_load_all(path.read_text()):
            objects[f"{each['kind'].lower()}/{each.get('metadata', {}).get('name')}"] = each
    named_there = {word for words in FIRST for word in words if re.match(r"(job|deployment)/", word)}
    assert named_there == {"job/rankline-volume", "job/rankline-fetch", "deployment/rankline"}
    assert named_there <= set(objects)
    references = {word for words in FIRST for word in words if word.endswith(":recipe")}
    assert references == {"first.on_cluster:recipe"}
    assert named("first.on_cluster:recipe").cluster.pack


def test_it_fits_a_single_small_node(folder: Path) -> None:
    volume = next(iter(yaml.safe_load_all((folder / "volume.yaml").read_text())))
    assert volume["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert volume["spec"]["resources"]["requests"]["storage"] == "5Gi"
    server = next(iter(yaml.safe_load_all((folder / "serve.yaml").read_text())))
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "250m"
