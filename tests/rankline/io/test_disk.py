import errno
import os
import shutil
from pathlib import Path

import pytest

from rankline.io import disk
from tests.pipelines.hurt import disk as small_disk


def test_a_copy_to_a_full_disk_names_the_target(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(3_000_000))
    with small_disk(tmp_path / "disk", megabytes=1) as small:
        with pytest.raises(OSError, match="No space left") as stop:
            shutil.copyfile(source, small.folder / "copy")
        message = str(disk.no_space_error(stop.value, [tmp_path]))
    assert f"where: {small.folder}" in message


def test_without_a_name_the_fullest_of_the_folders_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as small:
        small.fill(leave=0)
        message = str(disk.no_space_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), [tmp_path, small.folder]))
    assert f"where: {small.folder}" in message
    assert "found: No space left on device; 0.0 of 1 MB free" in message
