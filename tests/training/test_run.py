"""The folder of a run, and who holds it."""

import os
import signal
from pathlib import Path

import pytest

from stepback_training.train.run_folder import locked


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(ValueError, match="another process is training there"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_a_child_that_is_still_there_does_not_hold_the_folder(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if not child:
            os.write(writer, b"!")
            signal.pause()
    try:
        assert os.read(reader, 1) == b"!"
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
