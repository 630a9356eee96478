"""A listener whom nobody hears."""

from __future__ import annotations

from compressor.progress import Progress, Silent


def test_silence_takes_whatever_a_run_tells(capsys: object) -> None:
    listener: Progress = Silent()
    listener.start("admm", 3, "step")
    listener.advance(1, loss=0.5)
    listener.note("something")
    listener.finish("admm", loss=0.1)
    assert capsys.readouterr() == ("", "")  # type: ignore[attr-defined]
