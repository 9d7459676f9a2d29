"""The file of single requests: read back, of another version, without the requests of erased users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.erasure.ids import UserIds
from pipelines.erasure.rewriting import redacted
from rankline.evidence.comparisons import COMPARISONS, one_line, read_comparisons, write_comparisons
from rankline.evidence.page import evidence_page
from tests.rankline.evidence.subjects import compared, comparisons, full


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_comparisons(tmp_path, comparisons())
    assert read_comparisons(tmp_path) == comparisons()


@pytest.mark.parametrize("content", [None, "{}", "no JSON", '{"wins": []}'])
def test_a_file_of_another_version_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / COMPARISONS).write_text(content)
    write_comparisons(tmp_path, None)
    assert read_comparisons(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n b\t\x00c", "a b c"),
        ("", ""),
        ("x" * 20, "x" * 9 + "…"),
        ("\u202eabc\ufeff", "abc"),
        ("日本 語", "日本 語"),
    ],
)
def test_a_text_becomes_one_line(text: str, line: str) -> None:
    assert one_line(text, 10) == line


@pytest.mark.parametrize("user", ["u2", "17", "max", "a<b&c", 'q"uote', "d'Arc", 'Ü"x', "Ünï@x.de"])
def test_an_erased_users_requests_leave_the_file_and_the_page(user: str) -> None:
    both = comparisons().model_copy(update={"wins": [compared(1, user="other"), compared(2, user=user)]})
    users = UserIds(frozenset({user}))
    content = redacted(both.model_dump_json(indent=1).encode(), users, name=COMPARISONS) or b""
    assert [each["user_id"] for each in json.loads(content)["wins"]] == ["other"]
    assert len(json.loads(content)["losses"]) == 1
    before = evidence_page(full(comparisons=both)).encode()
    for name in ("evidence.html", "page"):  # in the registry, and as Kubeflow's artifact
        page = redacted(before, users, name=name) or b""
        assert page.count(b"<article>") == page.count(b"</article>") == 2
    assert not users.is_in(content.decode() + page.decode())
