"""A stretch of work in which no process starts and nothing goes over the network."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from compressor.errors import UnsafeFileError
from compressor.sealed import sealed


def test_a_program_is_not_started_in_it_and_may_be_after_it() -> None:
    with (
        sealed("image.png"),
        pytest.raises(UnsafeFileError, match="opening it would start another program"),
    ):
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert subprocess.run([sys.executable, "-c", ""], check=True).returncode == 0


def test_the_network_is_not_reached_in_it() -> None:
    with socket.socket() as made, sealed("config.json"), pytest.raises(UnsafeFileError, match="go to the network"):
        made.connect(("127.0.0.1", 9))


def test_blocks_lie_in_each_other() -> None:
    with sealed("outer"):
        with sealed("inner"):
            pass
        with pytest.raises(UnsafeFileError, match=r"^outer: "):
            subprocess.run([sys.executable, "-c", ""], check=True)
