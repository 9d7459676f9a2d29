"""`rankline compile`: the package, or an error message."""

from __future__ import annotations

from pathlib import Path

from tests.cli.in_process import rankline, refused
from tests.pipelines import golden

PINNED = [part for setting in golden.PINNED for part in ("--set", setting)]


def test_it_writes_the_package(tmp_path: Path) -> None:
    done = rankline("compile", "--recipe", "smoke", "-o", tmp_path / "new" / "flow.yaml", *PINNED)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "new" / "flow.yaml").read_text() == golden.path("train").read_text()


def test_images_have_to_be_pinned(tmp_path: Path) -> None:
    message = refused("compile", "--recipe", "smoke", "-o", tmp_path / "flow.yaml", code=2)
    assert message.startswith("the data image is not pinned")
    assert "try: --set cluster.images.data=" in message
    assert not list(tmp_path.iterdir())
