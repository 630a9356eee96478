"""Jobs in processes of their own: one that fails, hangs or finds no time left takes nothing else with it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.side_by_side import Job, append_line, json_lines, side_by_side


def python(name: str, code: str, seconds: float | None = None) -> Job:
    return Job(name, (sys.executable, "-S", "-c", code), seconds)


def test_each_ends_in_its_own_way_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    says = f"open({str(rows)!r}, 'a').write('{{\"said\": 1}}\\n')"
    jobs = [
        python("good", f"print('fine'); {says}"),
        python("bad", "print('before'); raise SystemExit('it broke')"),
        python("hangs", "import time; print('waits', flush=True); time.sleep(600)", 2.0),
        python("after", says),
    ]
    told: list[str] = []
    ended = side_by_side(jobs, tmp_path / "logs", processes=2, on_end=lambda end: told.append(end.name))
    assert [(end.name, end.how) for end in ended] == [
        ("good", "done"), ("bad", "failed"), ("hangs", "out of time"), ("after", "done")
    ]  # fmt: skip
    assert sorted(told) == ["after", "bad", "good", "hangs"]
    assert ended[0].said == "fine\n" and "it broke" in ended[1].said and "waits" in ended[2].said
    assert len(json_lines(rows)) == 2
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["bad.log", "hangs.log"]


def test_what_a_job_started_itself_ends_with_it(tmp_path: Path) -> None:
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(tmp_path / 'outlived')!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {child!r}]); time.sleep(600)"
    (end,) = side_by_side([python("parent", code, 1.0)], tmp_path, processes=1)
    time.sleep(2.5)
    assert end.how == "out of time" and not (tmp_path / "outlived").exists()


def test_no_time_is_told_of(tmp_path: Path) -> None:
    (end,) = side_by_side([python("late", "pass")], tmp_path, processes=1, seconds=0)
    assert end.how == "not begun"


def test_lines_of_several_processes_are_whole(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    root = Path(__file__).parents[2]
    code = (
        f"import sys, pathlib; sys.path.insert(0, {str(root)!r})\n"
        "from benchmarks.side_by_side import append_line\n"
        f"for n in range(200): append_line(pathlib.Path({str(rows)!r}), {{'n': n, 'long': 'x' * 2000}})"
    )
    ended = side_by_side([python(str(n), code) for n in range(3)], tmp_path / "logs", processes=3)
    assert [end.how for end in ended] == ["done"] * 3
    assert len(json_lines(rows)) == 600 == len(rows.read_text().splitlines())


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    append_line(tmp_path / "rows.jsonl", {"n": 1})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"n": 2, "err')
    assert json_lines(tmp_path / "rows.jsonl") == [{"n": 1}]
    assert json_lines(tmp_path / "none.jsonl") == []
