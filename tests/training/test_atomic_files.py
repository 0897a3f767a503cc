"""Files that appear whole, and what they must not replace."""

import os
from pathlib import Path

import pytest

from stepback_training.atomic_files import write_whole
from stepback_training.config import DataRecipe
from stepback_training.data.samples import write_samples


def pipe_in(folder: Path) -> Path:
    path = folder / "pipe"
    os.mkfifo(path)
    return path


def test_a_text_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "text"
    for text in ("old", "new"):
        write_whole(path, [text])
        assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir()] == ["text"]


def test_on_a_full_disk_nothing_is_left_behind_and_the_older_one_stays(tmp_path: Path) -> None:
    (path := tmp_path / "text").write_text("old")
    (tmp_path / "text.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, ["new"])
    assert caught.value.filename == str(path)
    assert [each.name for each in tmp_path.iterdir()] == ["text"] and path.read_text() == "old"


def test_a_pipe_or_a_device_is_refused_and_stays(tmp_path: Path) -> None:
    path = pipe_in(tmp_path)
    with pytest.raises(OSError, match="name a file instead"):
        write_whole(path, ["text"])
    with pytest.raises(OSError, match="name a file instead"):
        write_samples(DataRecipe(samples=1), path)
    assert path.is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
